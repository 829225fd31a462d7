package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonHeal is the JSON form of gridloom heal status. Durations are in seconds.
type jsonHeal struct {
	Leader         string        `json:"leader"` // node that coordinates
	Phase          string        `json:"phase"`  // "idle", "copying", "draining", "rebalancing", "scrubbing"
	Since          string        `json:"since,omitempty"`
	Pass           jsonHealPass  `json:"pass"`
	Pending        int64         `json:"pending_segments"`    // committed with copies missing
	Endangered     int64         `json:"endangered_segments"` // with at most one copy left, of more
	Unrecoverable  int64         `json:"unrecoverable_segments"`
	Lost           []jsonLost    `json:"unrecoverable,omitempty"` // the first of them
	Stuck          []jsonStuck   `json:"stuck,omitempty"`
	Draining       []jsonDrain   `json:"draining,omitempty"`
	Scrub          jsonScrub     `json:"scrub"`
	Rebalance      jsonRebalance `json:"rebalance"`
	BytesPerSecond float64       `json:"bytes_per_second,omitempty"`
}

type jsonHealPass struct {
	Number  int64   `json:"number"`
	Running bool    `json:"running"`
	Scanned int64   `json:"scanned_segments"`
	Total   int64   `json:"total_segments"` // 0 until they are counted
	Done    int64   `json:"done_segments"`
	Failed  int64   `json:"failed_segments"`
	Bytes   int64   `json:"copied_bytes"`
	ETA     float64 `json:"eta_seconds,omitempty"`
}

type jsonLost struct {
	Bucket  string `json:"bucket"`
	Key     string `json:"key"`
	Segment string `json:"segment"`
	Why     string `json:"why,omitempty"`
}

type jsonStuck struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// jsonDrain is how far the emptying of one thing is; by itself it has a type.
type jsonDrain struct {
	Type         string  `json:"type,omitempty"` // "drain"
	Kind         string  `json:"kind"`           // "node", "drive", "pool"
	Name         string  `json:"name"`
	LeftSegments *int64  `json:"left_segments,omitempty"`
	LeftBytes    *int64  `json:"left_bytes,omitempty"`
	ETA          float64 `json:"eta_seconds,omitempty"`
	Blocked      string  `json:"blocked,omitempty"`
	Done         bool    `json:"done"`
}

type jsonScrub struct {
	Round    int64   `json:"round"`
	Running  bool    `json:"running"`
	Fast     bool    `json:"fast,omitempty"`
	Started  string  `json:"started_at,omitempty"`
	Ended    string  `json:"ended_at,omitempty"`
	Segments int64   `json:"segments"`
	Bytes    int64   `json:"bytes"`
	Bad      int64   `json:"bad_copies"`
	ETA      float64 `json:"eta_seconds,omitempty"`
}

type jsonRebalance struct {
	Running bool    `json:"running"`
	Started string  `json:"started_at,omitempty"`
	Ended   string  `json:"ended_at,omitempty"`
	Scanned int64   `json:"scanned_segments"`
	Moved   int64   `json:"moved_segments"`
	Bytes   int64   `json:"moved_bytes"`
	Failed  int64   `json:"failed_segments"`
	ETA     float64 `json:"eta_seconds,omitempty"`
	Stopped string  `json:"stopped,omitempty"` // why before its time
}

func (a *app) healCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "heal",
		Short: "Show how the copies are, and have them looked at now",
		Long: `Show how the copies of payload are and what is being done about it, or have all
of them looked at now. A mesh heals by itself; nobody has to start it.`,
		Example: `  gridloom heal status
  gridloom heal start --verify --wait`,
	}, a.healStatusCommand(), a.healStartCommand())
}

func (a *app) healStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the copies are",
		Long: `Show how the copies are, as the node knows it that coordinates their healing:
what is missing, what is being done and how long it will take, what is drained
and how far that is, what has no good copy left, and what couldn't be done and
why not.`,
		Example: `  gridloom heal status
  gridloom heal status --json | jq .unrecoverable_segments`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		s, err := c.healStatus(ctx)
		if err != nil {
			return err
		}
		j := healJSON(s)
		return a.out.print(j, func() string { return healText(j) })
	})
}

func (c *client) healStatus(ctx context.Context) (*gridloomv1.GetHealStatusResponse, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.storage.GetHealStatus(ctx, &gridloomv1.GetHealStatusRequest{})
}

