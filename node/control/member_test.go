package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// A mesh grows from one node, and counts majorities over the largest odd
// number of nodes.
func TestMeshGrowsFromOne(t *testing.T) {
	virtualOf(t, 1, 5, func(t *testing.T, m *mesh) {
		a := m.openAll()[0]
		id := m.sameMesh()
		b := createBucket(t, a, "b")
		for i := range 100 {
			mustPut(t, a, b, fmt.Sprint(i), "e")
		}
		want := []struct{ system, data string }{{"a, b", "a"}, {"a b c", "a b c"}, {"a b c, d", "a b c"}, {"a b c d e", "a b c d e"}}
		for i := 1; i < 5; i++ {
			if err := a.AdmitNode(t.Context(), nodeName(i), m.Name(i)); err != nil {
				t.Fatal(err)
			}
			c := m.open(i, nil)
			ready(t, c)
			m.settle(want[i-1].system, want[i-1].data)
			if m.sameMesh() != id {
				t.Fatal("another mesh")
			}
			mustPut(t, c, b, "by "+c.self, "e")
			read, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
			if err != nil || len(read.Records) != 100+i {
				t.Errorf("node %s has %d records, %v", c.self, len(read.Records), err)
			}
		}
		m.agree()
		if m.fetched.Load() == 0 {
			t.Error("no snapshot was fetched")
		}
		// All five count: two may be lost.
		m.isolate(0, 1)
		mustPut(t, m.node(4), b, "late", "e")
		m.rejoin(0, 1)
		m.agree()
	})
}

// Nodes leave one by one; what is left goes on.
func TestLeaving(t *testing.T) {
	virtual(t, 5, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		for i := range 20 {
			mustPut(t, m.node(i%5), b, fmt.Sprint(i), "e")
		}
		want := []struct{ system, data string }{4: {"", "a b c"}, 3: {"a b c", "a b c"}, 2: {"", "a"}, 1: {"a", "a"}}
		for i := 4; i > 0; i-- {
			gone := m.node(i)
			m.remove(m.node(0), gone.self)
			m.left(gone)
			m.stop(i)
			if want[i].system != "" {
				m.settle(want[i].system, want[i].data)
			}
			for _, c := range m.running() {
				mustPut(t, c, b, "after "+gone.self, "e")
				if c.Topology().Node(gone.self) != nil {
					t.Errorf("node %s still knows %s", c.self, gone.self)
				}
			}
			m.agree()
		}
		a, err := m.node(0).Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
		if err != nil || len(a.Records) != 24 {
			t.Errorf("%d records, %v", len(a.Records), err)
		}
		if err := m.node(0).RemoveNode(t.Context(), "a", true); fault.KindOf(err) != fault.Conflict {
			t.Errorf("the last node: %v", err)
		}
	})
}

// Whoever leads may leave, too, and a node that has left may come again if it
// is let in, blank.
func TestLeaderLeaves(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		for range 2 {
			leader := m.leader(systemGroup)
			m.remove(leader, leader.self)
			m.left(leader)
			m.stop(m.index(leader))
			mustPut(t, m.running()[0], b, "after "+leader.self, "e")
		}
		m.eventually("one of two votes", func() bool { return len(m.roles(systemGroup)) == len("a, b") })
		m.agree()
		if err := m.running()[0].RemoveNode(t.Context(), "nobody", false); fault.KindOf(err) != fault.NotFound {
			t.Errorf("removing a node that isn't there: %v", err)
		}
	})
}

// A node that isn't there may be removed as well.
func TestLostNodeIsRemoved(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		m.kill(2)
		if err := m.node(0).RemoveNode(t.Context(), "c", false); err != nil {
			t.Fatal(err)
		}
		// It comes back, and is told: it has no part in the mesh any more.
		c := m.open(2, nil)
		pause(30 * time.Second)
		if c.Ready() == nil {
			t.Error("a node that was removed is ready")
		}
		createBucket(t, m.node(1), "b")
	})
}

