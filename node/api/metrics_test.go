package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// watchedSample fills in something of every subsystem.
func watchedSample(node string) *observability.Resources {
	g := observability.Gauge{Current: 1, Average: 2, Maximum: 3, AverageHour: 4, MaximumHour: 5}
	return &observability.Resources{
		Node: node, Up: true, SampledAtUnixNano: 1e9,
		Drives:   []observability.Drive{{ID: "d1", State: "online", Errors: 1, Timeouts: 2}},
		Networks: []observability.Network{{Interface: "eth0", ReceivedBytes: g}},
		Mesh:     []observability.MeshTraffic{{Via: observability.ViaBulk, ReceivedBytes: g, SentBytes: g}},
		CPU:      observability.CPU{Cores: 1, BusyRatio: g},
		Cores:    []observability.Core{{Core: 7, BusyRatio: g}},
		Memory:   observability.Memory{Used: g},
		Peers:    []observability.Peer{{Node: "b", Up: true, RTTSeconds: 0.5, ReceivedBytesPerSecond: 1, SentBytesPerSecond: 2, ReceivedMessagesPerSecond: 3, SentMessagesPerSecond: 4, QueuedBytes: 5, CallsOut: 6, CallsIn: 7, Sessions: 8}},
		APIs:     []observability.APICalls{{Name: "GetObject", Proto: "http", RequestsPerSecond: 1, ClientErrorsPerSecond: 2, ServerErrorsPerSecond: 3, TTFBP50Seconds: 4, TTFBP99Seconds: 5}},
	}
}

// watchLines reads a JSON stream's lines, each into a message.
func watchLines(t *testing.T, body io.Reader, n int) (all []*pb.WatchMetricsResponse) {
	t.Helper()
	lines := bufio.NewScanner(body)
	for range n {
		if !lines.Scan() {
			t.Fatalf("the stream ended after %d lines: %v", len(all), lines.Err())
		}
		var line struct{ Result json.RawMessage }
		m := new(pb.WatchMetricsResponse)
		if err := errors.Join(json.Unmarshal(lines.Bytes(), &line), protojson.Unmarshal(line.Result, m)); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		all = append(all, m)
	}
	return all
}

// TestWatchBothWays: a sample is the same over gRPC and as a line of JSON, which
// comes when the sample does.
func TestWatchBothWays(t *testing.T) {
	s := serve(t, nil)
	s.mesh.watched = make(chan observability.Watched)
	stream, err := pb.NewMetricsServiceClient(s.conn).WatchMetrics(t.Context(), &pb.WatchMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	s.mesh.watched <- observability.Watched{Resources: watchedSample("a"), Missed: 3}
	overGRPC, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if overGRPC.GetMissed() != 3 || overGRPC.GetNode().GetCpu().GetPerCore()[0].GetBusyRatio().GetMaximum_1H() != 5 || !overGRPC.GetNode().GetDrives()[0].GetHealthy() {
		t.Errorf("over gRPC: %v", overGRPC)
	}
	close(s.mesh.watched) // the end of that one
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}

	s.mesh.watched = make(chan observability.Watched, 1)
	s.mesh.watched <- observability.Watched{Resources: watchedSample("a"), Missed: 3}
	resp := must(s.http.Client().Get(s.http.URL + "/v1/metrics/watch"))
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	overHTTP := watchLines(t, resp.Body, 1)[0]
	if !proto.Equal(overGRPC, overHTTP) {
		t.Errorf("over gRPC %v\nover HTTP %v", overGRPC, overHTTP)
	}
	for _, node := range []string{"b", "c"} { // one by one: the line is there before the next sample
		s.mesh.watched <- observability.Watched{Resources: &observability.Resources{Node: node}}
		if got := watchLines(t, resp.Body, 1)[0]; got.GetNode().GetNode() != node || got.GetNode().GetState() != pb.NodeState_NODE_STATE_DOWN {
			t.Errorf("%v, want %s down", got, node)
		}
	}
}

// TestWatchSubsystems: what wasn't asked for isn't sent.
func TestWatchSubsystems(t *testing.T) {
	for _, only := range []string{"drive", "network", "cpu", "memory", "api", "peer"} {
		n := protoResources(watchedSample("a"), []string{only})
		var has []string
		for name, there := range map[string]bool{
			"drive": n.Drives != nil, "network": n.Networks != nil, "cpu": n.Cpu != nil, "memory": n.Memory != nil, "api": n.Apis != nil, "peer": n.Peers != nil,
		} {
			if there {
				has = append(has, name)
			}
		}
		if !slices.Equal(has, []string{only}) || (n.Mesh != nil) != (only == "network") {
			t.Errorf("%s: got %v, mesh %v", only, has, n.Mesh)
		}
	}
}

