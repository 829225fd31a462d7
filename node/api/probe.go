package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// Diagnosis is what the nodes found when they were asked to look.
type Diagnosis struct {
	Node  string          // the one that answers
	Nodes []NodeDiagnosis // in the order of their names
}

// NodeDiagnosis is what one node found.
type NodeDiagnosis struct {
	Node         string
	Up           bool
	Error        string // why it is down
	Version      string
	NotReady     string        // why it can't do its work
	IndexFull    bool          // the index's disk has no room for what grows
	IndexFree    int64         // bytes that it has then
	ClockOffset  time.Duration // by how much its clock is ahead of the median of all, if ClockKnown
	ClockKnown   bool
	Drives       []DriveProbe
	Peers        []PeerProbe // every other node
	Certificates []CertificateInfo
}

// DriveProbe is what came of writing to a drive and reading it back.
type DriveProbe struct {
	ID, Path, State string
	Took            time.Duration // 0: it failed, or was not tried
	Error           string        // why it failed, or the node can't use the drive
}

// PeerProbe is what came of asking another node for the time.
type PeerProbe struct {
	Node        string
	RTT         time.Duration
	ClockOffset time.Duration // the other clock minus this one
	Error       string        // why there is no answer; the above are 0 then
}

func (s *metricsService) Diagnose(ctx context.Context, _ *pb.DiagnoseRequest) (*pb.DiagnoseResponse, error) {
	d, err := s.resources.Diagnose(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.DiagnoseResponse{Node: d.Node, Nodes: make([]*pb.NodeDiagnosis, len(d.Nodes))}
	for i := range d.Nodes {
		resp.Nodes[i] = protoDiagnosis(&d.Nodes[i])
	}
	return resp, nil
}

func protoDiagnosis(n *NodeDiagnosis) *pb.NodeDiagnosis {
	out := &pb.NodeDiagnosis{
		Node: n.Node, State: nodeState(n.Up), Error: n.Error, Version: n.Version, NotReady: n.NotReady,
		IndexFull: n.IndexFull,
	}
	if n.IndexFull {
		out.IndexFree = n.IndexFree
	}
	if n.ClockKnown {
		out.ClockOffsetSeconds = proto.Float64(n.ClockOffset.Seconds())
	}
	for i := range n.Drives {
		d := &n.Drives[i]
		probe := &pb.DriveProbe{Id: d.ID, Path: d.Path, State: driveState(d.State), Error: d.Error}
		if d.Took > 0 {
			probe.Seconds = proto.Float64(d.Took.Seconds())
		}
		out.Drives = append(out.Drives, probe)
	}
	for i := range n.Peers {
		p := &n.Peers[i]
		probe := &pb.PeerProbe{Node: p.Node, Error: p.Error}
		if p.Error == "" {
			probe.RttSeconds, probe.ClockOffsetSeconds = proto.Float64(p.RTT.Seconds()), proto.Float64(p.ClockOffset.Seconds())
		}
		out.Peers = append(out.Peers, probe)
	}
	for i := range n.Certificates {
		out.Certificates = append(out.Certificates, protoCertificate(&n.Certificates[i]))
	}
	return out
}
