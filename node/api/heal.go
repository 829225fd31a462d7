package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// The phases of healing.
const (
	HealIdle        = "idle"
	HealCopying     = "copying"
	HealDraining    = "draining"
	HealRebalancing = "rebalancing"
	HealScrubbing   = "scrubbing"
)

// HealInfo says how the copies are and what is being done about it. An ETA of 0
// is one that can't be said.
type HealInfo struct {
	Leader string // node that coordinates
	Phase  string // one of the phases
	Since  time.Time

	// Of the pass that is under way, or of the last one.
	Pass                                int64
	Passing                             bool
	Scanned, Total, Done, Failed, Bytes int64
	BytesPerSecond                      float64
	ETA                                 time.Duration

	Pending    int64 // segments with fewer copies than they were meant to have
	Endangered int64 // segments with one good copy or none
	Lost       []LostInfo
	LostCount  int64 // Lost may have fewer
	Stuck      []StuckInfo
	Draining   []DrainInfo
	Scrub      ScrubInfo
	Rebalance  RebalanceInfo
}

// LostInfo is a segment without a good copy.
type LostInfo struct{ Bucket, Key, Segment, Why string }

// StuckInfo is work that is left until the next pass.
type StuckInfo struct{ What, Why string }

// The kinds of what is drained.
const (
	DrainsNode  = "node"
	DrainsDrive = "drive"
	DrainsPool  = "pool"
)

// DrainInfo is the progress of emptying one thing.
type DrainInfo struct {
	Kind, Name              string
	LeftSegments, LeftBytes int64 // where Counted
	Counted                 bool
	ETA                     time.Duration // 0: can't be said
	Blocked                 string        // what keeps it from coming to an end
	Done                    bool          // the index names nothing on it
}

// ScrubInfo is the continuous verification of all copies.
type ScrubInfo struct {
	Round                int64
	Running, Fast        bool
	StartedAt, EndedAt   time.Time // zero: it hasn't
	Segments, Bytes, Bad int64
	ETA                  time.Duration
}

// RebalanceInfo is the run that is under way, or the last one.
type RebalanceInfo struct {
	Running                                    bool
	StartedAt, EndedAt                         time.Time // zero: it hasn't
	Scanned, MovedSegments, MovedBytes, Failed int64
	ETA                                        time.Duration
	Stopped                                    string // why it ended before its time
}

func (s *storageService) GetHealStatus(ctx context.Context, _ *pb.GetHealStatusRequest) (*pb.GetHealStatusResponse, error) {
	h, err := s.storage.HealStatus(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetHealStatusResponse{
		Leader: h.Leader, Pass: h.Pass, Passing: h.Passing, Phase: healPhase(h.Phase), Since: protoTime(h.Since),
		Scanned: h.Scanned, Total: h.Total, Done: h.Done, Failed: h.Failed, Bytes: h.Bytes, BytesPerSecond: h.BytesPerSecond,
		Eta: left(h.ETA), Pending: h.Pending, Endangered: h.Endangered, UnrecoverableCount: h.LostCount,
		Scrub: &pb.Scrub{
			Round: h.Scrub.Round, StartedAt: protoTime(h.Scrub.StartedAt), EndedAt: protoTime(h.Scrub.EndedAt),
			Segments: h.Scrub.Segments, Bytes: h.Scrub.Bytes, Bad: h.Scrub.Bad,
			Running: h.Scrub.Running, Fast: h.Scrub.Fast, Eta: left(h.Scrub.ETA),
		},
		Rebalance: &pb.RebalanceStatus{
			Running: h.Rebalance.Running, StartedAt: protoTime(h.Rebalance.StartedAt), EndedAt: protoTime(h.Rebalance.EndedAt),
			Scanned: h.Rebalance.Scanned, MovedSegments: h.Rebalance.MovedSegments, MovedBytes: h.Rebalance.MovedBytes,
			Failed: h.Rebalance.Failed, Eta: left(h.Rebalance.ETA), Stopped: h.Rebalance.Stopped,
		},
	}
	for _, l := range h.Lost {
		resp.Unrecoverable = append(resp.Unrecoverable, &pb.LostSegment{Bucket: l.Bucket, Key: l.Key, Segment: l.Segment, Why: l.Why})
	}
	for _, t := range h.Stuck {
		resp.Stuck = append(resp.Stuck, &pb.StuckTask{What: t.What, Why: t.Why})
	}
	for _, d := range h.Draining {
		drain := &pb.Drain{Kind: drainKind(d.Kind), Name: d.Name, Eta: left(d.ETA), Blocked: d.Blocked, Done: d.Done}
		if d.Counted {
			drain.LeftSegments, drain.LeftBytes = proto.Int64(d.LeftSegments), proto.Int64(d.LeftBytes)
		}
		resp.Draining = append(resp.Draining, drain)
	}
	return resp, nil
}

// left is what is left of a time, and nothing where that can't be said.
func left(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

func healPhase(s string) pb.HealPhase {
	switch s {
	case HealIdle:
		return pb.HealPhase_HEAL_PHASE_IDLE
	case HealCopying:
		return pb.HealPhase_HEAL_PHASE_COPYING
	case HealDraining:
		return pb.HealPhase_HEAL_PHASE_DRAINING
	case HealRebalancing:
		return pb.HealPhase_HEAL_PHASE_REBALANCING
	case HealScrubbing:
		return pb.HealPhase_HEAL_PHASE_SCRUBBING
	}
	return pb.HealPhase_HEAL_PHASE_UNSPECIFIED
}

func drainKind(s string) pb.DrainKind {
	switch s {
	case DrainsNode:
		return pb.DrainKind_DRAIN_KIND_NODE
	case DrainsDrive:
		return pb.DrainKind_DRAIN_KIND_DRIVE
	case DrainsPool:
		return pb.DrainKind_DRAIN_KIND_POOL
	}
	return pb.DrainKind_DRAIN_KIND_UNSPECIFIED
}

func (s *storageService) StartHeal(ctx context.Context, r *pb.StartHealRequest) (*pb.StartHealResponse, error) {
	if err := s.storage.StartHeal(ctx, r.GetVerify()); err != nil {
		return nil, err
	}
	return &pb.StartHealResponse{}, nil
}
