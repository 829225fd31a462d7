package replica_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/gridloom/gridloom/node/control/replica"
)

// change asks the leader for a change of membership until the members are the
// ones wanted, in raft's notation: v1 a voter, l2 a learner.
func (c *cluster) change(changes string, want ...string) {
	c.t.Helper()
	all, err := raftpb.ConfChangesFromString(changes)
	if err != nil {
		c.t.Fatal(err)
	}
	var got []string
	for range 200 {
		leader := c.anyLeader()
		if leader == nil {
			pause(20 * time.Millisecond)
			continue
		}
		if err := leader.Change(c.t.Context(), group, all); err != nil && !errors.Is(err, replica.ErrBusy) {
			var not *replica.NotLeaderError
			if !errors.As(err, &not) {
				c.t.Fatal(err)
			}
		}
		for range 50 {
			leader = c.anyLeader()
			if leader != nil {
				s := c.status(leader)
				got = names(s)
				if slices.Equal(got, want) && !s.Joint && s.Applied == s.Commit {
					return
				}
			}
			pause(20 * time.Millisecond)
		}
	}
	c.t.Fatalf("%s makes the members %v, not %v", changes, got, want)
}

func (c *cluster) anyLeader() *node {
	for _, n := range c.all() {
		if n.Leader(group).Leads {
			return n
		}
	}
	return nil
}

// names are a group's members in raft's notation.
func names(s replica.Status) (all []string) {
	for _, m := range s.Members {
		kind := "l"
		switch {
		case m.Leaving:
			kind = "o"
		case m.Voter:
			kind = "v"
		}
		all = append(all, fmt.Sprint(kind, m.ID))
	}
	return all
}

// A node that knows nothing is added as a learner, gets the state as a
// snapshot, is promoted, and takes the place of the leader, which goes.
func TestMembership(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		request := c.put("key")
		fresh := c.start(4, vfs.NewMem(), replica.Position{})
		c.change("l4", "v1", "v2", "v3", "l4")
		if got := c.read(fresh, "key"); got != request {
			t.Errorf("the learner reads request %d, not %d", got, request)
		}
		var want []string
		for id := range uint64(4) {
			if id+1 != leader.id {
				want = append(want, fmt.Sprint("v", id+1))
			}
		}
		c.change(fmt.Sprintf("v4 r%d", leader.id), want...)
		if leader.Leader(group).Leads {
			t.Error("who was removed leads")
		}
		if err := leader.Propose(t.Context(), group, []byte("x")); err == nil {
			t.Error("who was removed takes proposals")
		}
		c.stop(leader)
		c.isolate(c.leader().id) // two are a majority of three, so the new one counts
		rest := c.all()
		rest = slices.DeleteFunc(rest, func(n *node) bool { return n.Leader(group).Leads })
		c.leader(rest...)
		request = c.put("key")
		c.heal()
		for _, n := range c.all() {
			if got := c.read(n, "key"); got != request {
				t.Errorf("node %d reads request %d, not %d", n.id, got, request)
			}
		}
		c.agree()
		for _, n := range c.all() { // a membership is found again on disk
			c.restart(n)
		}
		if got := names(c.status(c.leader())); !slices.Equal(got, want) {
			t.Errorf("after a restart the members are %v", got)
		}
		c.put("key")
	})
}

// The only voter is replaced: by way of two, and a hand-over.
func TestReplaceOnlyVoter(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		request := c.put("key")
		c.start(2, vfs.NewMem(), replica.Position{})
		c.change("l2", "v1", "l2")
		c.change("v2 r1", "v2")
		c.stop(c.node(1)) // it may go at once
		n := c.restart(c.node(2))
		if got := c.read(n, "key"); got != request {
			t.Errorf("it reads request %d, not %d", got, request)
		}
		c.put("key")
	})
}

// From one node to three and back; alone only where nobody else could have
// seen more.
func TestGrowAndShrink(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.put("key")
		c.eventually("it is alone", func() bool { return c.node(1).Alone(group) })
		for id := range uint64(2) {
			c.start(id+2, vfs.NewMem(), replica.Position{})
		}
		c.change("l2", "v1", "l2")
		if c.node(1).Alone(group) {
			t.Error("a leader takes itself for alone, and a learner reads")
		}
		request := c.put("key")
		c.restart(c.node(1)) // its commit index may be older then than what was acknowledged
		if got := c.read(c.node(2), "key"); got != request {
			t.Errorf("a learner reads request %d, not %d", got, request)
		}
		c.change("v2 v3", "v1", "v2", "v3")
		c.put("key")
		if got := c.anyLeader(); got.id != 1 {
			c.t.Fatalf("node %d leads", got.id)
		}
		c.change("r2 r3", "v1")
		request = c.put("key")
		c.eventually("it is alone again", func() bool { return c.node(1).Alone(group) })
		if got := c.read(c.node(1), "key"); got != request {
			t.Errorf("it reads request %d, not %d", got, request)
		}
	})
}

