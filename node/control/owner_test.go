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

	"github.com/gridloom/gridloom/node/fault"
)

// openAlone opens the index of a node that is alone.
func openAlone(t *testing.T, o Options) *Control {
	t.Helper()
	if o.fs == nil {
		o.fs = vfs.NewMem()
	}
	o.Self = "a"
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && c.Err() == nil {
			t.Error(err)
		}
	})
	return c
}

func createBucket(t *testing.T, x Index, name string) *Bucket {
	t.Helper()
	res, err := x.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Bucket
}

// putOf is a put of a small record that began now.
func putOf(b *Bucket, key, etag string) *Command {
	return &Command{PutRecord: &PutRecord{
		BucketName: b.Name, BucketID: b.ID, Birth: b.LogTime,
		Record: Record{Key: key, VersionID: randomID(), ETag: etag, Inline: []byte(etag), SizeBytes: int64(len(etag))},
	}}
}

// gate is a file system whose syncs of the log can be held up, or fail.
type gate struct {
	mu      sync.Mutex
	held    chan struct{} // closed: syncs pass
	arrived chan struct{} // one for every sync that is held up
	err     error
}

func newGate() *gate {
	g := &gate{held: make(chan struct{}), arrived: make(chan struct{}, 100)}
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
		if !strings.HasSuffix(op.Path, ".log") {
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

// queued waits until so many proposals are in the queue.
func queued(t *testing.T, c *Control, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(c.local.queue) != n {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the queue never had ", n)
		}
	}
}

// What is proposed during a sync shares the next one.
func TestGroupCommit(t *testing.T) {
	g := newGate()
	batches := make(chan int, 100)
	c := openAlone(t, Options{fs: g.fs(), Hooks: Hooks{Committed: func(n, _ int, _ time.Duration) { batches <- n }}})
	<-batches // Init
	b := createBucket(t, c, "b")
	<-batches

	g.shut()
	var wg sync.WaitGroup
	put := func(key string) {
		wg.Go(func() {
			if _, err := c.Propose(t.Context(), putOf(b, key, "e")); err != nil {
				t.Error(err)
			}
		})
	}
	put("first")
	<-g.arrived
	const rest = 300
	for i := range rest {
		put(fmt.Sprint("k", i))
	}
	queued(t, c, rest)
	g.open(nil)
	wg.Wait()
	if first, second, third := <-batches, <-batches, <-batches; first != 1 || second != batchCommands || third != rest-batchCommands {
		t.Errorf("batches of %d, %d and %d commands", first, second, third)
	}
	a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
	if err != nil || len(a.Records) != rest+1 {
		t.Errorf("%d records, %v", len(a.Records), err)
	}
}

// A read shows what is durable and nothing else: what a crash could take back
// must not have been seen.
func TestReadsShowWhatIsDurable(t *testing.T) {
	g := newGate()
	c := openAlone(t, Options{fs: g.fs()})
	g.shut()
	done := make(chan error, 1)
	go func() {
		_, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}})
		done <- err
	}()
	<-g.arrived
	if _, err := c.Read(t.Context(), &Query{Bucket: &BucketQuery{Name: "b"}}); fault.KindOf(err) != fault.BucketNotFound {
		t.Errorf("a bucket that isn't durable yet: %v", err)
	}
	g.open(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(t.Context(), &Query{Bucket: &BucketQuery{Name: "b"}}); err != nil {
		t.Error(err)
	}
}

// A proposal whose caller leaves the queue never happens; one that was taken
// completes all the same.
func TestLeavingTheQueue(t *testing.T) {
	g := newGate()
	c := openAlone(t, Options{fs: g.fs()})
	g.shut()
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	propose := func(name string) {
		_, err := c.Propose(ctx, &Command{CreateBucket: &CreateBucket{Name: name}})
		results <- fmt.Errorf("%s: %w", name, err)
	}
	go propose("taken")
	<-g.arrived
	go propose("queued")
	queued(t, c, 1)
	cancel()
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	g.open(nil)
	createBucket(t, c, "later") // behind the two in the queue
	a, err := c.Read(t.Context(), &Query{Buckets: &BucketsQuery{}})
	if err != nil || len(a.Buckets) != 2 || a.Buckets[0].Name != "later" || a.Buckets[1].Name != "taken" {
		t.Errorf("%+v, %v", a, err)
	}
}

