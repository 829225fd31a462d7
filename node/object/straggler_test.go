package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// sluggish is a drive that takes its time for each operation of a kind.
type sluggish struct {
	kind  dataio.OpKind
	takes time.Duration
}

func (s sluggish) Intercept(op dataio.Op, do func() error) error {
	if op.Kind == s.kind {
		<-time.After(s.takes)
	}
	return do()
}

// TestLag: a drive that is a little slower than the others is waited for; one
// that makes a put take twice as long isn't, and the next put avoids it.
func TestLag(t *testing.T) {
	for name, c := range map[string]struct {
		takes  time.Duration // 64 writes
		copies int
	}{
		"a little": {4 * time.Millisecond, 3},
		"much":     {150 * time.Millisecond, 2},
	} {
		for _, bad := range []int{0, 2} {
			t.Run(fmt.Sprint(name, " on n", bad), func(t *testing.T) {
				m := newMesh(t, meshConfig{drives: []int{1, 1, 1},
					drive: func(node int) dataio.Options {
						if node == bad {
							return dataio.Options{Interceptor: sluggish{dataio.OpWrite, c.takes}}
						}
						return dataio.Options{}
					},
					options: func(_ int, o *Options) { o.SegmentBytes = 0 },
				})
				m.bucket("lag")
				data := randomBytes(64 * chunkBytes)
				start := time.Now()
				m.nodes[0].put(t, "lag", "k", data, true)
				if took := time.Since(start); c.copies < 3 && took > 64*c.takes/2 {
					t.Errorf("took %v", took)
				}
				if got := m.wantCopies(t, "lag", "k", data, 2); got != c.copies {
					t.Errorf("%d copies, want %d", got, c.copies)
				}
				if missing := m.nodes[0].recorded.copiesMissing(); missing != 3-c.copies {
					t.Errorf("%d copies are reported missing, want %d", missing, 3-c.copies)
				}
				m.wantFiles(c.copies)
				if c.copies < 3 {
					m.nodes[0].put(t, "lag", "next", data[:testSegment], true)
					m.wantCopies(t, "lag", "next", data[:testSegment], 2, m.nodes[bad].drives...)
				}
			})
		}
	}
}

// TestStraggler: a copy that isn't synced soon after the others is given up and
// noted in the index as one to be made; a put without it takes no longer than
// that.
func TestStraggler(t *testing.T) {
	var faults datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1},
		drive: func(node int) dataio.Options {
			if node == 1 {
				return dataio.Options{Interceptor: &faults}
			}
			return dataio.Options{}
		},
		options: func(_ int, o *Options) { o.CopyGrace = 50 * time.Millisecond },
	})
	m.bucket("straggler")
	n := m.nodes[0]
	want := 0
	for i, size := range []int{GridMaxBytes, testSegment} {
		s := newStall()
		t.Cleanup(s.release)
		faults.Add(datatest.Fault{Op: dataio.OpSync, Wait: s.wait, Done: true})
		key, data := fmt.Sprint(i), randomBytes(size)
		start := time.Now()
		n.put(t, "straggler", key, data, true)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%d bytes took %v", size, took)
		}
		want += m.wantCopies(t, "straggler", key, data, 2, m.nodes[1].drives...)
		a, err := n.ctl.Read(testContext(t), &control.Query{Copies: &control.CopiesQuery{Pending: true}})
		must(t, err)
		if len(a.Copies) != i+1 || !slices.ContainsFunc(a.Copies, func(c control.SegmentCopies) bool { return c.Key == key && len(c.Drives) == 2 }) {
			t.Errorf("%d bytes: to be healed are %+v", size, a.Copies)
		}
		s.release()
		m.wantFiles(want)
		for n.drivesLate() > 0 {
			must(t, pause(testContext(t)))
		}
	}
	if missing := n.recorded.copiesMissing(); missing != 2 {
		t.Errorf("%d copies are reported missing, want 2", missing)
	}
	// It is well again, and used.
	n.put(t, "straggler", "well", randomBytes(1<<19), true)
	m.wantCopies(t, "straggler", "well", randomBytes(1<<19), 3)
}

// drivesLate is on how many drives something is late that puts have given up.
func (n *testNode) drivesLate() int {
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	return len(n.health.late)
}

