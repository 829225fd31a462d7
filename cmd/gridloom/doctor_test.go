package main

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// wellMesh is what three nodes find that have nothing to complain about.
func wellMesh() *gridloomv1.DiagnoseResponse {
	r := &gridloomv1.DiagnoseResponse{Node: "a"}
	for _, name := range []string{"a", "b", "c"} {
		n := &gridloomv1.NodeDiagnosis{Node: name, State: gridloomv1.NodeState_NODE_STATE_UP, Version: "v1",
			Drives: []*gridloomv1.DriveProbe{{Id: "drive-" + name, Path: "/mnt/" + name, State: gridloomv1.DriveState_DRIVE_STATE_ONLINE, Seconds: proto.Float64(0.02)}},
			Certificates: []*gridloomv1.Certificate{{Listener: "grpc", Issuer: "CN=ca",
				NotBefore: timestamppb.New(doctorNow.Add(-time.Hour)), NotAfter: timestamppb.New(doctorNow.Add(30 * 24 * time.Hour))}},
		}
		for _, peer := range []string{"a", "b", "c"} {
			if peer != name {
				n.Peers = append(n.Peers, &gridloomv1.PeerProbe{Node: peer, RttSeconds: proto.Float64(0.0005), ClockOffsetSeconds: proto.Float64(0.001)})
			}
		}
		r.Nodes = append(r.Nodes, n)
	}
	return r
}

