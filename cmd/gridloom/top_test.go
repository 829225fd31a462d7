package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func gauge(v float64) *gridloomv1.Gauge { return &gridloomv1.Gauge{Current: v} }

// sampledNodes are two that work, and one that is down.
func sampledNodes() []*gridloomv1.NodeResources {
	node := func(name string, busy, rtt, p99 float64) *gridloomv1.NodeResources {
		return &gridloomv1.NodeResources{
			Node: name, State: gridloomv1.NodeState_NODE_STATE_UP, SampledAt: timestamppb.New(time.Unix(100, 0)),
			Cpu:      &gridloomv1.CpuResources{Cores: 2, BusyRatio: gauge(busy), Load1: gauge(1.5)},
			Memory:   &gridloomv1.MemoryResources{Total: gauge(8 << 30), Used: gauge(2 << 30), ProcessResident: gauge(64 << 20)},
			Networks: []*gridloomv1.NetworkResources{{Interface: "eth0", ReceivedBytes: gauge(1000)}, {Interface: "eth1", ReceivedBytes: gauge(24)}, {Interface: "lo", ReceivedBytes: gauge(1e9)}},
			Mesh:     []*gridloomv1.MeshTraffic{{Via: "bulk", SentBytes: gauge(3 << 20)}, {Via: "grid", ReceivedBytes: gauge(512)}},
			Drives: []*gridloomv1.DriveResources{
				{Id: name + "-1", Path: "/mnt/1", State: gridloomv1.DriveState_DRIVE_STATE_ONLINE, Healthy: true, Device: "sda", UsedBytes: 30, FreeBytes: 70, UtilizationRatio: busy, AwaitSeconds: 0.0125},
				{Id: name + "-2", Path: "/mnt/2", State: gridloomv1.DriveState_DRIVE_STATE_OFFLINE, Timeouts: 7},
			},
			Apis:  []*gridloomv1.ApiResources{{Api: "GetObject", Proto: "http", RequestsPerSecond: 1234.5, TtfbP50Seconds: 0.000250, TtfbP99Seconds: p99}},
			Peers: []*gridloomv1.PeerResources{{Node: "other", Up: true, RttSeconds: rtt, QueuedBytes: 2048, Sessions: 3}},
		}
	}
	return []*gridloomv1.NodeResources{
		node("a", 0.25, 0.001, 0.01), node("b", 0.75, 0.003, 0.002),
		{Node: "c", State: gridloomv1.NodeState_NODE_STATE_DOWN, Error: "no route"},
	}
}

func TestTopTables(t *testing.T) {
	o := &topOptions{views: topViews}
	text := topText(topOf(time.Unix(0, 0), sampledNodes(), o), o)
	var got []string
	for line := range strings.Lines(text) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"NODE STATE CPU IOWAIT LOAD MEM RSS NET-IN/S NET-OUT/S GRID-IN/S GRID-OUT/S BULK-IN/S BULK-OUT/S REQ/S DRIVES",
		"a up 25% 0% 1.5 25% 64 MiB 1 KiB 0 512 0 0 3 MiB 1234 1/2",
		"b up 75% 0% 1.5 25% 64 MiB 1 KiB 0 512 0 0 3 MiB 1234 1/2",
		"c down - - - - - - - - - - - - no route",
		"",
		"NODE PATH STATE USED FREE READ/S WRITE/S IN/S OUT/S AWAIT UTIL ERRORS TIMEOUTS DRIVE",
		"a /mnt/1 online 30% 70 0 0 0 0 12.5ms 25% 0 0 a-1",
		"a /mnt/2 offline 0% 0 - - - - - - 0 7 a-2",
		"b /mnt/1 online 30% 70 0 0 0 0 12.5ms 75% 0 0 b-1",
		"b /mnt/2 offline 0% 0 - - - - - - 0 7 b-2",
		"",
		"API PROTO NODE REQ/S 4XX/S 5XX/S P50 P99",
		"GetObject http a 1234 0 0 250µs 10ms",
		"GetObject http b 1234 0 0 250µs 2ms",
		"",
		"NODE PEER STATE RTT IN/S OUT/S MSG-IN/S MSG-OUT/S QUEUED CALLS-OUT CALLS-IN SESSIONS",
		"a other up 1ms 0 0 0 0 2 KiB 0 0 3",
		"b other up 3ms 0 0 0 0 2 KiB 0 0 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// scriptSampled waits until the nodes' samples have all drives, all peers, and
// requests of an API: sampled CreateBucket.
func scriptSampled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sampled API")
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 300 {
		ts.Check(ts.Exec("gridloom", "top", "--once", "--json"))
		var j jsonTop
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &j))
		peers := 0
		for _, p := range j.Peers {
			if p.Up {
				peers++
			}
		}
		if len(j.Drives) == 6 && peers == 6 && slices.ContainsFunc(j.APIs, func(a jsonTopAPI) bool { return a.API == args[0] }) {
			return
		}
		<-tick.C
	}
	ts.Fatalf("not within a minute")
}