// TestHedgedCreate: where drives don't answer further ones are asked.
func TestHedgedCreate(t *testing.T) {
	faults := make([]datatest.Faults, 5)
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1, 1, 1},
		drive:   func(node int) dataio.Options { return dataio.Options{Interceptor: &faults[node]} },
		options: func(_ int, o *Options) { o.CopyGrace = 50 * time.Millisecond },
	})
	m.bucket("hedged")
	s := newStall()
	t.Cleanup(s.release)
	var bad []*dataio.Drive
	for _, i := range []int{0, 1, 3} {
		faults[i].Add(datatest.Fault{Op: dataio.OpCreate, Times: -1, Wait: s.wait, Done: true})
		bad = append(bad, m.nodes[i].drives...)
	}
	want := 0
	for i, size := range []int{InlineMaxBytes + 1, 2*testSegment + 5, GridMaxBytes} {
		key, data := fmt.Sprint(i), randomBytes(size)
		m.nodes[i].put(t, "hedged", key, data, i > 0)
		want += m.wantCopies(t, "hedged", key, data, 2, bad...)
	}
	s.release()
	for i := range faults {
		faults[i].Clear()
	}
	m.wantFiles(want)
}

// gate is a part of a body that comes when it is opened.
type gate struct {
	reached chan struct{}
	open    chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Read([]byte) (int, error) {
	g.once.Do(func() { close(g.reached) })
	<-g.open
	return 0, io.EOF
}

// TestNodeKilledDuringPut: a node goes in the middle of an object. With one it
// is acknowledged all the same, on the others, and can be read without any one
// of the nodes; with two of three it is refused, and nothing stays.
func TestNodeKilledDuringPut(t *testing.T) {
	for name, c := range map[string]struct {
		drives []int
		kill   []int
	}{
		"one of three":      {[]int{1, 1, 1}, []int{2}},
		"one of five":       {[]int{1, 1, 1, 1, 1}, []int{3}},
		"two of three":      {[]int{0, 1, 1, 1, 0}, []int{2, 3}},
		"both that have it": {[]int{0, 1, 1}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, meshConfig{drives: c.drives, options: func(_ int, o *Options) { o.WaitTimeout = 300 * time.Millisecond }})
			m.bucket("killed")
			n := m.nodes[0]
			data := randomBytes(4*testSegment + testSegment/2)
			half := 2*testSegment + testSegment/2
			g := newGate()
			done := make(chan error, 1)
			go func() {
				body := io.MultiReader(bytes.NewReader(data[:half]), g, bytes.NewReader(data[half:]))
				_, err := n.Put(testContext(t), PutRequest{Bucket: "killed", Key: "k", SizeBytes: int64(len(data))}, body, nil)
				done <- err
			}()
			<-g.reached
			var gone []string
			for _, i := range c.kill {
				m.nodes[i].stop(t)
				gone = append(gone, m.nodes[i].name)
			}
			close(g.open)
			err := <-done
			drives := 0
			for _, d := range c.drives {
				drives += d
			}
			if alive := drives - len(c.kill); alive < min(3, drives)/2+1 {
				if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.Waiting {
					t.Errorf("%v, want unavailable", err)
				}
				n.wantGone(t, "killed", "k")
				for _, other := range m.nodes {
					if !other.stopped && len(other.drives) > 0 {
						m.wantNoFiles(other)
					}
				}
				n.wantChunksBack(t)
				return
			}
			must(t, err)
			for i, seg := range m.segmentsOf(t, "killed", "k") {
				part := data[i*testSegment:][:seg.SizeBytes]
				whole := 0
				for _, id := range seg.Drives {
					node, _ := n.ctl.Topology().Drive(id)
					if slices.Contains(gone, node.Name) {
						continue
					}
					must(t, wantFile(testContext(t), m.driveByID(id), seg, part))
					whole++
				}
				if whole < 2 {
					t.Errorf("segment %d is on %d of the nodes that are left", i, whole)
				}
			}
			for _, other := range m.nodes {
				if !other.stopped {
					if got := other.get(t, "killed", "k", -1, 0); shaHex(got) != shaHex(data) {
						t.Errorf("%s: other bytes", other.name)
					}
				}
			}
			n.wantChunksBack(t)
		})
	}
}

// wantNoFiles waits until a node's drives have no payload.
func (m *testMesh) wantNoFiles(n *testNode) {
	m.t.Helper()
	for ctx := testContext(m.t); ; {
		files := 0
		for _, d := range n.drives {
			if err := d.Walk(ctx, func(dataio.ID, time.Time) error { files++; return nil }); err != nil {
				m.t.Fatal(err)
			}
		}
		if files == 0 {
			return
		}
		if pause(ctx) != nil {
			m.t.Fatalf("%s has %d files", n.name, files)
		}
	}
}