func (a *app) healStartCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Have all copies looked at now",
		Long: `Have all copies looked at now, and those made again that are missing. A mesh does
so by itself whenever a drive comes or goes, and every six hours.

--verify also reads every copy of everything and compares it with its checksums,
at the rate that --heal-rate allows; by itself the mesh does that once in
--scrub-period. Copies that are bad are made again from good ones.`,
		Example: `  gridloom heal start --wait
  gridloom heal start --verify --wait`,
		Args: arguments(0, 0),
	}
	verify := cmd.Flags().Bool("verify", false, "also read and verify every copy")
	wait := waitFlag(cmd, "wait until that is done, and show how far it is")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		before := &gridloomv1.GetHealStatusResponse{}
		if *wait {
			var err error
			if before, err = c.healStatus(ctx); err != nil {
				return err
			}
		}
		err := func() error {
			ctx, cancel := c.call(ctx)
			defer cancel()
			_, err := c.storage.StartHeal(ctx, &gridloomv1.StartHealRequest{Verify: *verify})
			return err
		}()
		if err != nil {
			return err
		}
		if *wait {
			return a.awaitHeal(ctx, c, before, *verify)
		}
		return a.out.print(map[string]string{"type": "heal", "change": "start"}, func() string {
			return "all copies are being looked at: gridloom heal status shows how far that is\n"
		})
	})
}

func stampOf(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return stamp(t.AsTime())
}

func healJSON(s *gridloomv1.GetHealStatusResponse) jsonHeal {
	j := jsonHeal{
		Leader: s.GetLeader(), Phase: enumWord(s.GetPhase(), "HEAL_PHASE_"), Since: stampOf(s.GetSince()),
		Pass: jsonHealPass{
			Number: s.GetPass(), Running: s.GetPassing(), Scanned: s.GetScanned(), Total: s.GetTotal(), Done: s.GetDone(), Failed: s.GetFailed(),
			Bytes: s.GetBytes(), ETA: secondsOf(s.GetEta()),
		},
		Pending: s.GetPending(), Endangered: s.GetEndangered(), Unrecoverable: s.GetUnrecoverableCount(), BytesPerSecond: s.GetBytesPerSecond(),
		Scrub: jsonScrub{
			Round: s.GetScrub().GetRound(), Running: s.GetScrub().GetRunning(), Fast: s.GetScrub().GetFast(),
			Started: stampOf(s.GetScrub().GetStartedAt()), Ended: stampOf(s.GetScrub().GetEndedAt()),
			Segments: s.GetScrub().GetSegments(), Bytes: s.GetScrub().GetBytes(), Bad: s.GetScrub().GetBad(), ETA: secondsOf(s.GetScrub().GetEta()),
		},
		Rebalance: jsonRebalance{
			Running: s.GetRebalance().GetRunning(), Started: stampOf(s.GetRebalance().GetStartedAt()), Ended: stampOf(s.GetRebalance().GetEndedAt()),
			Scanned: s.GetRebalance().GetScanned(), Moved: s.GetRebalance().GetMovedSegments(), Bytes: s.GetRebalance().GetMovedBytes(),
			Failed: s.GetRebalance().GetFailed(), ETA: secondsOf(s.GetRebalance().GetEta()), Stopped: s.GetRebalance().GetStopped(),
		},
	}
	for _, l := range s.GetUnrecoverable() {
		j.Lost = append(j.Lost, jsonLost{l.GetBucket(), l.GetKey(), l.GetSegment(), l.GetWhy()})
	}
	for _, t := range s.GetStuck() {
		j.Stuck = append(j.Stuck, jsonStuck{t.GetWhat(), t.GetWhy()})
	}
	for _, d := range s.GetDraining() {
		j.Draining = append(j.Draining, drainJSON(d))
	}
	return j
}

func drainJSON(d *gridloomv1.Drain) jsonDrain {
	return jsonDrain{
		Kind: enumWord(d.GetKind(), "DRAIN_KIND_"), Name: d.GetName(), LeftSegments: d.LeftSegments, LeftBytes: d.LeftBytes,
		ETA: secondsOf(d.GetEta()), Blocked: d.GetBlocked(), Done: d.GetDone(),
	}
}