var doctorNow = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// TestFindings breaks one thing at a time: each is found, with its severity, and
// nothing else is.
func TestFindings(t *testing.T) {
	const (
		offline  = gridloomv1.DriveState_DRIVE_STATE_OFFLINE
		suspect  = gridloomv1.DriveState_DRIVE_STATE_SUSPECT
		degraded = gridloomv1.DriveState_DRIVE_STATE_DEGRADED
		readOnly = gridloomv1.DriveState_DRIVE_STATE_READ_ONLY
	)
	type mesh = gridloomv1.DiagnoseResponse
	drive := func(state gridloomv1.DriveState, seconds float64, err string) func(*mesh) {
		return func(r *mesh) {
			d := r.Nodes[1].Drives[0]
			d.Error, d.Seconds = err, nil
			if state != 0 {
				d.State = state
			}
			if seconds > 0 {
				d.Seconds = proto.Float64(seconds)
			}
		}
	}
	expires := func(left time.Duration) func(*mesh) {
		return func(r *mesh) { r.Nodes[2].Certificates[0].NotAfter = timestamppb.New(doctorNow.Add(left)) }
	}
	clock := func(ahead float64) func(*mesh) {
		return func(r *mesh) { r.Nodes[2].ClockOffsetSeconds = proto.Float64(ahead) }
	}
	trip := func(seconds float64) func(*mesh) {
		return func(r *mesh) { r.Nodes[1].Peers[1].RttSeconds = proto.Float64(seconds) }
	}
	for name, c := range map[string]struct {
		spoil func(*mesh)
		want  string // severity check node subject; message
	}{
		"well":      {func(*mesh) {}, ""},
		"down":      {func(r *mesh) { downNode(r, 1) }, "critical node b ; node b does not answer: no route"},
		"not ready": {func(r *mesh) { r.Nodes[1].NotReady = "no index" }, "critical node b ; node b can't do its work: no index"},
		"full index": {func(r *mesh) { r.Nodes[1].IndexFull, r.Nodes[1].IndexFree = true, 100<<20 },
			"critical index b ; the index of node b has 100 MiB of its disk left: where it leads, only what deletes is taken"},
		"clock":          {clock(1.5), "warning clock c ; node c's clock is 1.5s ahead of the others"},
		"clock behind":   {clock(-12), "critical clock c ; node c's clock is 12s behind the others"},
		"clock a bit":    {clock(0.5), ""},
		"slow drive":     {drive(0, 0.15, ""), "warning drive b drive-b; node b's drive /mnt/b took 150ms to write, sync and read 4 KiB"},
		"very slow":      {drive(0, 1.5, ""), "critical drive b drive-b; node b's drive /mnt/b took 1.5s to write, sync and read 4 KiB"},
		"bad drive":      {drive(0, 0, "input/output error"), "critical drive b drive-b; node b's drive /mnt/b failed a write, sync and read: input/output error"},
		"offline":        {drive(offline, 0, "gone"), "critical drive b drive-b; node b's drive /mnt/b is offline: gone"},
		"suspect":        {drive(suspect, 0, ""), "critical drive b drive-b; node b's drive /mnt/b is suspect"},
		"read-only":      {drive(readOnly, 0, ""), "warning drive b drive-b; node b's drive /mnt/b takes no more payload: it is full, or mounted read-only"},
		"degraded":       {drive(degraded, 0.01, ""), "warning drive b drive-b; node b's drive /mnt/b is degraded: it works, but slowly, and others come first"},
		"far":            {trip(0.06), "warning peer b c; a round trip from node b to node c takes 60ms"},
		"very far":       {trip(0.3), "critical peer b c; a round trip from node b to node c takes 300ms"},
		"one way":        {func(r *mesh) { p := r.Nodes[1].Peers[1]; p.RttSeconds, p.Error = nil, "disconnected" }, "critical peer b c; node b gets no answer from node c: disconnected"},
		"expired":        {expires(-time.Hour), "critical certificate c grpc; node c's certificate for grpc, of CN=ca, has expired at 2029-12-31T23:00:00Z"},
		"expires today":  {expires(5 * time.Hour), "critical certificate c grpc; node c's certificate for grpc, of CN=ca, expires in 5 h"},
		"expires soon":   {expires(50 * time.Hour), "warning certificate c grpc; node c's certificate for grpc, of CN=ca, expires at 2030-01-03T02:00:00Z"},
		"not valid yet":  {func(r *mesh) { r.Nodes[2].Certificates[0].NotBefore = timestamppb.New(doctorNow.Add(time.Hour)) }, "critical certificate c grpc; node c's certificate for grpc, of CN=ca, is not valid before 2030-01-01T01:00:00Z"},
		"versions":       {func(r *mesh) { r.Nodes[2].Version = "v2" }, "warning version  ; not all nodes run the same version: v1 on a, b; v2 on c"},
		"client's":       {func(r *mesh) { r.Nodes[0].Version, r.Nodes[1].Version, r.Nodes[2].Version = "v2", "v2", "v2" }, "info version a ; this program is version v1, node a is v2"},
		"no such thing":  {func(r *mesh) { r.Nodes[0].Peers = nil }, ""}, // then the clocks aren't known
		"nobody but one": {func(r *mesh) { r.Nodes = r.Nodes[:1]; r.Nodes[0].Peers = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := wellMesh()
			c.spoil(r)
			var got []string
			for _, f := range findings(doctorJSON(r), r, nil, "v1", doctorNow) {
				if f.Advice == "" {
					t.Errorf("no advice: %+v", f)
				}
				got = append(got, f.Severity+" "+f.Check+" "+f.Node+" "+f.Subject+"; "+f.Message)
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

// downNode has a node answer nobody.
func downNode(r *gridloomv1.DiagnoseResponse, i int) {
	name := r.Nodes[i].Node
	r.Nodes[i] = &gridloomv1.NodeDiagnosis{Node: name, State: gridloomv1.NodeState_NODE_STATE_DOWN, Error: "no route"}
	for _, n := range r.Nodes {
		for _, p := range n.Peers {
			if p.Node == name {
				p.RttSeconds, p.ClockOffsetSeconds, p.Error = nil, nil, "no route"
			}
		}
	}
}

// scriptGraded runs a command whose exit code may be one of gridloom doctor's:
// graded gridloom doctor.
func scriptGraded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: graded COMMAND...")
	}
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitWarning && exit.ExitCode() != exitCritical) {
		ts.Fatalf("got %v, want exit code 0, %d or %d", err, exitWarning, exitCritical)
	}
}

// TestWorstFirst, and the whole is as bad as that.
func TestWorstFirst(t *testing.T) {
	r := wellMesh()
	r.Nodes[2].Version = "v2"
	r.Nodes[1].Drives[0].Seconds = proto.Float64(0.2)
	r.Nodes[2].Drives[0].State = gridloomv1.DriveState_DRIVE_STATE_OFFLINE
	groups := []*gridloomv1.Group{{Name: "system", Leader: "a"}, {Name: "data-1"}}
	all := findings(doctorJSON(r), r, groups, "v9", doctorNow)
	var got []string
	for _, f := range all {
		got = append(got, f.Severity+" "+f.Check)
	}
	want := []string{"critical index", "critical drive", "warning drive", "warning version", "info version"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for n, want := range map[int]string{0: "critical", 2: "warning", 4: "info", 5: "ok"} {
		if got := worst(all[n:]); got != want {
			t.Errorf("the worst from %d on is %s, want %s", n, got, want)
		}
	}
	j := doctorJSON(r)
	j.Findings = all
	text := doctorText(j)
	for _, line := range []string{
		"Looked at 3 nodes (3 up), 3 drives, 6 links between nodes and 3 certificates, from a.",
		"CRITICAL  group data-1 of the index has no leader: it takes no writes",
		"          Bring a majority of its voters up: gridloom cluster status shows who they are.",
		"ROUND TRIP  a      b      c",
		"b           500µs  -      500µs",
		"b     /mnt/b  online   200ms",
	} {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("%q isn't a line of\n%s", line, text)
		}
	}
}