// chunkCounter is a body that looks at how many chunks are held whenever it is
// read, which is once for each.
type chunkCounter struct {
	n    *testNode
	most int
}

func (c *chunkCounter) Read(p []byte) (int, error) {
	_, held := c.n.recorded.chunksOf()
	c.most = max(c.most, held)
	return len(p), nil
}

// TestPutMemory: a put takes few chunks, however large it is and however far a
// drive is behind, and gives all of them back.
func TestPutMemory(t *testing.T) {
	var faults datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}, drive: func(node int) dataio.Options {
		if node == 0 {
			return dataio.Options{Interceptor: &faults}
		}
		return dataio.Options{}
	}, options: func(_ int, o *Options) { o.CopyGrace = 100 * time.Millisecond }})
	m.bucket("memory")
	n := m.nodes[0]
	const size = 10 * testSegment
	put := func(key string) (most int) {
		t.Helper()
		body := &chunkCounter{n: n}
		_, err := n.Put(testContext(t), PutRequest{Bucket: "memory", Key: key, SizeBytes: size}, io.LimitReader(body, size), nil)
		must(t, err)
		return body.most
	}
	// The longest queue, one being written, one being filled; and the ends of
	// the segments that are being synced.
	limit := copyQueue + 2 + commitsAtOnce*(copyQueue+1)
	if most := put("well"); most > limit {
		t.Errorf("%d chunks of %d KiB, want at most %d", most, chunkBytes>>10, limit)
	} else {
		t.Logf("%d chunks of %d KiB for %d MiB", most, chunkBytes>>10, size>>20)
	}
	n.wantChunksBack(t)
	s := newStall()
	t.Cleanup(s.release)
	faults.Add(datatest.Fault{Op: dataio.OpWrite, Skip: 10, Wait: s.wait, Done: true})
	most := put("stalled")
	_, held := n.recorded.chunksOf()
	t.Logf("%d chunks with a drive stalled, %d still held", most, held)
	if most > limit+1 || held > 1 {
		t.Errorf("%d chunks, want at most %d; %d held, want the one being written", most, limit+1, held)
	}
	s.release()
	n.wantChunksBack(t)
}