// What makes no membership is refused before it is in the log.
func TestImpossibleChange(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		c.put("key")
		for _, changes := range []string{"r1", "l1", "", "v18446744073709551614"} {
			all, err := raftpb.ConfChangesFromString(changes)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.node(1).Change(t.Context(), group, all); err == nil {
				t.Errorf("%q was taken", changes)
			}
		}
		c.put("key")
		if err := c.node(1).Err(); err != nil {
			t.Error(err)
		}
	})
}

// small makes logs that are cut soon.
func small(_ uint64, o *replica.Options) { o.LogBytes = 8 << 10 }

// The log is cut, and who needs what isn't in it any more gets a snapshot,
// while there are writes.
func TestSnapshot(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 3, small)
		for range 3 {
			leader := c.leader()
			behind := c.node(leader.id%3 + 1)
			c.isolate(behind.id)
			at := behind.ledger.Position().Index
			for range 250 {
				c.put("key")
			}
			c.eventually("what the node needs isn't in the log any more", func() bool {
				leader := c.anyLeader()
				return leader != nil && leader.FirstIndex(group) > at+50
			})
			c.heal()
			for range 50 {
				c.put("other")
			}
			c.agree()
			c.restart(behind)
		}
		for _, n := range c.all() {
			if n.Err() != nil {
				t.Errorf("node %d has failed: %v", n.id, n.Err())
			}
			if s := c.status(n); s.LogBytes > 16<<10 {
				t.Errorf("the log of node %d has %d bytes", n.id, s.LogBytes)
			}
		}
		for range 10 { // what was fetched, and checkpoints nobody wants, don't stay
			pause(time.Minute)
			c.put("key")
		}
		for _, n := range c.all() {
			if left, err := n.disk.List("snapshots"); err != nil || len(left) > 0 {
				t.Errorf("node %d still has %v, %v", n.id, left, err)
			}
		}
	})
}

// A member that was added after the checkpoint that is there gets one that
// knows it.
func TestSnapshotKnowsMember(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, small)
		for id := range uint64(3) {
			for range 150 {
				c.put("key")
			}
			c.start(id+2, vfs.NewMem(), replica.Position{})
			var want []string
			for other := range id + 2 {
				want = append(want, fmt.Sprint([]string{"v", "l"}[min(1, other)], other+1))
			}
			c.change(fmt.Sprint("l", id+2), want...)
			c.agree()
		}
	})
}

// A fetch that breaks off is tried again, until it has all.
func TestFetchBreaks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, small)
		for range 150 {
			c.put("key")
		}
		tries := 0
		c.options = func(id uint64, o *replica.Options) {
			fetch := o.Fetch
			o.Fetch = func(ctx context.Context, from uint64, g replica.GroupID, at replica.Position, dir string) error {
				if tries++; tries <= 3 {
					return errors.New("broken off")
				}
				return fetch(ctx, from, g, at, dir)
			}
		}
		c.start(2, vfs.NewMem(), replica.Position{})
		c.change("l2", "v1", "l2")
		c.agree()
		if tries != 4 {
			t.Errorf("fetched %d times", tries)
		}
		if got := times(c.node(2), 1); got != 1 {
			t.Errorf("it has request 1 %d times", got)
		}
	})
}

// The log waits for who fetches a snapshot, so that it needs no other.
func TestLogWaitsForFetch(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, small)
		for range 150 {
			c.put("key")
		}
		leader := c.node(1)
		c.eventually("the log is cut", func() bool { return leader.FirstIndex(group) > 2 })
		begun, released := make(chan struct{}), make(chan struct{})
		fetches := 0
		c.options = func(id uint64, o *replica.Options) {
			fetch := o.Fetch
			o.Fetch = func(ctx context.Context, from uint64, g replica.GroupID, at replica.Position, dir string) error {
				if fetches++; fetches == 1 {
					close(begun)
					<-released
				}
				return fetch(ctx, from, g, at, dir)
			}
		}
		fresh := c.start(2, vfs.NewMem(), replica.Position{})
		c.change("l2", "v1", "l2")
		<-begun
		for range 150 {
			c.put("key")
		}
		pause(5 * time.Second)
		close(released)
		c.agree()
		if fetches != 1 || fresh.Err() != nil {
			t.Errorf("it has fetched %d times, %v", fetches, fresh.Err())
		}
	})
}
