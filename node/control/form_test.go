package control

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"github.com/gridloom/gridloom/node/fault"
)

// Founders may come in any order, minutes apart: what waits is served soon
// after the last has come.
func TestFoundersInAnyOrder(t *testing.T) {
	for seed := range uint64(4) {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			rng := rand.New(rand.NewPCG(seed, 1))
			order := rng.Perm(3)
			for _, i := range order[:2] {
				m.open(i, nil)
				pause(time.Duration(rng.Int64N(int64(time.Minute))))
			}
			early := m.node(order[0])
			if err := early.Ready(); fault.KindOf(err) != fault.Waiting || !strings.Contains(err.Error(), "waiting for node "+nodeName(order[2])) {
				t.Errorf("before the last founder: %v", err)
			}
			served := make(chan error, 1)
			go func() {
				for {
					_, err := early.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}})
					if fault.KindOf(err) != fault.Waiting {
						served <- err
						return
					}
				}
			}()
			pause(time.Second)
			last := time.Now()
			m.open(order[2], nil)
			if err := <-served; err != nil {
				t.Error(err)
			}
			ready(t, m.running()...)
			if took := time.Since(last); took > 3*time.Second {
				t.Errorf("order %v: served %v after the last founder came", order, took)
			}
			m.sameMesh()
			m.settle("a b c", "a b c")
			m.agree()
		})
	}
}

// Cold starts at the same moment give one id each.
func TestColdStarts(t *testing.T) {
	seen := map[string]bool{}
	for range 30 {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() { m.open(i, nil) })
			}
			wg.Wait()
			id := m.sameMesh()
			if seen[id] || uuid.Validate(id) != nil {
				t.Errorf("the id %q", id)
			}
			seen[id] = true
		})
	}
}

// Founders whose lists differ don't begin, and say how they differ.
func TestFoundersDisagree(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		a := m.open(0, func(o *Options) { o.Peers = m.peers(0, 1) })
		b := m.open(1, nil)
		m.open(2, nil)
		pause(10 * time.Second)
		short, long := "a=http://node0:80,b=http://node1:80", "a=http://node0:80,b=http://node1:80,c=http://node2:80"
		for _, c := range []*Control{a, b} {
			err := c.Ready()
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), short) || !strings.Contains(err.Error(), long) {
				t.Errorf("node %s: %v", c.self, err)
			}
			if c.Deployment() != "" || c.Topology().Epoch != 0 {
				t.Errorf("node %s has begun", c.self)
			}
		}
		// The list is mended, and nothing is in the way.
		m.restart(0)
		m.sameMesh()
	})
}

// Of an even number of founders one has no vote, and the log says so.
func TestEvenFounders(t *testing.T) {
	for n, want := range map[int][2]string{2: {"a, b", "a"}, 4: {"a b c, d", "a b c"}, 5: {"a b c d e", "a b c d e"}} {
		virtual(t, n, func(t *testing.T, m *mesh) {
			log := &lines{}
			for i := range n {
				m.open(i, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			}
			m.sameMesh()
			m.settle(want[0], want[1])
			if warned := log.count("even number of nodes") > 0; warned != (n%2 == 0) {
				t.Errorf("%d nodes: warned %t", n, warned)
			}
			b := createBucket(t, m.node(n-1), "b")
			for i, c := range m.running() {
				mustPut(t, c, b, fmt.Sprint(i), "e")
			}
			for _, c := range m.running() {
				a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
				if err != nil || len(a.Records) != n {
					t.Errorf("%d nodes, at %s: %d records, %v", n, c.self, len(a.Records), err)
				}
			}
			m.agree()
		})
	}
}

// A founder that has heard all others begins, though another hasn't: the slow
// one learns from those who have begun that it is part of it.
func TestSlowFounder(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.Cut(0, 1) // neither hears the other; c hears both and begins
		for i := range 3 {
			m.open(i, nil)
		}
		m.eventually("a and b have learnt from c that the mesh has begun", func() bool {
			return m.node(0).Topology().Epoch != 0 && m.node(1).Topology().Epoch != 0
		})
		m.Heal(0, 1)
		m.sameMesh()
		m.settle("a b c", "a b c")
		m.agree()
	})
}

// A mesh comes back as the same one after all of its nodes, or each of them,
// were stopped.
func TestRestarts(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		id := m.sameMesh()
		b := createBucket(t, m.node(0), "b")
		puts := 0
		check := func(what string) {
			t.Helper()
			if got := m.sameMesh(); got != id {
				t.Fatalf("%s: mesh %s came back as %s", what, id, got)
			}
			for _, c := range m.running() {
				mustPut(t, c, b, fmt.Sprint(puts), "e")
				puts++
				a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
				if err != nil || len(a.Records) != puts {
					t.Fatalf("%s: node %s has %d records of %d, %v", what, c.self, len(a.Records), puts, err)
				}
			}
		}
		for i := range 3 {
			m.restart(i)
			check("after a restart of " + nodeName(i))
		}
		for i := range 3 {
			m.kill(i)
			mustPut(t, m.node((i+1)%3), b, fmt.Sprint(puts), "e")
			puts++
			m.open(i, nil)
			check("after the loss of " + nodeName(i))
		}
		for i := range 3 {
			m.stop(i)
		}
		for _, i := range []int{2, 0, 1} {
			m.open(i, nil)
			pause(5 * time.Second)
		}
		check("after a restart of all")
		m.agree()
	})
}

