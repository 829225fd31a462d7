package api

import (
	"slices"
	"testing"
	"time"
)

// meshOf describes a mesh whose nodes are named by letters, a capital being one
// that is down. The first voters of them are the voters of both groups, the
// others learners of the first.
func meshOf(nodes string, voters int, leader string) *ClusterInfo {
	c := &ClusterInfo{Node: "a", Groups: []GroupInfo{{Name: "system", Leader: leader}, {Name: "data-1", Leader: leader}}}
	for i, r := range nodes {
		n := NodeInfo{Name: string(r), Up: true}
		if r < 'a' {
			n = NodeInfo{Name: string(r + 'a' - 'A')}
		}
		c.Nodes = append(c.Nodes, n)
		role := RoleLearner
		if i < voters {
			role = RoleVoter
			c.Groups[1].Members = append(c.Groups[1].Members, MemberInfo{Node: n.Name, Role: role})
		}
		c.Groups[0].Members = append(c.Groups[0].Members, MemberInfo{Node: n.Name, Role: role})
	}
	return c
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		nodes  string
		voters int
		leader string
		want   []string
	}{
		{"a", 1, "a", nil},
		{"abc", 3, "b", nil},
		{"abcD", 3, "b", nil}, // a learner
		{"aBCde", 5, "a", []string{"2 of 5 voters down (b, c): the index survives no loss of another (a, d, e)"}},
		{"aBcde", 5, "a", nil}, // one more may go
		{"ab", 1, "a", []string{"2 nodes, 1 voter: the index survives no loss of node a"}},
		{"ab", 2, "a", []string{"2 nodes, 2 voters: the index survives no loss of one of these (a, b)"}},
		{"aBc", 3, "a", []string{"1 of 3 voters down (b): the index survives no loss of another (a, c)"}},
		{"aBC", 3, "", []string{
			"group system has no leader that node a knows of: it takes no writes",
			"2 of 3 voters down (b, c): the index takes no writes until 2 of them are up",
			"group data-1 has no leader that node a knows of: it takes no writes",
		}},
		{"Ab", 1, "a", []string{"node a, the only voter, is down: the index can't be reached"}},
	} {
		if got := Warnings(meshOf(c.nodes, c.voters, c.leader)); !slices.Equal(got, c.want) {
			t.Errorf("%s with %d voters led by %q:\n got %q\nwant %q", c.nodes, c.voters, c.leader, got, c.want)
		}
	}
}

func TestRoomWarnings(t *testing.T) {
	c := meshOf("abc", 3, "b")
	c.Nodes[0].IndexFull, c.Nodes[0].IndexFree = true, 100<<20
	c.Nodes[1].IndexFull = true
	want := []string{
		"the index of node a has 100 MiB of its disk left: it does not lead while others can",
		"the index of node b has 0 MiB of its disk left, and it leads: only what deletes is taken",
	}
	if got := Warnings(c); !slices.Equal(got, want) {
		t.Errorf(" got %q\nwant %q", got, want)
	}
}

// A node that is leaving and can't go yet is said why.
func TestWaitingWarnings(t *testing.T) {
	mesh := meshOf("abcD", 3, "a")
	mesh.Groups[0].Waits = "node d is to vote, and can't be reached"
	want := "the members of group system stay as they are for now: node d is to vote, and can't be reached"
	if got := Warnings(mesh); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
	mesh.Nodes[2].Leaving = true
	want = "the members of group system stay as they are for now (leaving: c): node d is to vote, and can't be reached"
	if got := Warnings(mesh); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClockWarnings(t *testing.T) {
	for _, c := range []struct {
		node   int
		offset time.Duration
		known  bool
		want   []string
	}{
		{1, 10 * time.Second, true, nil},
		{1, -10 * time.Second, true, nil},
		{1, time.Hour, false, nil},
		{1, 12300 * time.Millisecond, true, []string{"node b's clock is 12 s off and does not lead"}},
		{2, -12700 * time.Millisecond, true, []string{"node c's clock is 13 s off and does not lead"}},
		{0, time.Hour, true, []string{"node a's clock is 3600 s off, and it leads"}},
	} {
		mesh := meshOf("abc", 3, "a")
		mesh.Nodes[c.node].ClockOffset, mesh.Nodes[c.node].ClockKnown = c.offset, c.known
		if got := Warnings(mesh); !slices.Equal(got, c.want) {
			t.Errorf("node %d, %v, known %v:\n got %q\nwant %q", c.node, c.offset, c.known, got, c.want)
		}
	}
}

func TestCertificateWarnings(t *testing.T) {
	const day = 24 * time.Hour
	cert := func(listener, fingerprint string, left time.Duration) CertificateInfo {
		return CertificateInfo{Listener: listener, Fingerprint: fingerprint, Issuer: "x", Left: left}
	}
	c := meshOf("ab", 0, "a")
	c.Nodes[0].Certificates = []CertificateInfo{cert("grpc", "1", 7*day), cert("http", "2", 7*day-1), cert("peer", "3", -1)}
	c.Nodes[1].Certificates = []CertificateInfo{cert("grpc", "4", day+1), cert("http", "5", day-1), cert("peer", "4", day+1)}
	want := []string{
		"node a's certificate for http (issued by x) expires in 6 days",
		"node a's certificate for peer (issued by x) has expired",
		"node b's certificate for grpc, peer (issued by x) expires in 1 day",
		"node b's certificate for http (issued by x) expires within a day",
	}
	if got := Warnings(c); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}
