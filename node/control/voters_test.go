package control

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// A node that leaves doesn't give the votes to nodes that are lost: as long as a
// majority is there, the mesh takes writes, and who is lost may be removed.
func TestLeavingWhileOthersAreLost(t *testing.T) {
	virtual(t, 5, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(2), "b")
		m.kill(0)
		m.kill(1)
		mustPut(t, m.node(2), b, "with two lost", "e")
		e := m.node(4)
		m.remove(m.node(2), "e")
		m.left(e)
		m.stop(4)
		mustPut(t, m.node(3), b, "after e", "e")
		m.eventually("c and d vote, and one that is lost", func() bool {
			roles := m.roles(systemGroup)
			return roles == "a c d, b" || roles == "b c d, a"
		})

		// Of c, a and b only c could be reached.
		err := m.node(2).RemoveNode(t.Context(), "d", true)
		if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "can't be reached") || !strings.Contains(err.Error(), "a and b") {
			t.Errorf("d leaves: %v", err)
		}
		if n := m.node(3).Topology().Node("d"); n == nil || n.Leaving {
			t.Errorf("the node that was to stay is %+v", n)
		}

		// The first of the lost may have to wait for the second, whose vote would
		// be nobody's.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := m.node(2).RemoveNode(ctx, "a", true); err != nil && fault.KindOf(err) != fault.Waiting {
			t.Fatal(err)
		}
		mustPut(t, m.node(2), b, "without a", "e")
		m.remove(m.node(3), "b")
		m.eventually("both are gone", func() bool { return len(m.node(2).Topology().Nodes) == 2 })
		mustPut(t, m.node(3), b, "without a and b", "e")
	})
}

// With one of three lost, another may leave: the vote goes to who is there.
func TestLeavingWhileOneOfThreeIsLost(t *testing.T) {
	for gone := range 3 {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			m.openAll()
			b := createBucket(t, m.node(0), "b")
			m.kill(gone)
			rest := m.running()
			leaves, stays := rest[1], rest[0]
			m.remove(stays, leaves.self)
			m.left(leaves)
			m.stop(m.index(leaves))
			mustPut(t, stays, b, "alone", "e")
			m.remove(stays, nodeName(gone))
			m.settle(stays.self, stays.self)
		})
	}
}

// A node whose vote can't go anywhere yet stays, says why, once, and goes when it
// can.
func TestLeavingWaits(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		log := &lines{}
		for i := range 4 {
			m.open(i, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		}
		ready(t, m.running()...)
		m.settle("a b c, d", "a b c")
		m.kill(3)
		pause(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := m.node(0).RemoveNode(ctx, "c", true)
		if fault.KindOf(err) != fault.Waiting || !strings.Contains(err.Error(), "node d is to vote") {
			t.Errorf("c leaves, and d is away: %v", err)
		}
		for _, c := range m.running() {
			if s, err := c.Status(t.Context()); err != nil || !strings.Contains(s.Groups[0].Waits, "node d is to vote") {
				t.Errorf("node %s says %+v, %v", c.self, s, err)
			}
		}
		b := createBucket(t, m.node(1), "b")
		mustPut(t, m.node(2), b, "k", "e")
		if n := log.count("stay as they are for now"); n != 1 {
			t.Errorf("%d lines say that the members stay", n)
		}
		m.open(3, nil)
		m.left(m.node(2))
		m.stop(2)
		m.settle("a b d", "a b d")
		m.eventually("nothing is in the way", func() bool {
			s, err := m.node(1).Status(t.Context())
			return err == nil && s.Groups[0].Waits == ""
		})
	})
}

// drawn is a group in a state that is drawn at random: nodes that vote, learn,
// drain, leave, are lost or are only heard of no more for a moment.
func drawn(rng *rand.Rand) (t *Topology, st replica.Status, lost map[uint64]bool) {
	t, lost = &Topology{}, map[uint64]bool{}
	st.Commit = 10_000
	n := 1 + rng.IntN(8)
	voters := voterCount(n)
	for i := range n {
		id := uint64(i + 1)
		t.Nodes = append(t.Nodes, Node{Name: string(rune('a' + i)), RaftID: id, Zone: []string{"", "x", "y"}[rng.IntN(3)], Draining: rng.IntN(6) == 0, Leaving: rng.IntN(4) == 0})
		m := replica.Member{ID: id, Active: rng.IntN(3) > 0, Match: st.Commit}
		lost[id] = !m.Active && rng.IntN(4) > 0
		if rng.IntN(6) == 0 {
			m.Match = 0
		}
		st.Members = append(st.Members, m)
	}
	for _, i := range rng.Perm(n)[:voters] {
		st.Members[i].Voter = true
	}
	return t, st, lost
}

// Whatever the nodes do: a change of who votes is proposed only where a majority
// of those who vote then, and of those who vote now, is there and has the log.
func TestVotesGoWhereTheyAreHeard(t *testing.T) {
	changed, waited := 0, 0
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		topology, st, lost := drawn(rng)
		want, _ := wantedVoters(topology, st, lost)
		changes, why := plan(systemGroup, topology, st, want)
		now, then, there := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
		for _, m := range st.Members {
			now[m.ID], then[m.ID], there[m.ID] = m.Voter, m.Voter, m.Active && m.Match >= st.Commit
		}
		for _, c := range changes {
			then[c.GetNodeId()] = c.GetType().String() == "ConfChangeAddNode"
		}
		if slices.EqualFunc(topology.Nodes, topology.Nodes, func(a, _ Node) bool { return now[a.RaftID] == then[a.RaftID] }) {
			if why != "" {
				waited++
			}
			continue
		}
		changed++
		for what, votes := range map[string]map[uint64]bool{"now": now, "then": then} {
			all, heard := 0, 0
			for id, v := range votes {
				if v {
					all++
					if there[id] {
						heard++
					}
				}
			}
			if all == 0 || heard <= all/2 {
				t.Fatalf("seed %d: of those who vote %s %d of %d are there: %+v, %+v: %v", seed, what, heard, all, topology.Nodes, st.Members, changes)
			}
		}
	}
	if changed < 1000 || waited < 1000 {
		t.Errorf("%d changes, and %d times it was waited", changed, waited)
	}
}
