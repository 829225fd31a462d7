package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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

// copyOf is the item that has a segment copied.
func copyOf(seg control.Segment, from ...string) CopyItem {
	return CopyItem{ID: seg.ID, SizeBytes: seg.SizeBytes, CRC32C: seg.CRC32C, From: from}
}

// onOne makes a mesh with one copy of each segment, on n0, and drives that can
// be made to fail; and puts objects of these sizes.
func onOne(t *testing.T, sizes ...int) (*testMesh, []*datatest.Faults, *watched, []control.Segment) {
	faults := []*datatest.Faults{{}, {}, {}}
	w := &watched{}
	m := newMesh(t, meshConfig{
		drives:  []int{1, 1, 1},
		options: func(_ int, o *Options) { w.options(o) },
		drive:   func(node int) dataio.Options { return dataio.Options{Interceptor: faults[node]} },
	})
	var segments []control.Segment
	for _, size := range sizes {
		id := dataio.NewID()
		written, err := m.nodes[0].writeOwn(testContext(t), m.nodes[0].drives[0], id, randomBytes(size))
		must(t, err)
		segments = append(segments, control.Segment{ID: id, SizeBytes: int64(size), CRC32C: written.CRC32C, Drives: []string{m.nodes[0].drives[0].ID()}})
	}
	return m, faults, w, segments
}

// wantCopies checks that a drive has copies of segments, whole.
func wantCopies(t *testing.T, d *dataio.Drive, segments ...control.Segment) {
	t.Helper()
	for _, seg := range segments {
		f, err := d.Open(testContext(t), seg.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := io.ReadAll(f.Verified(testContext(t), 0, -1))
		if err != nil || !bytes.Equal(got, randomBytes(int(seg.SizeBytes))) || f.CRC32C() != seg.CRC32C {
			t.Errorf("%d of %d bytes, CRC32C %08x, %v", len(got), seg.SizeBytes, f.CRC32C(), err)
		}
		f.Close()
	}
}

// TestCopyTo: payload of every size is copied to drives here and elsewhere, asked
// from here and elsewhere, more of it than one call takes, and again.
func TestCopyTo(t *testing.T) {
	sizes := []int{1, InlineMaxBytes, GridMaxBytes, GridMaxBytes + 1, 3<<20 + 7}
	for len(sizes) < copyMax+3 {
		sizes = append(sizes, 100+len(sizes))
	}
	m, faults, _, segments := onOne(t, sizes...)
	var items []CopyItem
	for _, seg := range segments {
		items = append(items, copyOf(seg, "unknown", m.nodes[2].drives[0].ID(), seg.Drives[0]))
	}
	for i, asker := range []*testNode{m.nodes[2], m.nodes[1]} {
		errs, err := asker.CopyTo(testContext(t), m.nodes[1].drives[0].ID(), items)
		if err = errors.Join(append(errs, err)...); err != nil || len(errs) != len(items) {
			t.Fatalf("%d results, %v", len(errs), err)
		}
		wantCopies(t, m.nodes[1].drives[0], segments...)
		syncs := 0
		for _, op := range faults[1].Ops() {
			if op.Kind == dataio.OpSync {
				syncs++
			}
		}
		if syncs != len(items) {
			t.Errorf("time %d: %d copies were synced, want %d", i, syncs, len(items))
		}
	}
	m.wantFiles(2 * len(items))
	if errs, err := m.nodes[0].CopyTo(testContext(t), m.nodes[1].drives[0].ID(), nil); err != nil || len(errs) > 0 {
		t.Errorf("nothing: %v, %v", errs, err)
	}
	if _, err := m.nodes[0].CopyTo(testContext(t), "unknown", items); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("to an unknown drive: %v", err)
	}
}