// TestTopSorts numbers from the largest, words from A, and either the other way
// around.
func TestTopSorts(t *testing.T) {
	for _, c := range []struct {
		sort    string
		reverse bool
		view    string
		want    string // nodes in their order
	}{
		{"", false, "nodes", "abc"}, {"", true, "nodes", "cba"},
		{"cpu", false, "nodes", "bac"}, {"CPU", true, "nodes", "cab"},
		{"p99", false, "apis", "ab"}, {"p99", true, "apis", "ba"},
		{"rtt", false, "peers", "ba"}, {"util", false, "drives", "baab"},
	} {
		o := &topOptions{views: []string{c.view}, sort: c.sort, reverse: c.reverse, interval: time.Second}
		if err := o.validate(); err != nil {
			t.Error(err)
		}
		j := topOf(time.Unix(0, 0), sampledNodes(), o)
		got := ""
		for _, n := range j.Nodes {
			got += n.Node
		}
		for _, d := range j.Drives {
			got += d.Node
		}
		for _, a := range j.APIs {
			got += a.Node
		}
		for _, p := range j.Peers {
			got += p.Node
		}
		if got != c.want {
			t.Errorf("%s by %q, reverse %v: %s, want %s", c.view, c.sort, c.reverse, got, c.want)
		}
	}
}

// TestTopKeys presses them.
func TestTopKeys(t *testing.T) {
	o := &topOptions{views: topViews, interval: time.Second}
	for _, step := range []struct {
		key           byte
		views         int
		first, sort   string
		reverse, quit bool
	}{
		{'a', 1, "apis", "", false, false},
		{'>', 1, "apis", "api", false, false},
		{'>', 1, "apis", "proto", false, false},
		{'<', 1, "apis", "api", false, false},
		{'<', 1, "apis", "p99", false, false},
		{'>', 1, "apis", "api", false, false},
		{'r', 1, "apis", "api", true, false},
		{'x', 1, "apis", "api", true, false},
		{'d', 1, "drives", "api", true, false},
		{'d', 4, "nodes", "api", true, false},
		{'q', 4, "nodes", "api", true, true},
		{3, 4, "nodes", "api", true, true},
	} {
		quit := o.press(step.key)
		if quit != step.quit || len(o.views) != step.views || o.views[0] != step.first || o.sort != step.sort || o.reverse != step.reverse {
			t.Fatalf("after %q: %+v, quit %v; want %+v", step.key, o, quit, step)
		}
	}
}

// TestTopFrame: what there is no room for is cut off, and nothing of the last
// frame is left.
func TestTopFrame(t *testing.T) {
	got := string(frame("0123456789\nµµµµµµ\nthird\nfourth\n", 5, 3))
	if want := "\x1b[H01234\x1b[K\r\nµµµµµ\x1b[K\r\nthird\x1b[K\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTopForgets a node that nobody tells of any more, but not while there is no
// word of any.
func TestTopForgets(t *testing.T) {
	s := topState{nodes: map[string]*gridloomv1.NodeResources{}, heard: map[string]time.Time{}}
	now := time.Unix(1000, 0)
	for _, n := range sampledNodes() {
		s.apply(topEvent{sample: &gridloomv1.WatchMetricsResponse{Node: n, Missed: 2}}, now)
	}
	if n := s.sorted(now); len(n) != 3 || n[0].GetNode() != "a" || s.missed != 6 {
		t.Errorf("%d nodes, %d missed", len(n), s.missed)
	}
	now = now.Add(staleAfter + time.Second)
	s.apply(topEvent{err: errInterrupted}, now)
	if n := s.sorted(now); len(n) != 3 {
		t.Errorf("%d nodes while nothing comes", len(n))
	}
	s.apply(topEvent{sample: &gridloomv1.WatchMetricsResponse{Node: sampledNodes()[1]}}, now)
	if n := s.sorted(now); len(n) != 1 || n[0].GetNode() != "b" {
		t.Errorf("%v are left", n)
	}
}

func TestTimeOf(t *testing.T) {
	for s, want := range map[float64]string{0: "-", 0.0000005: "500ns", 0.000012345: "12.3µs", 0.000250: "250µs", 0.0123: "12.3ms", 0.250: "250ms", 2.5: "2.5s", 250: "4m10s", 5000: "1h23m20s"} {
		if got := timeOf(s); got != want {
			t.Errorf("%g s is %s, want %s", s, got, want)
		}
	}
}
