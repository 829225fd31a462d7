package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// TestBytes: what is in the record is given where it is, is counted, and can't be
// appended to; a range that isn't there, and bytes that aren't the ones written,
// are refused.
func TestBytes(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	n := m.nodes[0]
	m.bucket("bytes")
	data := randomBytes(InlineMaxBytes)
	n.put(t, "bytes", "k", data, true)
	r, err := n.Open(testContext(t), "bytes", "k", Conditions{}, 0)
	if err != nil || !r.AtHand() {
		t.Fatalf("at hand %v, %v", err == nil && r.AtHand(), err)
	}
	n.recorded.take()
	got, err := r.Bytes(10, 1000)
	if err != nil || !bytes.Equal(got, data[10:1010]) || cap(got) != 1000 {
		t.Errorf("got %d bytes with room for %d, %v", len(got), cap(got), err)
	}
	if paths := n.recorded.take(); len(paths) != 1 || paths[PathInline] != 1000 {
		t.Errorf("counted %v", paths)
	}
	for _, c := range [][2]int64{{-1, 1}, {0, -1}, {1, InlineMaxBytes}, {InlineMaxBytes + 1, 0}} {
		_, err := r.Bytes(c[0], c[1])
		wantFault(t, err, fault.RangeInvalid, "range")
	}
	damaged := *r.record
	damaged.Inline = bytes.Clone(data)
	damaged.Inline[5000] ^= 1
	r.record, r.Verify = &damaged, true
	_, err = r.Bytes(0, 10)
	wantFault(t, err, fault.Corrupted, "object")
	if paths := n.recorded.take(); len(paths) != 0 {
		t.Errorf("refusals counted as %v", paths)
	}
}

// plainWriter hides ReadFrom.
type plainWriter struct{ io.Writer }

// copying has ReadFrom, and says that it isn't the kernel's.
type copying struct{ *net.TCPConn }

func (copying) InKernel() bool { return false }

