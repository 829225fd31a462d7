package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// TestMembership: each change reaches the mesh as it was asked for, over gRPC
// and as JSON.
func TestMembership(t *testing.T) {
	s := serve(t, nil)
	cluster := pb.NewClusterServiceClient(s.conn)
	ctx := t.Context()
	for _, c := range []struct {
		want string
		call func() error
		path string
		body string
	}{
		{"admit d at http://10.0.0.4:7402", func() error {
			_, err := cluster.JoinNode(ctx, &pb.JoinNodeRequest{Name: "d", PeerUrl: "http://10.0.0.4:7402"})
			return err
		}, "", `{"name":"d","peerUrl":"http://10.0.0.4:7402"}`},
		{"remove d, force false", func() error {
			_, err := cluster.LeaveNode(ctx, &pb.LeaveNodeRequest{Name: "d"})
			return err
		}, "/d:leave", ``},
		{"remove d, force true", func() error {
			_, err := cluster.LeaveNode(ctx, &pb.LeaveNodeRequest{Name: "d", Force: true})
			return err
		}, "/d:leave", `{"force":true}`},
		{"replace d, force false", func() error {
			_, err := cluster.ReplaceNode(ctx, &pb.ReplaceNodeRequest{Name: "d"})
			return err
		}, "/d:replace", `{}`},
		{"replace d, force true", func() error {
			_, err := cluster.ReplaceNode(ctx, &pb.ReplaceNodeRequest{Name: "d", Force: true})
			return err
		}, "/d:replace", `{"force":true}`},
		{"drain d, undo false, force true", func() error {
			_, err := cluster.DrainNode(ctx, &pb.DrainNodeRequest{Name: "d", Force: true})
			return err
		}, "/d:drain", `{"force":true}`},
		{"drain d, undo false, force false", func() error {
			_, err := cluster.DrainNode(ctx, &pb.DrainNodeRequest{Name: "d"})
			return err
		}, "/d:drain", `{"undo":false}`},
		{"drain d, undo true, force false", func() error {
			_, err := cluster.DrainNode(ctx, &pb.DrainNodeRequest{Name: "d", Undo: true})
			return err
		}, "/d:drain", `{"undo":true}`},
	} {
		s.mesh.changes, s.mesh.refuse = nil, nil
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.want, err)
		}
		resp, body := s.call(t, "POST", "/v1/cluster/nodes"+c.path, c.body)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", c.want, resp.Status, body)
			continue
		}
		checkJSON(t, body, `{}`)
		if !slices.Equal(s.mesh.changes, []string{c.want, c.want}) {
			t.Errorf("asked of the mesh: %q, want %q twice", s.mesh.changes, c.want)
		}
		s.mesh.refuse = fault.New(fault.Conflict, "node d", "is about to leave")
		checkStatus(t, c.want, c.call(), fault.Conflict, "node d")
		resp, body = s.call(t, "POST", "/v1/cluster/nodes"+c.path, c.body)
		checkProblem(t, c.want, resp, body, fault.Conflict, "node d")
	}
}

// TestMembershipRefuses: what can't be a node's name or address does not reach
// the mesh.
func TestMembershipRefuses(t *testing.T) {
	s := serve(t, nil)
	cluster := pb.NewClusterServiceClient(s.conn)
	ctx := t.Context()
	const url = "http://10.0.0.4:7402"
	for _, name := range []string{"", "-a", "a-", "-", "A", "a b", "a.b", "a_b", "ä", "a\x00", strings.Repeat("a", 64)} {
		_, err := cluster.JoinNode(ctx, &pb.JoinNodeRequest{Name: name, PeerUrl: url})
		checkStatus(t, "join "+name, err, fault.InvalidArgument, "name")
		_, err = cluster.LeaveNode(ctx, &pb.LeaveNodeRequest{Name: name})
		checkStatus(t, "leave "+name, err, fault.InvalidArgument, "name")
		_, err = cluster.ReplaceNode(ctx, &pb.ReplaceNodeRequest{Name: name})
		checkStatus(t, "replace "+name, err, fault.InvalidArgument, "name")
		_, err = cluster.DrainNode(ctx, &pb.DrainNodeRequest{Name: name})
		checkStatus(t, "drain "+name, err, fault.InvalidArgument, "name")
	}
	for _, u := range []string{
		"", "10.0.0.4:7402", "ftp://10.0.0.4", "http://", "http:///x", "http://:7402", "http://h/x", "http://h:port", "h", "//h",
		"http://user@h", "http://h?x", "http://h?", "http://h#x", "http://h\x7f", "http://" + strings.Repeat("h", peerURLMaxBytes),
	} {
		_, err := cluster.JoinNode(ctx, &pb.JoinNodeRequest{Name: "d", PeerUrl: u})
		checkStatus(t, "join at "+u, err, fault.InvalidArgument, "peer_url")
	}
	for _, c := range []struct{ path, body, subject string }{
		{"", ``, "name"},
		{"", `{"name":"d"}`, "peer_url"},
		{"", `{"name":"d","url":"http://h"}`, "body"},
		{"/d:leave", `{"force":"yes"}`, "body"},
		{"/d:leave?force=true", ``, "force"},
		{"/D:drain", ``, "name"},
	} {
		resp, body := s.call(t, "POST", "/v1/cluster/nodes"+c.path, c.body)
		checkProblem(t, c.path+" "+c.body, resp, body, fault.InvalidArgument, c.subject)
	}
	if len(s.mesh.changes) > 0 {
		t.Errorf("reached the mesh: %q", s.mesh.changes)
	}
	for _, name := range []string{"a", "0", "a-b", "a--b", strings.Repeat("a", 63)} {
		for _, u := range []string{"http://h", "https://h/", "http://[::1]:7402", "https://a.example:7402"} {
			if _, err := cluster.JoinNode(ctx, &pb.JoinNodeRequest{Name: name, PeerUrl: u}); err != nil {
				t.Errorf("%s at %s: %v", name, u, err)
			}
		}
	}
}
