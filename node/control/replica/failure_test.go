package replica_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/gridloom/gridloom/node/control/replica"
)

// failing is a disk whose log can be made to misbehave.
type failing struct {
	refuse atomic.Bool   // every sync fails
	hang   chan struct{} // every sync waits for this to be closed, once it is set
	hangs  atomic.Bool
}

func (f *failing) disk() vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		synced := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		if !synced || !strings.HasPrefix(op.Path, "log/") {
			return nil
		}
		if f.hangs.Load() {
			<-f.hang
		}
		if f.refuse.Load() {
			return errors.New("the disk is broken")
		}
		return nil
	}))
}

// failed waits until a node has failed, and checks that it has said so once.
func (c *cluster) failed(n *node, why string) {
	c.t.Helper()
	select {
	case <-n.Done():
	case <-time.After(time.Minute):
		c.t.Fatal("it hasn't failed")
	}
	pause(time.Second)
	if err := n.Err(); err == nil || !strings.Contains(err.Error(), why) {
		c.t.Errorf("it has failed because of %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.failures) != 1 || !errors.Is(n.failures[0], n.Err()) {
		c.t.Errorf("it said %v", n.failures)
	}
}

// A log that can't be synced ends the engine, and nothing is promised that
// isn't on disk: the others go on without it.
func TestLogFails(t *testing.T) {
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				disks := map[uint64]*failing{}
				c := newCluster(t, 0, nil)
				for id := range uint64(3) {
					disks[id+1] = &failing{}
					c.start(id+1, disks[id+1].disk(), first(1, 2, 3))
				}
				n := c.leader()
				if role == "follower" {
					n = c.node(n.id%3 + 1)
				}
				c.put("key")
				disks[n.id].refuse.Store(true)
				if role == "leader" {
					// Its own vote is missing: only the others' can count.
					if err := n.Propose(t.Context(), group, []byte("1234567890")); err != nil {
						t.Fatal(err)
					}
				} else {
					c.put("key")
				}
				c.failed(n, "broken")
				if err := n.Propose(t.Context(), group, []byte("x")); !errors.Is(err, replica.ErrClosed) {
					t.Errorf("it takes a proposal with %v", err)
				}
				c.stop(n)
				c.put("key")
				c.agree()
			})
		})
	}
}

// A log without others is not acknowledged to anyone when it fails.
func TestLogFailsAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var f failing
		c := newCluster(t, 0, nil)
		n := c.start(1, f.disk(), first(1))
		c.put("key")
		at := n.Applied(group)
		f.refuse.Store(true)
		if err := n.Propose(t.Context(), group, []byte("1234567890")); err != nil {
			t.Fatal(err)
		}
		c.failed(n, "broken")
		if n.Applied(group) != at {
			t.Error("what isn't on disk was applied")
		}
	})
}

// A log that hangs ends the engine after a while. Close leaves the write
// behind, and says so.
func TestLogHangs(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := failing{hang: make(chan struct{})}
		c := newCluster(t, 0, nil)
		n := c.start(1, f.disk(), first(1))
		c.put("key")
		f.hangs.Store(true)
		began := time.Now()
		if err := n.Propose(t.Context(), group, []byte("1234567890")); err != nil {
			t.Fatal(err)
		}
		c.failed(n, "has taken more than")
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %v to fail", took)
		}
		c.stop(n)
		if !n.Stranded() {
			t.Error("a write hangs, and Close doesn't say so")
		}
		close(f.hang)
		if err := errors.Join(n.ledger.Close(), n.log.Close()); err != nil {
			t.Error(err)
		}
	})
}

// Close doesn't wait for a write that hangs either, where it begins first.
func TestCloseHangs(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := failing{hang: make(chan struct{})}
		c := newCluster(t, 0, nil)
		n := c.start(1, f.disk(), first(1))
		c.put("key")
		f.hangs.Store(true)
		if err := n.Propose(t.Context(), group, []byte("1234567890")); err != nil {
			t.Fatal(err)
		}
		pause(100 * time.Millisecond)
		began := time.Now()
		c.stop(n)
		if took := time.Since(began); !n.Stranded() || took > 2*time.Second {
			t.Errorf("after %v it left a write behind: %v", took, n.Stranded())
		}
		close(f.hang)
		if err := errors.Join(n.ledger.Close(), n.log.Close()); err != nil {
			t.Error(err)
		}
	})
}

// A machine that fails ends the engine, too.
func TestMachineFails(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCluster(t, 1, func(_ uint64, o *replica.Options) {
			o.Groups[0].Machine = &brittle{Machine: o.Groups[0].Machine}
		})
		n := c.node(1)
		c.eventually("it has failed", func() bool {
			_ = n.Propose(t.Context(), group, []byte("1234567890"))
			return n.Err() != nil
		})
		c.failed(n, "can't go on")
	})
}

type brittle struct {
	replica.Machine
	applied int
}

func (b *brittle) Apply(entries []replica.Entry) error {
	if b.applied += len(entries); b.applied > 5 {
		return errors.New("it can't go on")
	}
	return b.Machine.Apply(entries)
}