// TestRanges: every range that begins or ends near a boundary, through every
// node.
func TestRanges(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("ranges")
	for _, size := range []int{1, InlineMaxBytes, GridMaxBytes + 9, 3*testSegment + GridMaxBytes + 5} {
		data := randomBytes(size)
		key := fmt.Sprint(size)
		m.nodes[0].put(t, "ranges", key, data, true)
		var edges []int64
		for _, at := range []int{0, 1, GridMaxBytes, testSegment - 1, testSegment, testSegment + 1, 2 * testSegment, size - 1, size} {
			if at <= size {
				edges = append(edges, int64(at))
			}
		}
		for i, off := range edges {
			for j, end := range edges {
				if end < off {
					continue
				}
				n := m.nodes[(i+j)%3]
				if got := n.get(t, "ranges", key, off, end-off); !bytes.Equal(got, data[off:end]) {
					t.Fatalf("%d bytes, %d-%d through %s: other bytes", size, off, end, n.name)
				}
			}
		}
		r, err := m.nodes[1].Open(testContext(t), "ranges", key, Conditions{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		for _, bad := range [][2]int64{{-1, 1}, {0, int64(size) + 1}, {int64(size) + 1, 0}, {int64(size), 1}, {1, 1<<63 - 1}, {int64(size) + 1, -1}} {
			sent, err := r.Send(testContext(t), &buf, bad[0], bad[1], dataio.Windows{})
			if fault.KindOf(err) != fault.RangeInvalid || sent != 0 || buf.Len() != 0 {
				t.Errorf("%d bytes, range %v: %d sent, %v", size, bad, sent, err)
			}
		}
		// The same reader again, into something without ReadFrom.
		for range 2 {
			buf.Reset()
			if _, err := r.Send(testContext(t), plainWriter{&buf}, 0, -1, dataio.Windows{}); err != nil || !bytes.Equal(buf.Bytes(), data) {
				t.Errorf("%d bytes, plain: %v", size, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestConcurrentRanges: 64 readers of one object don't disturb each other.
func TestConcurrentRanges(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("many")
	data := randomBytes(testSegment + 77)
	m.nodes[0].put(t, "many", "k", data, true)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 2 {
				off := r.IntN(len(data))
				end := off + r.IntN(len(data)-off+1)
				got, err := m.nodes[i%3].read(testContext(t), "many", "k", int64(off), int64(end-off))
				if err != nil || !bytes.Equal(got, data[off:end]) {
					t.Errorf("%d-%d: %v", off, end, err)
				}
			}
		})
	}
	wg.Wait()
}

// onlyOn makes a mesh whose payload is all on one node.
func onlyOn(t *testing.T, node int, c meshConfig) *testMesh {
	c.drives = []int{0, 0, 0}
	c.drives[node] = 1
	return newMesh(t, c)
}

// TestPaths: what is handed to the kernel, what goes over the grid, and what
// the windows' callbacks see.
func TestPaths(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("paths")
	inline, small, large := randomBytes(100), randomBytes(GridMaxBytes), randomBytes(2*testSegment)
	m.nodes[0].put(t, "paths", "inline", inline, true)
	m.nodes[0].put(t, "paths", "small", small, true)
	m.nodes[0].put(t, "paths", "large", large, true)
	for _, c := range []struct {
		node int
		key  string
		data []byte
		path Path
	}{
		{0, "inline", inline, PathInline}, {1, "inline", inline, PathInline},
		{0, "small", small, PathGrid}, {1, "small", small, PathSendfile},
		{0, "large", large, PathSplice}, {1, "large", large, PathSendfile},
	} {
		t.Run(fmt.Sprintf("%s from n%d", c.key, c.node), func(t *testing.T) {
			n := m.nodes[c.node]
			r, err := n.Open(testContext(t), "paths", c.key, Conditions{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"a connection", "no ReadFrom", "ReadFrom that copies"} {
				local, remote := pair(t)
				n.recorded.take()
				got := make(chan []byte)
				go func() {
					b, _ := io.ReadAll(remote)
					got <- b
				}()
				var w io.Writer = local
				want := c.path
				switch kind {
				case "no ReadFrom":
					w = plainWriter{local}
				case "ReadFrom that copies":
					w = copying{local}
				}
				if w != io.Writer(local) {
					if want == PathSendfile || want == PathSplice {
						want = PathCopy
					}
				}
				var before, after int
				var first, sum int64
				sent, err := r.Send(testContext(t), w, 0, -1, dataio.Windows{
					Before: func() error { before++; return nil },
					After: func(n int64) {
						if after == 0 {
							first = n
						}
						after++
						sum += n
					},
				})
				local.Close()
				if b := <-got; err != nil || sent != int64(len(c.data)) || !bytes.Equal(b, c.data) {
					t.Fatalf("%d of %d bytes, %v", sent, len(c.data), err)
				}
				paths := n.recorded.take()
				if len(paths) != 1 || paths[want] != int64(len(c.data)) {
					t.Errorf("%s: sent %v, want all by %v", kind, paths, want)
				}
				if before != after || sum != sent || first != min(sent, dataio.FirstWindowBytes) {
					t.Errorf("%d before, %d after, the first of %d bytes", before, after, first)
				}
			}
		})
	}
	stop := errors.New("enough")
	for _, key := range []string{"inline", "small", "large"} {
		r, err := m.nodes[0].Open(testContext(t), "paths", key, Conditions{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := r.Send(testContext(t), io.Discard, 0, -1, dataio.Windows{Before: func() error { return stop }})
		if sent != 0 || !errors.Is(err, stop) {
			t.Errorf("%s: %d, %v", key, sent, err)
		}
	}
}

// TestConditionsOnRead: they reach the record.
func TestConditionsOnRead(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0}})
	m.bucket("conditions")
	info := m.nodes[0].put(t, "conditions", "k", []byte("abc"), true)
	for _, n := range m.nodes {
		_, err := n.Open(testContext(t), "conditions", "k", Conditions{IfNoneMatch: []string{info.ETag}}, 0)
		wantFault(t, err, fault.NotModified, "object")
		if about := InfoOf(err); about == nil || about.ETag != info.ETag {
			t.Errorf("a 304 about %+v", about)
		}
		_, err = n.Stat(testContext(t), "conditions", "k", Conditions{IfMatch: []string{"x"}}, 0)
		wantFault(t, err, fault.PreconditionFailed, "if_match")
		// What isn't there isn't there, whatever the conditions are.
		_, err = n.Open(testContext(t), "conditions", "none", Conditions{IfMatch: []string{"x"}}, 0)
		if fault.KindOf(err) != fault.ObjectNotFound {
			t.Error(err)
		}
		_, err = n.Open(testContext(t), "nowhere", "k", Conditions{}, 0)
		if fault.KindOf(err) != fault.BucketNotFound {
			t.Error(err)
		}
	}
}

// TestNodeDown: what is on a node that is away can't be read, and says so;
// what is elsewhere can; new payload goes elsewhere.
func TestNodeDown(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}, options: func(_ int, o *Options) { o.WaitTimeout, o.Replicas = 100*time.Millisecond, 1 }})
	m.bucket("down")
	gone := m.nodes[2]
	where, held := map[string]string{}, false
	for i := 0; i < 12 || !held && i < 100; i++ { // where they go is chance
		key := fmt.Sprint(i)
		m.nodes[0].put(t, "down", key, randomBytes(InlineMaxBytes+1+i%12*50000), true)
		where[key] = m.drivesOf(t, "down", key)[0]
		held = held || where[key] == gone.drives[0].ID()
	}
	m.nodes[0].put(t, "down", "first", randomBytes(3*testSegment), true)
	gone.stop(t)
	lost := 0
	for key, drive := range where {
		for _, n := range m.nodes[:2] {
			got, err := n.read(testContext(t), "down", key, -1, 0)
			if drive != gone.drives[0].ID() {
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
				continue
			}
			lost++
			kind := fault.KindOf(err)
			if kind != fault.Waiting && kind != fault.Unavailable || len(got) != 0 ||
				!strings.Contains(err.Error(), gone.name) || !strings.Contains(err.Error(), drive) {
				t.Errorf("%s: %v, want a word on %s and %s", key, err, gone.name, drive)
			}
		}
	}
	if lost == 0 {
		t.Error("nothing was on the node that went away")
	}
	for i, size := range boundaries {
		data := randomBytes(size)
		key := fmt.Sprint("after", i)
		m.nodes[i%2].put(t, "down", key, data, i%3 == 0)
		if got := m.nodes[(i+1)%2].get(t, "down", key, -1, 0); !bytes.Equal(got, data) {
			t.Errorf("%s: other bytes", key)
		}
	}
}

// drivesOf returns the drives of an object's segments.
func (m *testMesh) drivesOf(t *testing.T, bucket, key string) []string {
	t.Helper()
	a, err := m.nodes[0].ctl.Read(testContext(t), &control.Query{Record: &control.RecordQuery{Bucket: bucket, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	var drives []string
	for _, s := range a.Record.Segments {
		drives = append(drives, s.Drives...)
	}
	return drives
}

// TestLateDrive: a request waits for a drive that comes up while it does.
func TestLateDrive(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("late")
	data := randomBytes(GridMaxBytes + 1)
	m.nodes[0].put(t, "late", "large", data, true)
	m.nodes[0].put(t, "late", "small", data[:GridMaxBytes], true)
	owner := m.nodes[1]
	d := owner.drives[0]
	owner.mu.Lock()
	delete(owner.Service.drives, d.ID())
	owner.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range m.nodes {
		for _, key := range []string{"small", "large"} {
			wg.Go(func() {
				got, err := n.read(testContext(t), "late", key, -1, 0)
				if err != nil || !bytes.Equal(got, data[:len(got)]) || len(got) < GridMaxBytes {
					t.Errorf("%s of %s: %v", key, n.name, err)
				}
			})
		}
	}
	// All six wait at the owner before the drive comes.
	ctx := testContext(t)
	for waiting := 0; waiting < 6; {
		owner.waits.mu.Lock()
		waiting = owner.waits.waiting["drive "+d.ID()]
		owner.waits.mu.Unlock()
		if pause(ctx) != nil {
			t.Fatalf("%d requests wait, want 6", waiting)
		}
	}
	owner.AddDrive(d)
	wg.Wait()
}

// forget has a node refuse another, for good: in the first moments of a mesh the
// index adds all of its nodes to the grid once more.
func forget(t *testing.T, n, other *testNode) {
	t.Helper()
	ctx := testContext(t)
	for since := time.Now(); time.Since(since) < 1200*time.Millisecond; must(t, pause(ctx)) {
		if n.grid.RemoveHost(other.url) == nil || connected(other.o.Conn(n.name)) {
			since = time.Now()
		}
	}
}

// TestLateNode: requests wait for a node that is away, and are served when it
// is back.
func TestLateNode(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("late")
	asker, owner := m.nodes[0], m.nodes[1]
	data := randomBytes(GridMaxBytes + 1)
	asker.put(t, "late", "large", data, true)
	asker.put(t, "late", "small", data[:GridMaxBytes], true)
	ctx := testContext(t)
	forget(t, owner, asker)
	var wg sync.WaitGroup
	for _, key := range []string{"small", "large"} {
		wg.Go(func() {
			got, err := asker.read(testContext(t), "late", key, -1, 0)
			if err != nil || !bytes.Equal(got, data[:len(got)]) || len(got) < GridMaxBytes {
				t.Errorf("%s: %v", key, err)
			}
		})
	}
	wg.Go(func() {
		_, err := asker.Put(testContext(t), PutRequest{Bucket: "late", Key: "new", SizeBytes: int64(len(data))}, bytes.NewReader(data), nil)
		if err != nil {
			t.Errorf("put: %v", err)
		}
	})
	for readers, writers := 0, 0; readers < 2 || writers < 1; {
		asker.waits.mu.Lock()
		readers, writers = asker.waits.waiting["node "+owner.name], asker.waits.waiting["new payload in pool default"]
		asker.waits.mu.Unlock()
		if pause(ctx) != nil {
			t.Fatalf("%d readers and %d writers wait, want 2 and 1", readers, writers)
		}
	}
	must(t, owner.grid.AddHost(asker.url))
	wg.Wait()
	if got := owner.get(t, "late", "new", -1, 0); !bytes.Equal(got, data) {
		t.Error("other bytes")
	}
}

// TestLaterSegmentAway: a request that finds a later segment's node away waits
// for it once, not once more after the prefetch did.
func TestLaterSegmentAway(t *testing.T) {
	var lines countLines
	m := newMesh(t, meshConfig{drives: []int{0, 1, 1}, options: func(node int, o *Options) {
		if o.WaitTimeout, o.Replicas = 500*time.Millisecond, 1; node == 0 {
			o.Log = lines.logger()
		}
	}})
	m.bucket("away")
	asker, owner := m.nodes[0], m.nodes[2]
	data := randomBytes(testSegment + GridMaxBytes + 1)
	ctx := testContext(t)
	var parts []part
	var reader *Reader
	for i := 0; parts == nil; i++ {
		key := fmt.Sprint(i)
		asker.put(t, "away", key, data, true)
		r, err := asker.Open(ctx, "away", key, Conditions{}, 0)
		must(t, err)
		seg := r.record.Segments
		if seg[0].Drives[0] != owner.drives[0].ID() && seg[1].Drives[0] == owner.drives[0].ID() {
			reader, parts = r, r.parts(0, int64(len(data)))
		}
	}
	forget(t, owner, asker)
	var buf bytes.Buffer
	sent, err := newSending(asker.Service, &buf, dataio.Windows{}).parts(ctx, parts, reader)
	if fault.KindOf(err) != fault.Waiting || sent != testSegment || !bytes.Equal(buf.Bytes(), data[:testSegment]) {
		t.Errorf("%d bytes, %v", sent, err)
	}
	if n := lines.count(); n != 2 {
		t.Errorf("%d lines, want one for the beginning of the wait and one for its end", n)
	}
}

// TestPrefetchAgain: which failures of a prefetch are worth another attempt.
func TestPrefetchAgain(t *testing.T) {
	s := &Service{o: Options{WaitTimeout: time.Minute}}
	waiting, overloaded := fault.New(fault.Waiting, "x", "y"), fault.New(fault.Overloaded, "x", "y")
	now := time.Now()
	for _, c := range []struct {
		err   error
		ended time.Time
		again bool
	}{
		{waiting, now, false}, {overloaded, now, true}, {waiting, now.Add(-time.Hour), true},
	} {
		if got := s.again(&prefetch{err: c.err, ended: c.ended}); got != c.again {
			t.Errorf("%v %v ago: %v", c.err, now.Sub(c.ended), got)
		}
	}
}
