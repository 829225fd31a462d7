package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// gate is a disk on which the syncs of the raft log can be held up, or fail.
type gate struct {
	mu      sync.Mutex
	held    chan struct{} // closed: syncs pass
	arrived chan struct{} // one for every sync that is held up
	err     error
}

func newGate() *gate {
	g := &gate{held: make(chan struct{}), arrived: make(chan struct{}, 1000)}
	close(g.held)
	return g
}

func (g *gate) fs() vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		default:
			return nil
		}
		if !strings.Contains(op.Path, "raftlog") || !strings.HasSuffix(op.Path, ".log") {
			return nil
		}
		g.mu.Lock()
		held := g.held
		g.mu.Unlock()
		select {
		case <-held:
		default:
			g.arrived <- struct{}{}
			<-held
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.err
	}))
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = make(chan struct{})
}

// open lets the syncs pass that were held up, and all later ones, with err.
func (g *gate) open(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	close(g.held)
}

// gated opens a node alone on a gated disk.
func gated(t *testing.T, hooks Hooks) (*gate, *Control) {
	g := newGate()
	return g, openAlone(t, Options{fs: g.fs(), Hooks: hooks})
}

// propose creates n buckets at once.
func propose(t *testing.T, c *Control, n int) chan error {
	errs := make(chan error, n)
	for i := range n {
		go func() {
			_, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: fmt.Sprint("b", i)}})
			errs <- err
		}()
	}
	return errs
}

// What is proposed during a sync shares the next one.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var batches, entries atomic.Int64
		g, c := gated(t, Hooks{Committed: func(group string, n int, _ time.Duration) {
			if group == "data-1" {
				batches.Add(1)
				entries.Add(int64(n))
			}
		}})
		b := createBucket(t, c, "b")
		mustPut(t, c, b, "first", "e")
		batches.Store(0)
		entries.Store(0)
		g.shut()
		const n = 300
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { mustPut(t, c, b, fmt.Sprint("k", i), "e") })
		}
		synctest.Wait()
		if syncs := len(g.arrived); syncs != 1 {
			t.Errorf("%d syncs are on their way", syncs)
		}
		g.open(nil)
		wg.Wait()
		if entries.Load() != n || batches.Load() > 10 {
			t.Errorf("%d entries in %d batches", entries.Load(), batches.Load())
		}
		a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
		if err != nil || len(a.Records) != n+1 {
			t.Errorf("%d records, %v", len(a.Records), err)
		}
	})
}

// A read shows what is durable and nothing else: what a crash could take back
// must not have been seen.
func TestReadsShowWhatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := gated(t, Hooks{})
		g.shut()
		done := propose(t, c, 1)
		<-g.arrived
		synctest.Wait()
		for _, age := range []time.Duration{0, time.Hour} {
			if _, err := c.Read(t.Context(), &Query{MaxAge: age, Bucket: &BucketQuery{Name: "b0"}}); fault.KindOf(err) != fault.BucketNotFound {
				t.Errorf("a bucket that isn't durable yet: %v", err)
			}
		}
		g.open(nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(t.Context(), &Query{Bucket: &BucketQuery{Name: "b0"}}); err != nil {
			t.Error(err)
		}
	})
}

