package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// teller is a node that tells of a mesh what it is given, and remembers what it
// is asked.
type teller struct {
	gridloomv1.UnimplementedClusterServiceServer
	gridloomv1.UnimplementedBucketServiceServer
	gridloomv1.UnimplementedObjectServiceServer
	cluster *gridloomv1.GetClusterResponse
	refuse  error
	asked   []string
}

// listen serves the teller and returns the variables for a client of it.
func (n *teller) listen(t *testing.T) []string {
	t.Helper()
	s := grpc.NewServer()
	gridloomv1.RegisterClusterServiceServer(s, n)
	gridloomv1.RegisterBucketServiceServer(s, n)
	gridloomv1.RegisterObjectServiceServer(s, n)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return []string{"GRIDLOOM_ENDPOINT=" + ln.Addr().String(), "GRIDLOOM_KEY=" + testKey}
}

// heard remembers a call. Calls of one client come one after the other.
func (n *teller) heard(format string, args ...any) error {
	n.asked = append(n.asked, fmt.Sprintf(format, args...))
	return n.refuse
}

func (n *teller) GetCluster(context.Context, *gridloomv1.GetClusterRequest) (*gridloomv1.GetClusterResponse, error) {
	return n.cluster, n.refuse
}

func (n *teller) JoinNode(_ context.Context, r *gridloomv1.JoinNodeRequest) (*gridloomv1.JoinNodeResponse, error) {
	return &gridloomv1.JoinNodeResponse{}, n.heard("join %s at %s", r.GetName(), r.GetPeerUrl())
}

func (n *teller) LeaveNode(_ context.Context, r *gridloomv1.LeaveNodeRequest) (*gridloomv1.LeaveNodeResponse, error) {
	return &gridloomv1.LeaveNodeResponse{}, n.heard("leave %s, force %v", r.GetName(), r.GetForce())
}

func (n *teller) ReplaceNode(_ context.Context, r *gridloomv1.ReplaceNodeRequest) (*gridloomv1.ReplaceNodeResponse, error) {
	return &gridloomv1.ReplaceNodeResponse{}, n.heard("replace %s, force %v", r.GetName(), r.GetForce())
}

func (n *teller) DrainNode(_ context.Context, r *gridloomv1.DrainNodeRequest) (*gridloomv1.DrainNodeResponse, error) {
	return &gridloomv1.DrainNodeResponse{}, n.heard("drain %s, undo %v, force %v", r.GetName(), r.GetUndo(), r.GetForce())
}

func (n *teller) GetBucket(_ context.Context, r *gridloomv1.GetBucketRequest) (*gridloomv1.GetBucketResponse, error) {
	return &gridloomv1.GetBucketResponse{}, n.heard("bucket %v", r.GetMaxAge().AsDuration())
}

func (n *teller) ListBuckets(_ context.Context, r *gridloomv1.ListBucketsRequest) (*gridloomv1.ListBucketsResponse, error) {
	next := ""
	if r.GetPageToken() == "" {
		next = "2" // each page is asked for alike
	}
	return &gridloomv1.ListBucketsResponse{NextPageToken: next}, n.heard("buckets %v", r.GetMaxAge().AsDuration())
}

func (n *teller) StatObject(_ context.Context, r *gridloomv1.StatObjectRequest) (*gridloomv1.StatObjectResponse, error) {
	return &gridloomv1.StatObjectResponse{}, n.heard("stat %v", r.GetMaxAge().AsDuration())
}

func (n *teller) ListObjects(_ context.Context, r *gridloomv1.ListObjectsRequest) (*gridloomv1.ListObjectsResponse, error) {
	return &gridloomv1.ListObjectsResponse{Objects: []*gridloomv1.Object{{Key: "p/k"}}}, n.heard("list %v", r.GetMaxAge().AsDuration())
}

func (n *teller) GetObject(r *gridloomv1.GetObjectRequest, s grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
	if err := n.heard("get %v", r.GetMaxAge().AsDuration()); err != nil {
		return err
	}
	return sendObject(s, "x", "x")
}