// A node with payload stays, unless its loss is wanted.
func TestPayloadKeepsANode(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		for i, c := range m.running() {
			join := &JoinNode{Node: c.self, URL: m.Name(i), Drives: []string{"drive-" + c.self}}
			if _, err := c.Propose(t.Context(), &Command{JoinNode: join}); err != nil {
				t.Fatal(err)
			}
		}
		b := createBucket(t, m.node(0), "b")
		segment := randomID()
		put := putOf(b, "k", "e")
		put.PutRecord.Record.Inline = nil
		put.PutRecord.Record.Segments = []Segment{{ID: segment, SizeBytes: 1, Drives: []string{"drive-gone", "drive-c"}}}
		carryOut(t, m.node(0), put)
		m.eventually("c's drives are known", func() bool { return len(m.node(0).Topology().Node("c").Drives) == 1 })
		if err := m.node(0).RemoveNode(t.Context(), "c", false); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "payload") {
			t.Errorf("with payload: %v", err)
		}
		if n := m.node(0).Topology().Node("c"); n == nil || n.Leaving {
			t.Errorf("the node that was to stay is %+v", n)
		}
		if err := m.node(0).RemoveNode(t.Context(), "b", false); err != nil {
			t.Errorf("without payload: %v", err)
		}
		m.settle("a, c", "a")
		recopy := func(e CopyChange) {
			e.ID = segment
			res := carryOut(t, m.node(0), &Command{Recopy: &Recopy{Birth: put.PutRecord.Birth, Entries: []CopyChange{e}}})
			if res.Fates[0] != FateDone {
				t.Fatalf("%+v came to %v", e, res.Fates)
			}
		}
		recopy(CopyChange{Add: []string{"drive-a"}})
		if lost, err := m.node(0).holdsLast(t.Context(), "c"); lost || err != nil {
			t.Errorf("with a copy elsewhere: %v, %v", lost, err)
		}
		recopy(CopyChange{Remove: []string{"drive-a"}})
		if err := m.node(0).RemoveNode(t.Context(), "c", true); err != nil {
			t.Errorf("forced: %v", err)
		}
		m.settle("a", "a")
	})
}

// A draining node leads nothing, and does again when that is undone and there
// is nobody else.
func TestDraining(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		leader := m.leader(systemGroup)
		if err := leader.DrainNode(t.Context(), leader.self, false); err != nil {
			t.Fatal(err)
		}
		for _, g := range []replica.GroupID{systemGroup, dataGroup} {
			m.eventually("another leads "+groupName(g), func() bool { return m.leader(g) != leader })
		}
		b := createBucket(t, leader, "b")
		mustPut(t, leader, b, "k", "e")
		if n := leader.Topology().Node(leader.self); !n.Draining {
			t.Errorf("%+v", n)
		}
		pause(time.Minute)
		for _, g := range []replica.GroupID{systemGroup, dataGroup} {
			if m.leader(g) == leader {
				t.Errorf("the draining node leads %s", groupName(g))
			}
		}
		if err := leader.DrainNode(t.Context(), leader.self, true); err != nil {
			t.Fatal(err)
		}
		m.eventually("it is told", func() bool { return !leader.Topology().Node(leader.self).Draining })
		if err := leader.DrainNode(t.Context(), "nobody", false); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a node that isn't there: %v", err)
		}
		m.settle("a b c", "a b c")
	})
}

// Names and addresses are one node's each.
func TestAdmitting(t *testing.T) {
	virtualOf(t, 1, 2, func(t *testing.T, m *mesh) {
		a := m.openAll()[0]
		for _, tc := range []struct {
			name, url string
			kind      fault.Kind
		}{
			{"a", m.Name(1), fault.AlreadyExists},
			{"b", m.Name(0), fault.Conflict},
			{"", m.Name(1), fault.InvalidArgument},
		} {
			if err := a.AdmitNode(t.Context(), tc.name, tc.url); fault.KindOf(err) != tc.kind {
				t.Errorf("%q at %s: %v", tc.name, tc.url, err)
			}
		}
		// One that was let in and hasn't come is in nobody's way.
		if err := a.AdmitNode(t.Context(), "b", m.Name(1)); err != nil {
			t.Fatal(err)
		}
		createBucket(t, a, "b")
		if err := a.RemoveNode(t.Context(), "b", false); err != nil {
			t.Errorf("removing a node that never came: %v", err)
		}
	})
}