// TestCopyFails: what can't be copied leaves nothing, or what there was, and
// doesn't touch the others of its call.
func TestCopyFails(t *testing.T) {
	m, faults, _, segments := onOne(t, 1000, GridMaxBytes, 2<<20, 1000)
	to := m.nodes[1].drives[0]
	from := m.nodes[0].drives[0].ID()
	items := make([]CopyItem, len(segments))
	for i, seg := range segments {
		items[i] = copyOf(seg, from)
	}
	try := func(what string, kinds ...fault.Kind) {
		t.Helper()
		errs, err := m.nodes[2].CopyTo(testContext(t), to.ID(), items)
		if err != nil || len(errs) != len(kinds) {
			t.Fatalf("%s: %v, %v", what, errs, err)
		}
		good := 0
		for i, err := range errs {
			if kinds[i] == 0 {
				good++
				if err != nil {
					t.Errorf("%s: %d: %v", what, i, err)
					continue
				}
				wantCopies(t, to, segments[i])
			} else if fault.KindOf(err) != kinds[i] {
				t.Errorf("%s: %d: %v, want %v", what, i, err, kinds[i])
			}
		}
		m.wantFiles(len(segments) + good)
		for _, seg := range segments {
			if err := to.Remove(testContext(t), seg.ID); err != nil && !errors.Is(err, dataio.ErrNotFound) {
				t.Error(err)
			}
		}
	}
	items[1].CRC32C++
	try("another checksum", 0, fault.Corrupted, 0, 0)
	items[1].CRC32C--
	items[2].SizeBytes++
	try("another size", 0, 0, fault.Corrupted, 0)
	items[2].SizeBytes--
	items[0].ID = dataio.NewID()
	try("nowhere", fault.Corrupted, 0, 0, 0)
	items[0].ID = segments[0].ID
	items[3].SizeBytes, items[0].SizeBytes = 0, SegmentMaxBytes+1
	try("no size", fault.Unavailable, 0, 0, fault.Unavailable)
	items[3].SizeBytes, items[0].SizeBytes = 1000, 1000
	items[2].From = nil
	try("from nowhere", 0, 0, fault.Corrupted, 0)
	items[2].From = []string{from}
	var back []func()
	for _, seg := range segments[1:3] {
		back = append(back, flip(t, m.payloadFile(t, payloadRef{from, seg.ID}), seg.SizeBytes-1))
	}
	try("flipped bits", 0, fault.Corrupted, fault.Corrupted, 0)
	for _, f := range back {
		f()
	}
	for _, op := range []dataio.OpKind{dataio.OpCreate, dataio.OpWrite} {
		faults[1].Add(datatest.Fault{Op: op, Times: -1, Err: syscall.ENOSPC})
		try("full", fault.NoSpace, fault.NoSpace, fault.NoSpace, fault.NoSpace)
		faults[1].Clear()
	}
	faults[1].Add(datatest.Fault{Op: dataio.OpSync, Times: -1, Err: syscall.EIO})
	try("not durable", fault.Unavailable, fault.Unavailable, fault.Unavailable, fault.Unavailable)
	faults[1].Clear()
}

// TestCopyReplaces: a bad copy is replaced in its place, from the first that is
// good, and stays as it was where none is.
func TestCopyReplaces(t *testing.T) {
	m, _, _, segments := onOne(t, 1000, GridMaxBytes+1, 3<<20)
	ctx := testContext(t)
	a, b, c := m.nodes[0].drives[0], m.nodes[1].drives[0], m.nodes[2].drives[0]
	for _, seg := range segments {
		for _, d := range []*dataio.Drive{b, c} {
			errs, err := m.nodes[0].CopyTo(ctx, d.ID(), []CopyItem{copyOf(seg, a.ID())})
			must(t, errors.Join(append(errs, err)...))
		}
		for name, replace := range map[string]bool{"replaced": true, "found to be bad": false} {
			backA := flip(t, m.payloadFile(t, payloadRef{a.ID(), seg.ID}), seg.SizeBytes/2)
			flip(t, m.payloadFile(t, payloadRef{b.ID(), seg.ID}), 0)
			item := copyOf(seg, a.ID(), c.ID())
			item.Replace = replace
			errs, err := m.nodes[2].CopyTo(ctx, b.ID(), []CopyItem{item})
			if err := errors.Join(append(errs, err)...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			wantCopies(t, b, seg)
			backA()
		}
		// Without a good one.
		damaged := flip(t, m.payloadFile(t, payloadRef{a.ID(), seg.ID}), 1)
		item := copyOf(seg, a.ID())
		item.Replace = true
		errs, err := m.nodes[2].CopyTo(ctx, b.ID(), []CopyItem{item})
		if err != nil || fault.KindOf(errs[0]) != fault.Corrupted {
			t.Errorf("%v, %v", errs, err)
		}
		damaged()
		wantCopies(t, b, seg)
	}
	m.wantFiles(3 * len(segments))
}

// TestCopyEnds: the end of a copy's caller leaves no file, and a removal ends it.
func TestCopyEnds(t *testing.T) {
	m, faults, _, segments := onOne(t, 2<<20)
	to := m.nodes[1].drives[0]
	ref := payloadRef{to.ID(), segments[0].ID}
	for _, name := range []string{"caller", "removal"} {
		t.Run(name, func(t *testing.T) {
			held := make(chan struct{})
			faults[1].Add(datatest.Fault{Op: dataio.OpSync, Wait: held, Done: true})
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			done := make(chan error, 1)
			go func() {
				errs, err := m.nodes[1].CopyTo(ctx, to.ID(), []CopyItem{copyOf(segments[0], segments[0].Drives...)})
				done <- errors.Join(append(errs, err)...)
			}()
			syncing := func() bool {
				return slices.ContainsFunc(faults[1].Ops(), func(op dataio.Op) bool { return op.Kind == dataio.OpSync })
			}
			for !syncing() {
				must(t, pause(ctx))
			}
			ended := make(chan struct{})
			if name == "caller" {
				cancel()
				close(ended)
			} else {
				// The removal waits for the copy, which waits for the drive.
				asked := m.nodes[1].askedToEnd(ref)
				go func() {
					defer close(ended)
					if err := m.nodes[2].removeAt(testContext(t), "n1", []payloadRef{ref}); err != nil {
						t.Error(err)
					}
				}()
				<-asked
			}
			close(held)
			if err := <-done; err == nil {
				t.Error("copied")
			}
			<-ended
			m.wantFiles(1)
		})
	}
}

// askedToEnd returns a channel that is closed when the writing of a payload,
// which is under way, is asked to end.
func (n *testNode) askedToEnd(ref payloadRef) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	in, asked := n.incoming[ref], make(chan struct{})
	cancel := in.cancel
	in.cancel = sync.OnceFunc(func() { cancel(); close(asked) })
	return asked
}