// TestNodeChanges: what is asked of the mesh, and what is said of it.
func TestNodeChanges(t *testing.T) {
	n := &teller{}
	env := n.listen(t)
	for _, c := range []struct{ args, asked, text, json string }{
		{"join d http://10.0.0.4:7402", "join d at http://10.0.0.4:7402", "d admitted: it joins when it runs",
			`{"type":"node","name":"d","peer_url":"http://10.0.0.4:7402","change":"join"}`},
		{"leave d", "leave d, force false", "d leaves", `{"type":"node","name":"d","change":"leave"}`},
		{"leave d --force", "leave d, force true", "d leaves", `{"type":"node","name":"d","change":"leave"}`},
		{"replace c", "replace c, force false", "c may come back empty", `{"type":"node","name":"c","change":"replace"}`},
		{"replace c --force", "replace c, force true", "c may come back empty", `{"type":"node","name":"c","change":"replace"}`},
		{"drain c", "drain c, undo false, force false", "c is being emptied", `{"type":"node","name":"c","change":"drain"}`},
		{"drain c --force", "drain c, undo false, force true", "c is being emptied", `{"type":"node","name":"c","change":"drain"}`},
		{"drain c --undo", "drain c, undo true, force false", "c takes part again", `{"type":"node","name":"c","change":"undrain"}`},
	} {
		args := append([]string{"node"}, strings.Fields(c.args)...)
		n.asked, n.refuse = nil, nil
		if r := try(t, env, "", args...); r.code != exitDone || r.out != c.text+"\n" || r.errOut != "" {
			t.Errorf("%s: %+v", c.args, r)
		}
		if r := try(t, env, "", append(args, "--json")...); r.code != exitDone || r.out != c.json+"\n" {
			t.Errorf("%s --json: %+v", c.args, r)
		}
		if !slices.Equal(n.asked, []string{c.asked, c.asked}) {
			t.Errorf("%s: asked %q, want %q twice", c.args, n.asked, c.asked)
		}
		n.refuse = status.Error(codes.FailedPrecondition, "node d: holds the only copy of 7 objects")
		verb, _, _ := strings.Cut(c.args, " ")
		want := "gridloom node " + verb + ": node d: holds the only copy of 7 objects\n"
		if r := try(t, env, "", args...); r.code != exitFailed || r.out != "" || r.errOut != want {
			t.Errorf("%s refused: %+v", c.args, r)
		}
	}
}

// TestStale: the age goes with every request of a command.
func TestStale(t *testing.T) {
	n := &teller{}
	env := n.listen(t)
	dir := t.TempDir()
	for args, asked := range map[string][]string{
		"ls":                        {"buckets"},
		"ls b":                      {"list"},
		"stat b":                    {"bucket"},
		"stat b/k":                  {"stat"},
		"get b/k " + dir + "/k":     {"get"},
		"get -r b/p " + dir + "/on": {"list", "get"},
	} {
		for flag, age := range map[string]time.Duration{"": 0, " --stale 0s": 0, " --stale 1m30s": 90 * time.Second, " --stale 1h": time.Hour} {
			var want []string
			for _, call := range asked {
				want = append(want, fmt.Sprint(call, " ", age))
				if call == "buckets" {
					want = append(want, want[0]) // the second page
				}
			}
			n.asked = nil
			r := try(t, env, "", strings.Fields(args+flag)...)
			if r.code != exitDone || !slices.Equal(n.asked, want) {
				t.Errorf("%s%s: asked %q, want %q; %+v", args, flag, n.asked, want, r)
			}
		}
	}
}

// troubled is a mesh with one of everything.
func troubled() *gridloomv1.GetClusterResponse {
	return &gridloomv1.GetClusterResponse{
		DeploymentId: "0d", Node: "a",
		Nodes: []*gridloomv1.Node{
			{
				Name: "a", PeerUrl: "http://h1:1", State: gridloomv1.NodeState_NODE_STATE_UP, Version: "v1", Index: true,
				ClockOffsetSeconds: proto.Float64(0.4), Pool: "p", Zone: "z",
				Drives: []*gridloomv1.Drive{{
					Node: "a", Pool: "p", Zone: "z", Draining: true, Reachable: true,
					Id: "1", Path: "/d", State: gridloomv1.DriveState_DRIVE_STATE_ONLINE, TotalBytes: 3 << 30, UsedBytes: 1 << 30, FreeBytes: 2 << 30,
				}, {
					Node: "a", Path: "/gone", State: gridloomv1.DriveState_DRIVE_STATE_OFFLINE, Error: "it is blank",
				}},
			},
			{
				Name: "b", PeerUrl: "http://h2:1", State: gridloomv1.NodeState_NODE_STATE_UP, Version: "v1",
				Draining: true, ClockOffsetSeconds: proto.Float64(-12.34), Pool: "q",
			},
			{
				Name: "c", PeerUrl: "http://h3:1", State: gridloomv1.NodeState_NODE_STATE_DOWN, Leaving: true, NotReady: "it burns\x1b[2J",
			},
		},
		Groups: []*gridloomv1.Group{
			{Name: "system", Leader: "a", Term: 7, CommitIndex: 120, AppliedIndex: 119, Members: []*gridloomv1.Member{
				{Node: "a", Role: gridloomv1.MemberRole_MEMBER_ROLE_VOTER, MatchIndex: proto.Uint64(120), Lag: proto.Uint64(0)},
				{Node: "b", Role: gridloomv1.MemberRole_MEMBER_ROLE_LEARNER, MatchIndex: proto.Uint64(20), Lag: proto.Uint64(100)},
				{Node: "c", Role: gridloomv1.MemberRole_MEMBER_ROLE_LEAVING},
			}},
			{Name: "data-1"},
		},
		Warnings: []string{"3 nodes, 1 voter: the index survives no loss of node a", "node b's clock is 12 s off and does not lead"},
	}
}