// A caller may leave; what it has proposed completes all the same.
func TestLeavingACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := gated(t, Hooks{})
		g.shut()
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := c.Propose(ctx, &Command{CreateBucket: &CreateBucket{Name: "taken"}})
			left <- err
		}()
		<-g.arrived
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		g.open(nil)
		createBucket(t, c, "later")
		a, err := c.Read(t.Context(), &Query{Buckets: &BucketsQuery{}})
		if err != nil || len(a.Buckets) != 2 || a.Buckets[1].Name != "taken" {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

// A log that can't be synced, or not in time, ends the node: nobody is told
// that their command was carried out, the reason is there to be shown, and
// nothing is tried again.
func TestFailingLog(t *testing.T) {
	for what, fail := range map[string]func(g *gate, c *Control){
		"the disk is gone": func(g *gate, c *Control) { g.open(errors.New("the disk is gone")) },
		"more than 5s":     func(_ *gate, c *Control) { <-c.Done() },
	} {
		synctest.Test(t, func(t *testing.T) {
			g, c := gated(t, Hooks{})
			g.shut()
			errs := propose(t, c, 20)
			<-g.arrived
			began := time.Now()
			fail(g, c)
			for range cap(errs) {
				if err := <-errs; fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), what) {
					t.Errorf("%s: an answer: %v", what, err)
				}
			}
			<-c.Done()
			if err := c.Err(); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "log") {
				t.Errorf("%s: the reason is %v", what, err)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("%s: it took %v", what, took)
			}
			if what == "more than 5s" {
				g.open(nil)
			}
			if _, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "late"}}); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%s: a command after the failure: %v", what, err)
			}
			if _, err := c.Read(t.Context(), &Query{Topology: &TopologyQuery{}}); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%s: a query after the failure: %v", what, err)
			}
			if c.Ready() == nil || c.WaitReady(t.Context()) == nil {
				t.Errorf("%s: ready after the failure", what)
			}
			_ = c.Close()
		})
	}
}

// One node's log fails: the others go on with all that was acknowledged, and
// the node comes back when its disk does.
func TestOneFailingLog(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		gates := make([]*gate, 3)
		for i := range gates {
			gates[i] = newGate()
			m.disks[i] = gates[i].fs()
		}
		m.openAll()
		l := startLoad(t, m.running()...)
		pause(time.Second)
		for _, err := range []error{errors.New("no more"), nil} {
			lost := m.leader(dataGroup)
			i := m.index(lost)
			gates[i].shut()
			if err != nil {
				gates[i].open(err)
			}
			<-lost.Done()
			if err == nil {
				gates[i].open(nil)
			}
			pause(5 * time.Second)
			m.stop(i)
			gates[i].mu.Lock()
			gates[i].err = nil
			gates[i].mu.Unlock()
			ready(t, m.open(i, nil))
		}
		l.stop()
		l.writers.Wait()
		l.check(m)
	})
}

// An entry of a newer program ends the node with a clear error, every time,
// rather than being guessed at.
func TestUnknownVersionInTheLog(t *testing.T) {
	for _, g := range []replica.GroupID{systemGroup, dataGroup} {
		synctest.Test(t, func(t *testing.T) {
			fs := vfs.NewMem()
			c := openAlone(t, Options{fs: fs})
			cmd := complete(&Command{CreateBucket: &CreateBucket{Name: "b"}})
			cmd.Version = 9
			data, err := encodeEntry(1, cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.engine.Load().Propose(t.Context(), g, data); err != nil {
				t.Fatal(err)
			}
			<-c.Done()
			if err := c.Err(); !strings.Contains(err.Error(), "command version 9 is not known here, only 3") || !strings.Contains(err.Error(), groupName(g)) {
				t.Errorf("the reason is %v", err)
			}
			_ = c.Close()
			again, err := Open(t.Context(), Options{fs: fs, Self: "a"})
			if err == nil {
				<-again.Done()
				err = errors.Join(again.Err(), again.Close())
			}
			if !strings.Contains(err.Error(), "command version 9 is not known here") {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

// Close ends what waits and lets nothing in afterwards.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := gated(t, Hooks{})
		g.shut()
		errs := propose(t, c, 10)
		<-g.arrived
		closed := make(chan error)
		go func() { closed <- c.Close() }()
		<-c.ctx.Done()
		g.open(nil)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		for range cap(errs) {
			if err := <-errs; err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Error(err)
			}
		}
		if _, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "late"}}); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a command after Close: %v", err)
		}
		if _, err := c.Read(t.Context(), &Query{Topology: &TopologyQuery{}}); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a query after Close: %v", err)
		}
		if _, err := c.Status(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a status after Close: %v", err)
		}
		if err := c.WaitReady(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("ready after Close: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

// What a leader has in hand is bounded in bytes, and waiting for room ends with
// ctx and with the node.
func TestCommandsInHandAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openAlone(t, Options{})
		if err := c.memory.Acquire(t.Context(), queuedBytes); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		propose := func(ctx context.Context) {
			_, err := c.Propose(ctx, &Command{CreateBucket: &CreateBucket{Name: "b"}})
			errs <- err
		}
		go propose(ctx)
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		go propose(t.Context())
		synctest.Wait()
		go func() { _ = c.Close() }()
		if err := <-errs; fault.KindOf(err) != fault.Unavailable {
			t.Error(err)
		}
	})
}