// TestCheck: what is wrong with a copy is said of it, and nothing of the others.
func TestCheck(t *testing.T) {
	m, faults, w, segments := onOne(t, 1000, 2<<20, GridMaxBytes, 3<<20, 5000, 6000, 7000)
	d := m.nodes[0].drives[0]
	items := make([]CheckItem, len(segments))
	for i, seg := range segments {
		items[i] = CheckItem{seg.ID, seg.SizeBytes, seg.CRC32C}
	}
	path := func(i int) string { return m.payloadFile(t, payloadRef{d.ID(), segments[i].ID}) }
	must(t, os.Remove(path(0)))
	flip(t, path(1), 2<<20-1)
	must(t, os.Truncate(path(2), 1000))
	items[4].SizeBytes++
	items[5].CRC32C++
	faults[0].Add(datatest.Fault{Op: dataio.OpRead, Name: "payload/*/" + dataio.ID(segments[6].ID).String(), Times: -1, Err: syscall.EIO})
	for _, n := range []*testNode{m.nodes[0], m.nodes[1]} {
		for _, verify := range []bool{false, true} {
			bad, err := n.Check(testContext(t), d.ID(), items, verify, 0)
			must(t, err)
			got := map[int]string{}
			for _, b := range bad {
				got[b.Index] = b.Reason
				if b.Detail == "" {
					t.Errorf("%+v says nothing", b)
				}
			}
			want := map[int]string{0: badMissing, 1: badCorrupted, 2: badCorrupted, 4: badSize, 5: badCorrupted, 6: badUnreadable}
			if !verify {
				delete(want, 1)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, verify %v: %v, want %v", n.name, verify, got, want)
			}
		}
	}
	if _, bad := w.take(); len(bad) > 0 {
		t.Errorf("who asked was told once more: %v", bad)
	}
	// More than one call takes.
	many := make([]CheckItem, 2*checkMax+1)
	for i := range many {
		many[i] = items[3]
	}
	many[2*checkMax] = items[0]
	bad, err := m.nodes[2].Check(testContext(t), d.ID(), many, false, 0)
	if err != nil || len(bad) != 1 || bad[0].Index != 2*checkMax {
		t.Errorf("%v, %v", bad, err)
	}
	if _, err := m.nodes[1].Check(testContext(t), "unknown", items, false, 0); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("an unknown drive: %v", err)
	}
	if _, err := m.nodes[0].serveCheck(testContext(t), &checkRequest{Drive: "other"}); fault.KindOf(err) != fault.Waiting {
		t.Errorf("a drive that isn't here: %v", err)
	}
}

// TestCheckRate: verifying keeps to its rate, and its end is the caller's.
func TestCheckRate(t *testing.T) {
	m, _, _, segments := onOne(t, 4<<20)
	item := CheckItem{segments[0].ID, segments[0].SizeBytes, segments[0].CRC32C}
	began := time.Now()
	bad, err := m.nodes[1].Check(testContext(t), segments[0].Drives[0], []CheckItem{item}, true, 4<<20)
	if err != nil || len(bad) > 0 || time.Since(began) < 700*time.Millisecond {
		t.Errorf("%v, %v, in %v", bad, err, time.Since(began))
	}
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	if _, err := m.nodes[1].Check(ctx, segments[0].Drives[0], []CheckItem{item}, true, 1<<10); err == nil {
		t.Error("4 MiB were read at 1 KiB/s at once")
	}
}