// trimmed is a text without the blanks that fill columns.
func trimmed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestClusterStatus(t *testing.T) {
	n := &teller{cluster: troubled()}
	env := n.listen(t)
	const text = `Deployment 0d, seen from a

NODE       STATE    POOL  ZONE  ADDRESS      USED   FREE   TOTAL  VERSION  NOTES
a (index)  up       p     z     http://h1:1  1 GiB  2 GiB  3 GiB  v1
  drive    online               /d           1 GiB  2 GiB  3 GiB           draining
  drive    offline              /gone        -      -      -               it is blank
b          up       q     -     http://h2:1                       v1       draining; clock 12.3 s behind
c          down     -     -     http://h3:1                                leaving; "it burns\x1b[2J"

GROUP   MEMBER  ROLE       TERM  COMMIT  APPLIED  MATCH  LAG
system          led by a   7     120     119
        a       voter                             120    0
        b       learner                           20     100
        c       leaving                           -      -
data-1          no leader  -     -       -

Warning: 3 nodes, 1 voter: the index survives no loss of node a
Warning: node b's clock is 12 s off and does not lead
`
	const json = `{"deployment_id":"0d","node":"a","nodes":[` +
		`{"name":"a","peer_url":"http://h1:1","state":"up","version":"v1","clock_offset_seconds":0.4,"pool":"p","zone":"z","index":true,"drives":[` +
		`{"id":"1","path":"/d","state":"online","total_bytes":3221225472,"used_bytes":1073741824,"free_bytes":2147483648,"node":"a","pool":"p","zone":"z","draining":true,"reachable":true},` +
		`{"id":"","path":"/gone","state":"offline","total_bytes":0,"used_bytes":0,"free_bytes":0,"node":"a","reachable":false,"error":"it is blank"}]},` +
		`{"name":"b","peer_url":"http://h2:1","state":"up","version":"v1","draining":true,"clock_offset_seconds":-12.34,"pool":"q","index":false,"drives":[]},` +
		`{"name":"c","peer_url":"http://h3:1","state":"down","leaving":true,"not_ready":"it burns\u001b[2J","index":false,"drives":[]}],` +
		`"groups":[{"name":"system","leader":"a","term":7,"commit_index":120,"applied_index":119,"members":[` +
		`{"node":"a","role":"voter","match_index":120,"lag":0},{"node":"b","role":"learner","match_index":20,"lag":100},{"node":"c","role":"leaving"}]},` +
		`{"name":"data-1","members":[]}],` +
		`"warnings":["3 nodes, 1 voter: the index survives no loss of node a","node b's clock is 12 s off and does not lead"]}` + "\n"
	for _, args := range []string{"cluster", "cluster status"} {
		if r := try(t, env, "", strings.Fields(args)...); r.code != exitDone || trimmed(r.out) != text {
			t.Errorf("%s: exit code %d %s\n%s", args, r.code, r.errOut, trimmed(r.out))
		}
		if r := try(t, env, "", strings.Fields(args+" --json")...); r.code != exitDone || r.out != json {
			t.Errorf("%s --json: exit code %d %s\n%s", args, r.code, r.errOut, r.out)
		}
	}
}

func TestNodeList(t *testing.T) {
	n := &teller{cluster: troubled()}
	env := n.listen(t)
	const text = `NODE       STATE  ADDRESS      VERSION  NOTES
a (index)  up     http://h1:1  v1
b          up     http://h2:1  v1       draining; clock 12.3 s behind
c          down   http://h3:1           leaving; "it burns\x1b[2J"
`
	if r := try(t, env, "", "node", "ls"); r.code != exitDone || trimmed(r.out) != text {
		t.Errorf("exit code %d %s\n%s", r.code, r.errOut, trimmed(r.out))
	}
	r := try(t, env, "", "node", "ls", "--json")
	if lines := strings.Count(r.out, "\n"); lines != 3 || strings.Count(r.out, `{"type":"node","name":"`) != 3 ||
		!strings.Contains(r.out, `{"type":"node","name":"b","peer_url":"http://h2:1","state":"up","version":"v1","draining":true,`) {
		t.Errorf("%d lines:\n%s", lines, r.out)
	}
}