// smallDisk is a disk with so much room left.
type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load()}, nil
}

// On a leader's disk that is nearly full, deleting works and nothing else does,
// until there is room again; through whichever node it is asked for.
func TestFullDisk(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		disks := make([]*smallDisk, 3)
		for i := range disks {
			disks[i] = &smallDisk{FS: m.disks[i]}
			m.disks[i] = disks[i]
		}
		room := func(free uint64) {
			for _, d := range disks {
				d.free.Store(free)
			}
			pause(4 * time.Second) // they have told each other
		}
		room(1 << 40)
		m.openAll()
		for _, c := range m.running() {
			room(1 << 40)
			b := createBucket(t, c, "b-"+c.self)
			put := putOf(b, "k", "e")
			put.RequestID = randomID()
			first, err := c.Propose(t.Context(), put)
			if err != nil {
				t.Fatal(err)
			}
			room(disk.ReserveBytes - 1)
			for _, cmd := range []*Command{putOf(b, "l", "e"), {CreateBucket: &CreateBucket{Name: "c"}}} {
				if _, err := c.Propose(t.Context(), cmd); fault.KindOf(err) != fault.NoSpace || Refused(err) {
					t.Errorf("%+v: %v", cmd, err)
				}
			}
			// A retry learns what the first try came to.
			if again, err := c.Propose(t.Context(), put); err != nil || again.LogTime != first.LogTime || again.Record.LogTime != first.Record.LogTime {
				t.Errorf("a retry: %+v, %v", again, err)
			}
			// A put learns it before it has sent its payload.
			if _, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: b.Name}}); fault.KindOf(err) != fault.NoSpace {
				t.Errorf("the beginning of a put: %v", err)
			}
			if got := etagOf(t, c, b.Name, "k"); got != "e" {
				t.Errorf("read %q", got)
			}
			if _, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: b.Name, Keys: []string{"k"}}}); err != nil {
				t.Error(err)
			}
			room(disk.ReserveBytes)
			mustPut(t, c, b, "l", "e")
		}
	})
}

// A follower whose disk is full takes no part for as long, and comes back: the
// others go on, and its process doesn't end. Without a majority nothing goes on,
// and nothing is lost.
func TestFullFollower(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		disks := make([]*smallDisk, 3)
		for i := range disks {
			disks[i] = &smallDisk{FS: m.disks[i]}
			disks[i].free.Store(1 << 40)
			m.disks[i] = disks[i]
		}
		m.openAll()
		leader := m.leader(dataGroup)
		b := createBucket(t, leader, "bucket")
		var full []*smallDisk
		for _, c := range m.running() {
			if c != leader {
				full = append(full, disks[m.index(c)])
			}
		}
		room := func(d *smallDisk, free uint64) {
			d.free.Store(free)
			pause(2 * time.Second)
		}
		room(full[0], disk.LastBytes-1)
		for i := range 20 {
			mustPut(t, leader, b, fmt.Sprint("one/", i), "e")
		}
		room(full[1], disk.LastBytes-1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := leader.Propose(ctx, putOf(b, "two", "e")); err == nil {
			t.Error("a put was acknowledged by one of three")
		}
		room(full[0], 1<<40)
		mustPut(t, leader, b, "three", "e")
		room(full[1], 1<<40)
		for _, c := range m.running() {
			if got := etagOf(t, c, b.Name, "one/19"); got != "e" {
				t.Errorf("%s: %q", c.self, got)
			}
			select {
			case <-c.Done():
				t.Errorf("%s has ended", c.self)
			default:
			}
		}
	})
}
