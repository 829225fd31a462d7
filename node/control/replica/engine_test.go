package replica_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/control/replica/replicatest"
)

// What is proposed to the leader is applied by all, and read everywhere.
func TestReplicates(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		for i := range 50 {
			key := fmt.Sprint("key", i%7)
			request := c.put(key)
			for _, n := range c.all() {
				if got := c.read(n, key); got != request {
					t.Fatalf("node %d reads request %d, not %d", n.id, got, request)
				}
			}
		}
		c.agree()
		time.Sleep(time.Second / 10) // a round of heartbeats says who is active, since the leader last asked itself
		s := c.status(leader)
		if !s.Leads || s.Leader != leader.id || s.Joint || s.Last != s.Commit || s.Applied != s.Commit || len(s.Members) != 3 {
			t.Errorf("the leader's status is %+v", s)
		}
		for _, m := range s.Members {
			if !m.Voter || !m.Active || m.Leaving || m.Match != s.Last {
				t.Errorf("a member's status is %+v, the last entry %d", m, s.Last)
			}
		}
		for _, n := range c.all() {
			if n == leader {
				continue
			}
			var not *replica.NotLeaderError
			if err := n.Propose(t.Context(), group, []byte("x")); !errors.As(err, &not) || not.Leader != leader.id {
				t.Errorf("a follower takes a proposal with %v", err)
			}
			if n.Alone(group) {
				t.Errorf("node %d thinks it is alone", n.id)
			}
		}
		if err := leader.Propose(t.Context(), group, nil); err == nil {
			t.Error("an empty proposal was taken")
		}
		if err := leader.Propose(t.Context(), group+1, []byte("x")); !errors.Is(err, replica.ErrNoGroup) {
			t.Errorf("a proposal to no group: %v", err)
		}
	})
}

// The same over a network that loses and reorders.
func TestBadNetwork(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		c.mu.Lock()
		c.loss, c.delay = 0.1, 40*time.Millisecond
		c.mu.Unlock()
		for i := range 60 {
			request := c.put("key")
			if i%10 == 0 {
				for _, n := range c.all() {
					if got := c.read(n, "key"); got != request {
						t.Fatalf("node %d reads request %d, not %d", n.id, got, request)
					}
				}
			}
		}
		c.agree()
	})
}

// A node without others leads at once, and reads without asking.
func TestAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		n := c.node(1)
		for range 3 {
			began := time.Now()
			request := c.put("key")
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("it led after %v", took)
			}
			c.eventually("it is alone", func() bool { return n.Alone(group) })
			if index, err := n.ReadIndex(t.Context(), group); err != nil || index != 0 {
				t.Errorf("its reads wait for entry %d: %v", index, err)
			}
			if got := c.read(n, "key"); got != request {
				t.Errorf("it reads request %d, not %d", got, request)
			}
			n = c.restart(n)
		}
	})
}

// Leadership is handed over, and a leader without a majority gives it up.
func TestLeadership(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		old := c.leader()
		c.put("key")
		to := c.node(old.id%3 + 1)
		began := time.Now()
		if err := old.Transfer(t.Context(), group, to.id); err != nil {
			t.Fatal(err)
		}
		c.eventually("it leads", func() bool { return to.Leader(group).Leads })
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the hand-over took %v", took)
		}
		c.leader()
		if err := old.Transfer(t.Context(), group, to.id); err == nil {
			t.Error("a follower handed leadership over")
		}

		c.isolate(to.id)
		c.eventually("it has given up", func() bool { return !to.Leader(group).Leads })
		rest := c.all()
		rest = append(rest[:to.id-1], rest[to.id:]...)
		next := c.leader(rest...)
		request := c.put("key")
		if next == to {
			t.Fatal("the node that is cut off leads")
		}
		c.heal()
		if c.leader() == to {
			t.Error("coming back, it disturbed the leader")
		}
		if got := c.read(to, "key"); got != request {
			t.Errorf("coming back, it reads request %d, not %d", got, request)
		}
		c.agree()
	})
}

// A node that must not lead doesn't stand, and votes.
func TestStand(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, func(id uint64, o *replica.Options) { o.Stand = func() bool { return id == 2 } })
		for range 3 {
			if l := c.leader(); l.id != 2 {
				t.Fatalf("node %d leads", l.id)
			}
			c.put("key")
			c.restart(c.node(2))
		}
	})
}

// What was acknowledged is there when all have been started again, in any
// order, and nothing else is needed for it than a majority.
func TestRestart(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		for i := range 6 {
			request := c.put("key")
			all := c.all()
			for _, n := range all {
				c.stop(n)
			}
			for j := range all {
				n := all[(i+j)%3]
				c.start(n.id, n.disk, replica.Position{})
				if j == 1 {
					if got := c.read(c.node(n.id), "key"); got != request {
						t.Errorf("two of three read request %d, not %d", got, request)
					}
				}
			}
			c.agree()
		}
	})
}

// Calls end with their context, or the engine, wherever they are.
func TestClose(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		n := c.leader()
		c.isolate(n.id)
		c.eventually("it has given up", func() bool { return !n.Leader(group).Leads })
		reads := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := n.ReadIndex(t.Context(), group)
				reads <- err
			}()
		}
		synctest.Wait()
		n.Close()
		n.Close()
		for range 2 {
			if err := <-reads; !errors.Is(err, replica.ErrClosed) {
				t.Errorf("a read ended with %v", err)
			}
		}
		if _, err := n.ReadIndex(t.Context(), group); !errors.Is(err, replica.ErrClosed) {
			t.Errorf("a read after that: %v", err)
		}
		if err := n.Propose(t.Context(), group, replicatest.Proposal(1, "x")); !errors.Is(err, replica.ErrClosed) {
			t.Errorf("a proposal after that: %v", err)
		}
		if _, err := n.Status(t.Context(), group); !errors.Is(err, replica.ErrClosed) {
			t.Errorf("a status after that: %v", err)
		}
		if n.Err() != nil {
			t.Errorf("it has failed: %v", n.Err())
		}
	})
}
