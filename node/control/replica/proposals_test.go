package replica_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/node/control/replica/replicatest"
)

// What is proposed while the leader writes its log waits for that, and then goes
// to the others together.
func TestProposalsGather(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 0, nil)
		disks := map[uint64]*failing{}
		for id := range uint64(3) {
			disks[id+1] = &failing{hang: make(chan struct{})}
			c.start(id+1, disks[id+1].disk(), first(1, 2, 3))
		}
		n := c.leader()
		c.put("key")
		c.agree()
		const first, waiting = 1 << 20, 100
		propose := func(request uint64) error {
			return n.Propose(t.Context(), group, replicatest.Proposal(request, fmt.Sprint("key", request%7)))
		}
		disks[n.id].hangs.Store(true)
		if err := propose(first); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // its write hangs
		var done atomic.Int64
		for i := range uint64(waiting) {
			go func() {
				if err := propose(first + 1 + i); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		synctest.Wait()
		if done.Load() != 0 {
			t.Errorf("%d were proposed while the log was written", done.Load())
		}
		c.mu.Lock()
		before := c.sent[n.id]
		c.mu.Unlock()
		disks[n.id].hangs.Store(false)
		close(disks[n.id].hang)
		time.Sleep(20 * time.Millisecond) // less than a tick
		c.mu.Lock()
		sent := c.sent[n.id] - before
		c.mu.Unlock()
		if done.Load() != waiting || sent > 10 {
			t.Errorf("%d of %d were proposed, in %d batches", done.Load(), waiting, sent)
		}
		for i := range uint64(waiting + 1) {
			c.eventually("it is applied", func() bool { return times(n, first+i) == 1 })
		}
		c.agree()
	})
}