// Nodes that come and go while others write: nothing is lost.
func TestMembersChangeUnderLoad(t *testing.T) {
	virtualOf(t, 3, 5, func(t *testing.T, m *mesh) {
		m.openAll()
		l := startLoad(t, m.node(0), m.node(1), m.node(2))
		for i := 3; i < 5; i++ {
			if err := m.node(0).AdmitNode(t.Context(), nodeName(i), m.Name(i)); err != nil {
				t.Fatal(err)
			}
			ready(t, m.open(i, nil))
		}
		m.settle("a b c d e", "a b c d e")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := 3; i < 5; i++ {
			if err := m.node(0).RemoveNode(ctx, nodeName(i), false); err != nil {
				t.Fatal(err)
			}
			m.stop(i)
		}
		m.settle("a b c", "a b c")
		l.check(m)
	})
}

// remove has a node leave, by way of a node that may be the same.
func (m *mesh) remove(by *Control, name string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	if err := by.RemoveNode(ctx, name, false); err != nil {
		m.t.Fatalf("removing %s: %v%s", name, err, m.describe())
	}
}

// left waits until a node knows that it has left.
func (m *mesh) left(c *Control) {
	m.t.Helper()
	m.eventually("node "+c.self+" knows that it has left", func() bool { return c.Err() != nil })
	if err := c.Err(); fault.KindOf(err) != fault.WrongMesh || !strings.Contains(err.Error(), "has left the mesh") {
		m.t.Errorf("node %s ended with %v", c.self, err)
	}
}

// Votes are spread over zones and pools, and stay where they are otherwise.
func TestVotersAreSpread(t *testing.T) {
	type node struct {
		pool, zone                string
		votes, absent, isDraining bool
		unsure                    bool // absent, but not for long
		leaves                    bool
	}
	for _, c := range []struct {
		name  string
		nodes []node // a, b, c, …
		want  string
	}{
		{"who votes goes on", []node{{}, {votes: true}, {votes: true}, {votes: true}}, "bcd"},
		{"three zones of five nodes", []node{{zone: "x", votes: true}, {zone: "x", votes: true}, {zone: "y", votes: true}, {zone: "y"}, {zone: "z"}}, "abcde"},
		{"three votes over three zones", []node{{zone: "x", votes: true}, {zone: "x", votes: true}, {zone: "y", votes: true}, {zone: "z"}}, "acd"},
		{"two pools", []node{{pool: "p", votes: true}, {pool: "p", votes: true}, {pool: "p", votes: true}, {pool: "q"}}, "abd"},
		{"nobody there in the other zone", []node{{zone: "x", votes: true}, {zone: "x", votes: true}, {zone: "y", votes: true}, {zone: "z", absent: true}}, "abc"},
		{"a voter that is away keeps its vote", []node{{zone: "x", votes: true}, {zone: "y", votes: true, absent: true}, {zone: "z", votes: true}, {zone: "x"}}, "abc"},
		{"one of five leaves, two are lost", []node{{votes: true, absent: true}, {votes: true, absent: true}, {votes: true}, {votes: true}, {votes: true, leaves: true}}, "acd"},
		{"one of three leaves, one is lost", []node{{votes: true, absent: true}, {votes: true}, {votes: true, leaves: true}}, "b"},
		{"one leaves, and one isn't heard of for a moment", []node{{votes: true}, {votes: true, absent: true, unsure: true}, {votes: true}, {votes: true}, {votes: true, leaves: true}}, ""},
		{"votes go rather to who drains than to who is lost", []node{{votes: true, absent: true}, {votes: true, isDraining: true}, {votes: true, leaves: true}}, "b"},
		{"one drains", []node{{zone: "x", votes: true, isDraining: true}, {zone: "x"}, {zone: "y", votes: true}, {zone: "z", votes: true}}, "bcd"},
	} {
		topology, st, lost := &Topology{}, replica.Status{}, map[uint64]bool{}
		for i, n := range c.nodes {
			id := uint64(i + 1)
			topology.Nodes = append(topology.Nodes, Node{Name: string(rune('a' + i)), RaftID: id, Pool: n.pool, Zone: n.zone, Draining: n.isDraining})
			st.Members = append(st.Members, replica.Member{ID: id, Voter: n.votes, Active: !n.absent})
			lost[id] = n.absent && !n.unsure
			topology.Nodes[i].Leaving = n.leaves
		}
		want, _ := wantedVoters(topology, st, lost)
		var got []byte
		for _, id := range want {
			got = append(got, byte('a'+id-1))
		}
		slices.Sort(got)
		if string(got) != c.want {
			t.Errorf("%s: %s vote, want %s", c.name, got, c.want)
		}
	}
}