// A node that has lost its data doesn't come back under its name by itself:
// it would have forgotten what it had promised. It may come anew when it is
// told so, as a learner first.
func TestWipedNode(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		id := m.sameMesh()
		b := createBucket(t, m.node(0), "b")
		join := &Command{JoinNode: &JoinNode{Node: "c", URL: m.Name(2), Drives: []string{"drive"}}}
		if _, err := m.node(0).Propose(t.Context(), join); err != nil {
			t.Fatal(err)
		}
		before := m.node(2).raftID
		m.kill(2)
		m.disks[2] = vfs.NewMem()
		c := m.open(2, nil)
		pause(10 * time.Second)
		if err := c.Ready(); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "gridloom node replace c") {
			t.Fatalf("a wiped node: %v", err)
		}
		if c.Deployment() != "" || c.engine.Load() != nil {
			t.Error("a wiped node has a part in the mesh")
		}
		mustPut(t, m.node(0), b, "k", "without c")

		if err := m.node(0).ReplaceNode(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		ready(t, c)
		m.settle("a b c", "a b c")
		if got := m.sameMesh(); got != id || c.raftID == before {
			t.Errorf("mesh %s came back as %s, raft id %x as %x", id, got, before, c.raftID)
		}
		if n := c.Topology().Node("c"); n.RaftID != c.raftID || n.Awaited || len(n.Drives) != 0 {
			t.Errorf("the node that came anew is %+v", n)
		}
		// Its vote counts: with it alone there is a majority.
		m.kill(0)
		mustPut(t, c, b, "k", "with c")
		if got := etagOf(t, m.node(1), "b", "k"); got != "with c" {
			t.Errorf("read %q", got)
		}
		if err := c.ReplaceNode(t.Context(), "c"); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("replacing itself: %v", err)
		}
	})
}

// A vote is not given to a node that is only waited for: majorities stay as
// large as they were.
func TestReplacedNodeThatDoesNotCome(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		m.kill(2)
		if err := m.node(0).ReplaceNode(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		pause(time.Minute)
		s, err := m.leader(systemGroup).Status(t.Context())
		if err != nil || len(s.Groups[0].Members) != 3 {
			t.Fatalf("%+v, %v", s, err)
		}
		for _, member := range s.Groups[0].Members {
			if member.Role != "voter" {
				t.Errorf("member %+v", member)
			}
		}
		createBucket(t, m.node(1), "b")
	})
}

// A node that nobody has let in learns how that is done.
func TestNodeThatIsNotAdmitted(t *testing.T) {
	virtualOf(t, 3, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		id := m.sameMesh()
		d := m.open(3, nil)
		pause(time.Minute)
		if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "gridloom node join d http://node3:80") {
			t.Fatalf("a node that wasn't let in: %v", err)
		}
		if d.Deployment() != "" || len(m.node(0).Topology().Nodes) != 3 {
			t.Error("it is part of the mesh all the same")
		}
		if err := m.node(1).AdmitNode(t.Context(), "d", m.Name(3)); err != nil {
			t.Fatal(err)
		}
		m.settle("a b c, d", "a b c")
		if m.sameMesh() != id {
			t.Error("another mesh")
		}
	})
}

// A node with the data of one mesh doesn't take part in another, and the other
// goes on without it.
func TestForeignNode(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		other := newMesh(t, 3, nil)
		other.openAll()
		theirs := other.sameMesh()
		for i := range 3 {
			other.stop(i)
		}
		m.openAll()
		ours := m.sameMesh()
		m.kill(2)
		m.disks[2] = other.disks[2]
		c := m.open(2, nil)
		pause(10 * time.Second)
		err := c.Ready()
		if fault.KindOf(err) != fault.WrongMesh || !strings.Contains(err.Error(), ours) || !strings.Contains(err.Error(), theirs) {
			t.Errorf("ready: %v", err)
		}
		if c.Deployment() != theirs || c.Realm() != "" {
			t.Errorf("its mesh is %q, its realm %q", c.Deployment(), c.Realm())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if _, err := c.Propose(ctx, &Command{CreateBucket: &CreateBucket{Name: "b"}}); err == nil {
			t.Error("a command was carried out")
		}
		createBucket(t, m.node(0), "b")
		if m.node(0).Deployment() != ours || m.node(0).Ready() != nil {
			t.Errorf("node a has mesh %q, ready: %v", m.node(0).Deployment(), m.node(0).Ready())
		}
	})
}
