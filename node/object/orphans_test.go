package object

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// leave puts a file on a drive that no record will know.
func leave(t *testing.T, d *dataio.Drive, data []byte) dataio.ID {
	t.Helper()
	id := dataio.NewID()
	w, err := d.Create(testContext(t), id, int64(len(data)))
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	_, err = w.Commit(testContext(t))
	must(t, err)
	return id
}

// cutOff puts a file on a drive as a crash leaves it, without a footer.
func cutOff(t *testing.T, d *dataio.Drive, data []byte) dataio.ID {
	t.Helper()
	id := dataio.NewID()
	dir := filepath.Join(d.Path(), "payload", id.String()[:2])
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, id.String()), data, 0o600))
	return id
}

func exists(d *dataio.Drive, id dataio.ID) bool {
	_, err := os.Stat(filepath.Join(d.Path(), "payload", id.String()[:2], id.String()))
	return err == nil
}

// TestOrphans: what no record knows goes, whole or cut off, once it has been
// there for long enough, and nothing else.
func TestOrphans(t *testing.T) {
	var mu sync.Mutex
	collected := 0
	var bytes int64
	m := newMesh(t, meshConfig{options: func(_ int, o *Options) {
		o.OrphanAge = 300 * time.Millisecond
		o.Hooks.Orphans = func(files int, n int64) {
			mu.Lock()
			defer mu.Unlock()
			collected, bytes = collected+files, bytes+n
		}
	}})
	m.bucket("orphans")
	data := randomBytes(testSegment)
	m.nodes[0].put(t, "orphans", "kept", data, true)
	kept := len(m.files())
	for _, d := range m.drives() {
		leave(t, d, data[:1000])
		cutOff(t, d, data[:500])
	}
	m.wantFiles(kept + 12)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, n := range m.nodes {
		wg.Go(func() { n.orphanLoop(ctx) })
	}
	m.wantFiles(kept)
	cancel()
	wg.Wait()
	if collected != 12 || bytes != 6*1000 {
		t.Errorf("%d files of %d bytes are reported, want 12 of 6000", collected, bytes)
	}
	m.nodes[1].get(t, "orphans", "kept", -1, 0)
}

// TestOrphanTooYoung: a file stays for OrphanAge after it was seen first, while it
// is written, and after it was made anew by a copy.
func TestOrphanTooYoung(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1}, options: func(_ int, o *Options) { o.OrphanAge = time.Hour }})
	n, d := m.nodes[0], m.nodes[0].drives[0]
	ctx := testContext(t)
	id := leave(t, d, randomBytes(1000))
	ref := payloadRef{d.ID(), id}
	must(t, n.findStrays(ctx, d))
	first, seen := n.strays.since(ref)
	if !seen {
		t.Fatal("it wasn't seen")
	}
	must(t, n.findStrays(ctx, d))
	if again, _ := n.strays.since(ref); again != first {
		t.Error("its first sighting moved")
	}
	must(t, n.collect(ctx, d))
	must(t, n.collectSome(ctx, d, []payloadRef{ref}))
	if !exists(d, id) {
		t.Fatal("it was removed at once")
	}
	age := func() { // it was seen two hours ago
		n.strays.forget(ref)
		n.strays.add(ref, first-2*time.Hour.Nanoseconds())
	}
	age()
	_, end, err := n.receive(ctx, ref)
	must(t, err)
	must(t, n.collect(ctx, d))
	if end(); !exists(d, id) {
		t.Fatal("it was removed while it was being written")
	}
	// A copy of it is made while the collector is about to remove it.
	due := n.strays.of(d.ID(), first)
	f, err := d.Open(ctx, id)
	must(t, err)
	item := CopyItem{ID: id, SizeBytes: f.SizeBytes(), CRC32C: f.CRC32C(), From: []string{d.ID()}}
	must(t, f.Close())
	errs, err := n.CopyTo(ctx, d.ID(), []CopyItem{item})
	must(t, errors.Join(append(errs, err)...))
	must(t, n.collectSome(ctx, d, due))
	if !exists(d, id) {
		t.Fatal("it was removed after a copy was made of it")
	}
	age()
	must(t, n.collect(ctx, d))
	if exists(d, id) {
		t.Error("it is still there")
	}
}

// TestOrphanCommitted: a file that a record names by the time it would go stays.
func TestOrphanCommitted(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1}, options: func(_ int, o *Options) { o.Replicas = 1 }})
	m.bucket("committed")
	m.nodes[0].put(t, "committed", "k", randomBytes(GridMaxBytes+1), true)
	ctx := testContext(t)
	a, err := m.nodes[0].ctl.Read(ctx, &control.Query{Copies: &control.CopiesQuery{}})
	must(t, err)
	seg := a.Copies[0]
	to := m.nodes[0]
	if seg.Drives[0] == to.drives[0].ID() {
		to = m.nodes[1]
	}
	d := to.drives[0]
	ref := payloadRef{d.ID(), seg.ID}
	errs, err := m.nodes[0].CopyTo(ctx, d.ID(), []CopyItem{{ID: seg.ID, SizeBytes: seg.SizeBytes, CRC32C: seg.CRC32C, From: seg.Drives}})
	must(t, errors.Join(append(errs, err)...))
	must(t, to.findStrays(ctx, d))
	if _, seen := to.strays.since(ref); !seen {
		t.Fatal("a copy that no record lists yet wasn't seen")
	}
	res, err := m.nodes[0].ctl.Propose(ctx, &control.Command{Recopy: &control.Recopy{
		Birth: a.LogTime, Entries: []control.CopyChange{{ID: seg.ID, Add: []string{d.ID()}}},
	}})
	must(t, err)
	if res.Fates[0] != control.FateDone {
		t.Fatalf("fate %v", res.Fates[0])
	}
	to.strays.forget(ref)
	to.strays.add(ref, 1)
	must(t, to.collect(ctx, d))
	if _, seen := to.strays.since(ref); seen || !exists(d, seg.ID) {
		t.Error("a copy that its record lists was taken for an orphan")
	}
	// Taken away again, it is garbage: not an orphan, but reclaimed.
	_, err = m.nodes[0].ctl.Propose(ctx, &control.Command{Recopy: &control.Recopy{
		Entries: []control.CopyChange{{ID: seg.ID, Remove: []string{d.ID()}}},
	}})
	must(t, err)
	must(t, to.findStrays(ctx, d))
	if _, seen := to.strays.since(ref); seen {
		t.Error("garbage was taken for an orphan")
	}
	to.o.ReclaimGrace = time.Nanosecond
	for exists(d, seg.ID) {
		must(t, to.reclaim(ctx, d))
		if pause(ctx) != nil {
			t.Fatal("the copy that was taken away isn't reclaimed")
		}
	}
	m.nodes[0].get(t, "committed", "k", -1, 0)
	if err := d.Remove(ctx, seg.ID); !errors.Is(err, dataio.ErrNotFound) {
		t.Errorf("removing it once more: %v", err)
	}
}