// TestQuotaEarly: a put that would exceed its bucket's quota is refused unread.
func TestQuotaEarly(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("quota")
	ctx := testContext(t)
	n := m.nodes[1]
	_, err := n.ctl.Propose(ctx, &control.Command{SetQuota: &control.SetQuota{Bucket: "quota", MaxObjects: 2, MaxBytes: 2 * testSegment}})
	must(t, err)
	n.put(t, "quota", "a", randomBytes(testSegment), true)
	for _, size := range []int64{testSegment + 1, 10 * testSegment, GridMaxBytes * 5} {
		_, err := n.Put(ctx, PutRequest{Bucket: "quota", Key: "b", SizeBytes: size}, unread{t}, nil)
		if fault.KindOf(err) != fault.QuotaExceeded {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	files := len(m.files())
	_, err = n.Put(ctx, PutRequest{Bucket: "quota", Key: "b", SizeBytes: -1}, bytes.NewReader(randomBytes(2*testSegment)), nil)
	if fault.KindOf(err) != fault.QuotaExceeded {
		t.Errorf("unknown size: %v", err)
	}
	m.wantFiles(files)
	n.put(t, "quota", "a", randomBytes(testSegment/2), true) // a smaller one in its place
	n.put(t, "quota", "b", []byte("the second"), true)
	_, err = n.Put(ctx, PutRequest{Bucket: "quota", Key: "c", SizeBytes: InlineMaxBytes + 1}, unread{t}, nil)
	if fault.KindOf(err) != fault.QuotaExceeded {
		t.Errorf("a third object: %v", err)
	}
	// One that is in its record alone may begin by what is known here.
	_, err = n.Put(ctx, PutRequest{Bucket: "quota", Key: "c", SizeBytes: 5}, bytes.NewReader([]byte("third")), nil)
	if fault.KindOf(err) != fault.QuotaExceeded {
		t.Errorf("a third object, inline: %v", err)
	}
	_, err = n.Copy(ctx, CopyRequest{SrcBucket: "quota", SrcKey: "b", Bucket: "quota", Key: "c"})
	if fault.KindOf(err) != fault.QuotaExceeded {
		t.Errorf("a copy: %v", err)
	}
}

// TestRandomFaults puts from many clients through all nodes, while random
// drives fail and stall and come back, at most two of five at a time. What is
// acknowledged is on a majority of drives, whole, and in the end nothing else
// is there but what a drive could not remove.
func TestRandomFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	faults := make([]datatest.Faults, 5)
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1, 1, 1},
		drive:   func(node int) dataio.Options { return dataio.Options{Interceptor: &faults[node]} },
		options: func(_ int, o *Options) { o.CopyGrace = 30 * time.Millisecond },
	})
	m.bucket("random")
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	type object struct {
		key  string
		data []byte
	}
	var (
		mu     sync.Mutex // guards stored and failed
		stored []object
		failed int
	)
	var clients, meddler sync.WaitGroup
	meddler.Go(func() { meddle(ctx, t, rand.New(rand.NewPCG(seed, 0)), faults) })
	for i := range 6 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i+1)))
			for j := range 15 {
				size := []int{InlineMaxBytes + 1, 100_000, GridMaxBytes + 1, testSegment + 1}[r.IntN(4)] + r.IntN(1000)
				o := object{fmt.Sprintf("%d-%d", i, j), randomBytes(size)}
				req := PutRequest{Bucket: "random", Key: o.key, SizeBytes: -1}
				if r.IntN(2) == 0 {
					req.SizeBytes = int64(size)
				}
				_, err := m.nodes[r.IntN(5)].Put(testContext(t), req, bytes.NewReader(o.data), nil)
				mu.Lock()
				switch kind := fault.KindOf(err); {
				case err == nil:
					stored = append(stored, o)
				case kind == fault.Unavailable, kind == fault.NoSpace, kind == fault.Waiting:
					failed++
				default:
					t.Errorf("%s: %v", o.key, err)
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	cancel()
	meddler.Wait()
	t.Logf("%d stored, %d refused", len(stored), failed)
	if len(stored) < 45 {
		t.Errorf("only %d of 90 puts were acknowledged", len(stored))
	}
	named := make(map[string]bool) // files that a record tells of, or could
	want := 0
	for _, o := range stored {
		want += m.wantCopies(t, "random", o.key, o.data, 2)
		for _, seg := range m.segmentsOf(t, "random", o.key) {
			named[dataio.ID(seg.ID).String()] = true
		}
	}
	left := 0
	for _, n := range m.nodes {
		n.wantChunksBack(t)
		for n.drivesLate() > 0 {
			must(t, pause(testContext(t)))
		}
		left += n.recorded.leftBehind()
	}
	// A copy that was synced just when it was given up is whole, and stays until
	// it is healed or collected; what a failed put couldn't remove is reported.
	for ctx := testContext(t); ; {
		strangers, files := 0, m.files()
		for _, f := range files {
			if !named[filepath.Base(f)] {
				strangers++
			}
		}
		if strangers <= left && len(files)-strangers <= want+want/10 {
			t.Logf("%d files more than the records tell of, %d of them of puts that failed", len(files)-want, strangers)
			return
		}
		if pause(ctx) != nil {
			t.Fatalf("%d files and %d of puts that failed, want %d and %d", len(files)-strangers, strangers, want, left)
		}
	}
}

// meddle makes a random drive fail for a while, over and over.
func meddle(ctx context.Context, t *testing.T, r *rand.Rand, faults []datatest.Faults) {
	suspects := 0
	for ctx.Err() == nil {
		f := &faults[r.IntN(len(faults))]
		s := newStall()
		switch kind := []dataio.OpKind{dataio.OpCreate, dataio.OpWrite, dataio.OpSync, dataio.OpSyncDir}[r.IntN(4)]; r.IntN(4) {
		case 0:
			f.Add(datatest.Fault{Op: dataio.OpWrite, Skip: r.IntN(10), Times: 3, Err: syscall.ENOSPC})
		case 1:
			if suspects++; suspects <= 2 { // for good
				f.Add(datatest.Fault{Op: dataio.OpSync, Skip: r.IntN(3), Err: syscall.EIO})
			}
		default:
			f.Add(datatest.Fault{Op: kind, Skip: r.IntN(5), Times: -1, Wait: s.wait, Done: true})
		}
		for range r.IntN(8) {
			if err := pause(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		f.Clear()
		s.release()
	}
}