func secondsOf(d *durationpb.Duration) float64 { return d.AsDuration().Seconds() }

// etaText is ", about 2m30s left", or nothing where it isn't known.
func etaText(seconds float64) string {
	if seconds <= 0 {
		return ""
	}
	d := time.Duration(seconds * float64(time.Second))
	return fmt.Sprintf(", about %s left", max(d.Round(time.Second), time.Second))
}

// healText is how the copies are, for people.
func healText(j jsonHeal) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-15s%s\n", name, fmt.Sprintf(format, args...))
	}
	line("Coordinated by", "%s", orDash(shown(j.Leader)))
	since := ""
	if j.Since != "" {
		since = " since " + j.Since
	}
	line("Now", "%s%s", orDash(j.Phase), since)
	line("Copies missing", "%s", count(j.Pending, "segment"))
	line("Endangered", "%s", count(j.Endangered, "segment"))
	line("Unrecoverable", "%s", count(j.Unrecoverable, "segment"))
	p := j.Pass
	switch of := ""; {
	case p.Running:
		if p.Total > 0 {
			of = fmt.Sprintf(" of %d", p.Total)
		}
		line("Pass", "%d%s looked at, %d in order, %d failed, %s copied%s", p.Scanned, of, p.Done, p.Failed, byteSize(p.Bytes), etaText(p.ETA))
	case p.Number > 0:
		line("Last pass", "%d looked at, %d in order, %d failed, %s copied", p.Scanned, p.Done, p.Failed, byteSize(p.Bytes))
	}
	if j.BytesPerSecond > 0 {
		line("Rate", "%s/s", byteSize(j.BytesPerSecond))
	}
	s := j.Scrub
	switch {
	case s.Running:
		line("Scrub", "round %d: %s and %s read, %s bad%s", s.Round, count(s.Segments, "segment"), byteSize(s.Bytes), count(s.Bad, "copy"), etaText(s.ETA))
	case s.Ended != "":
		line("Scrub", "round %d ended %s: %s and %s read, %s bad", s.Round, s.Ended, count(s.Segments, "segment"), byteSize(s.Bytes), count(s.Bad, "copy"))
	}
	r := j.Rebalance
	switch {
	case r.Running:
		line("Rebalance", "%s and %s moved, %d failed%s", count(r.Moved, "segment"), byteSize(r.Bytes), r.Failed, etaText(r.ETA))
	case r.Ended != "":
		stopped := ""
		if r.Stopped != "" {
			stopped = ": " + shown(r.Stopped)
		}
		line("Rebalance", "ended %s: %s and %s moved, %d failed%s", r.Ended, count(r.Moved, "segment"), byteSize(r.Bytes), r.Failed, stopped)
	}
	b.WriteString(healLists(j))
	return b.String()
}

// healLists are tables of what drains, what is stuck and what is lost.
func healLists(j jsonHeal) string {
	var b strings.Builder
	if len(j.Draining) > 0 {
		b.WriteString("\n")
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "DRAINING\tNAME\tLEFT\tNOTES")
		for _, d := range j.Draining {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Kind, shown(d.Name), d.left(), shown(d.Blocked))
		}
		w.Flush()
	}
	for _, t := range j.Stuck {
		fmt.Fprintf(&b, "Stuck: %s: %s\n", shown(t.What), shown(t.Why))
	}
	for _, l := range j.Lost {
		fmt.Fprintf(&b, "Unrecoverable: %s/%s, segment %s: %s\n", shown(l.Bucket), shown(l.Key), l.Segment, shown(l.Why))
	}
	if more := j.Unrecoverable - int64(len(j.Lost)); more > 0 && len(j.Lost) > 0 {
		fmt.Fprintf(&b, "Unrecoverable: %d more\n", more)
	}
	return b.String()
}

// left is what is still on what drains.
func (d *jsonDrain) left() string {
	switch {
	case d.Done:
		return "nothing"
	case d.LeftSegments == nil:
		return "not counted yet"
	}
	text := count(*d.LeftSegments, "segment")
	if d.LeftBytes != nil {
		text += ", " + byteSize(*d.LeftBytes).String()
	}
	return text + etaText(d.ETA)
}

// count is a number of things.
func count(n int64, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "y"):
		what = strings.TrimSuffix(what, "y") + "ies"
	default:
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