// A log that can't be synced ends the index: nobody is told that their
// command was carried out, the reason is there to be shown, and nothing is
// tried again.
func TestFailedSync(t *testing.T) {
	g := newGate()
	c := openAlone(t, Options{fs: g.fs()})
	g.shut()
	errs := make(chan error, 20)
	propose := func(i int) {
		_, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: fmt.Sprint("b", i)}})
		errs <- err
	}
	go propose(0)
	<-g.arrived
	for i := 1; i < cap(errs); i++ {
		go propose(i)
	}
	queued(t, c, cap(errs)-1)
	g.open(errors.New("the disk is gone"))
	for range cap(errs) {
		if err := <-errs; fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "store has failed") {
			t.Errorf("an answer after a failed sync: %v", err)
		}
	}
	<-c.Done()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "the disk is gone") || !strings.Contains(err.Error(), "state") {
		t.Errorf("the reason is %v", err)
	}
	g.mu.Lock()
	g.err = nil
	g.mu.Unlock()
	if _, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "late"}}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a command after the failure: %v", err)
	}
	if _, err := c.Read(t.Context(), &Query{Topology: &TopologyQuery{}}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a query after the failure: %v", err)
	}
	if c.Ready() == nil || c.WaitReady(t.Context()) == nil {
		t.Error("ready after the failure")
	}
}

// Close ends what is queued and lets nothing in afterwards; readers in flight
// finish first.
func TestClose(t *testing.T) {
	g := newGate()
	c := openAlone(t, Options{fs: g.fs()})
	g.shut()
	errs := make(chan error, 10)
	propose := func(i int) {
		_, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: fmt.Sprint("b", i)}})
		errs <- err
	}
	go propose(0)
	<-g.arrived
	for i := 1; i < cap(errs); i++ {
		go propose(i)
	}
	queued(t, c, cap(errs)-1)
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
	if err := c.WaitReady(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("ready after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// The queue is bounded in bytes, and waiting for room ends with ctx and with
// the index.
func TestQueueIsBounded(t *testing.T) {
	g := newGate()
	c := openAlone(t, Options{fs: g.fs()})
	g.shut()
	if err := c.local.memory.Acquire(t.Context(), queuedBytes); err != nil {
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
	g.open(nil)
	go propose(t.Context())
	go func() { _ = c.Close() }()
	if err := <-errs; fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}

// smallDisk is a disk with so much room left.
type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load()}, nil
}

// On a disk that is nearly full, deleting works and nothing else does, until
// there is room again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &smallDisk{FS: vfs.NewMem()}
		disk.free.Store(1 << 40)
		c := openAlone(t, Options{fs: disk})
		b := createBucket(t, c, "b")
		put := putOf(b, "k", "e")
		put.RequestID = randomID()
		first, err := c.Propose(t.Context(), put)
		if err != nil {
			t.Fatal(err)
		}
		refused := &Command{RequestID: randomID(), CreateBucket: &CreateBucket{Name: "b"}}
		if _, err := c.Propose(t.Context(), refused); fault.KindOf(err) != fault.AlreadyExists {
			t.Fatal(err)
		}
		disk.free.Store(storeReserveBytes - 1)
		time.Sleep(roomInterval)
		for _, cmd := range []*Command{putOf(b, "l", "e"), {CreateBucket: &CreateBucket{Name: "c"}}} {
			if _, err := c.Propose(t.Context(), cmd); fault.KindOf(err) != fault.NoSpace || Refused(err) {
				t.Errorf("%+v: %v", cmd, err)
			}
		}
		// A retry learns what the first try came to.
		if again, err := c.Propose(t.Context(), put); err != nil || again.LogTime != first.LogTime || again.Record.LogTime != first.Record.LogTime {
			t.Errorf("a retry: %+v, %v", again, err)
		}
		if _, err := c.Propose(t.Context(), refused); fault.KindOf(err) != fault.AlreadyExists || !Refused(err) {
			t.Errorf("a retry of what was refused: %v", err)
		}
		// A put learns it before it has sent its payload.
		if _, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "b"}}); fault.KindOf(err) != fault.NoSpace {
			t.Errorf("the beginning of a put: %v", err)
		}
		if _, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "x"}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("the beginning of a put to no bucket: %v", err)
		}
		if _, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "k"}}); err != nil {
			t.Error(err)
		}
		if _, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k"}}}); err != nil {
			t.Error(err)
		}
		disk.free.Store(storeReserveBytes)
		time.Sleep(roomInterval)
		if _, err := c.Propose(t.Context(), putOf(b, "l", "e")); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