// TestWatchRefused: an error before the first sample is the answer, as with any
// other call; there is no HEAD of what has no end.
func TestWatchRefused(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ query, subject string }{
		{"?node=x", "node"}, {"?subsystem=gpu", "subsystem"}, {"?interval=1", "interval"},
	} {
		resp, body := s.call(t, "GET", "/v1/metrics/watch"+c.query, "")
		checkProblem(t, c.query, resp, body, fault.InvalidArgument, c.subject)
	}
	resp, _ := s.call(t, "HEAD", "/v1/metrics/watch", "")
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %s, allowed %q", resp.Status, resp.Header.Get("Allow"))
	}
	open := must(s.open.Client().Get(s.open.URL + "/v1/metrics/watch"))
	body, _ := io.ReadAll(open.Body)
	open.Body.Close()
	checkProblem(t, "no principal", open, string(body), fault.Unauthenticated, "")
}

// TestWatchEnds with the node's stop, and with its user, saying so in the last
// line.
func TestWatchEnds(t *testing.T) {
	for name, end := range map[string]struct {
		by     func(s *served)
		reason string
	}{
		"stop": {func(s *served) { s.api.EndWatches() }, "unavailable"},
		"revoke": {func(s *served) {
			if err := s.keeper.DeleteUser(t.Context(), "watcher", 0); err != nil {
				t.Error(err)
			}
		}, "unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nil)
			s.mesh.watched = make(chan observability.Watched, 1)
			s.mesh.watched <- observability.Watched{Resources: watchedSample("a")}
			r := must(http.NewRequest("GET", s.http.URL+"/v1/metrics/watch", nil))
			r.Header.Set(asHeader, "Bearer "+s.keeper.user(t, "watcher", "metrics"))
			resp := must(s.http.Client().Do(r))
			defer resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Fatalf("%s", resp.Status)
			}
			watchLines(t, resp.Body, 1)
			end.by(s)
			last, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(last), `"error"`) || !strings.Contains(string(last), `"`+end.reason+`"`) {
				t.Errorf("the last line: %s, %v; want an error of reason %s", last, err, end.reason)
			}
		})
	}
}

// TestWatchLeft: when its client leaves, the handler ends.
func TestWatchLeft(t *testing.T) {
	s := serve(t, nil)
	s.mesh.watched = make(chan observability.Watched, 1)
	s.mesh.watched <- observability.Watched{Resources: watchedSample("a")}
	resp := must(s.http.Client().Get(s.http.URL + "/v1/metrics/watch"))
	watchLines(t, resp.Body, 1)
	resp.Body.Close()
	s.http.Close() // waits for the request's handler; goleak finds that of the stream
}

// TestDiagnoseBothWays: what failed has no figure, and is not mistaken for 0.
func TestDiagnoseBothWays(t *testing.T) {
	s := serve(t, nil)
	s.mesh.diagnosis = &Diagnosis{Node: "a", Nodes: []NodeDiagnosis{
		{Node: "a", Up: true, Version: "1.2", NotReady: "why not",
			Drives:       []DriveProbe{{ID: "d1", Path: "/mnt/1", State: "online", Took: 5 * time.Millisecond}, {ID: "d2", State: "offline", Error: "gone"}},
			Peers:        []PeerProbe{{Node: "b", RTT: time.Millisecond, ClockOffset: -2 * time.Second}, {Node: "c", Error: "silent"}},
			Certificates: []CertificateInfo{{Listener: "grpc", Fingerprint: "f", NotAfter: time.Unix(2e9, 0)}}},
		{Node: "b", Error: "no route"},
	}}
	overGRPC := must(pb.NewMetricsServiceClient(s.conn).Diagnose(t.Context(), &pb.DiagnoseRequest{}))
	a := overGRPC.GetNodes()[0]
	if d := a.GetDrives(); d[0].GetSeconds() != 0.005 || d[1].Seconds != nil || d[1].GetState() != pb.DriveState_DRIVE_STATE_OFFLINE {
		t.Errorf("drives %v", d)
	}
	if p := a.GetPeers(); p[0].GetRttSeconds() != 0.001 || p[0].GetClockOffsetSeconds() != -2 || p[1].RttSeconds != nil || p[1].ClockOffsetSeconds != nil {
		t.Errorf("peers %v", p)
	}
	if b := overGRPC.GetNodes()[1]; b.GetState() != pb.NodeState_NODE_STATE_DOWN || b.GetError() != "no route" {
		t.Errorf("b: %v", b)
	}
	resp, body := s.call(t, "POST", "/v1/metrics:diagnose", "{}")
	overHTTP := new(pb.DiagnoseResponse)
	if err := protojson.Unmarshal([]byte(body), overHTTP); err != nil || resp.StatusCode != 200 || !proto.Equal(overGRPC, overHTTP) {
		t.Errorf("%s, %v: %s", resp.Status, err, body)
	}
}
