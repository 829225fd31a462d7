package dataio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openIdle opens the payload, and fails unless it holds content.
func openIdle(t *testing.T, d *Drive, id ID, content []byte) *File {
	t.Helper()
	f, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	section, err := f.Section(0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(section); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d bytes (%v), not the %d there are", len(got), err, len(content))
	}
	return f
}

// TestOpenAgain: what was closed is opened again without the file system, two at
// a time have files of their own, and each reads from where its section begins.
func TestOpenAgain(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	d, id := idleDrive(t, content)
	first := openIdle(t, d, id, content)
	second := openIdle(t, d, id, content)
	if first.f == second.f {
		t.Fatal("two that are open share a file")
	}
	kept := map[*os.File]bool{first.f: true, second.f: true}
	for range 2 { // the second does nothing
		first.Close()
		second.Close()
	}
	if d.idle.count != 2 {
		t.Fatalf("%d files are kept, want 2", d.idle.count)
	}
	if _, err := first.Section(0, -1); !errors.Is(err, ErrOffline) {
		t.Errorf("a section of a closed file: %v", err)
	}
	third, fourth, fifth := openIdle(t, d, id, content), openIdle(t, d, id, content), openIdle(t, d, id, content)
	if !kept[third.f] || !kept[fourth.f] || third.f == fourth.f || kept[fifth.f] {
		t.Error("they are not those that were kept, and a new one")
	}
	if now := d.OpenNow(id); now == nil {
		t.Error("nothing is opened of what is in memory")
	} else {
		now.Close()
	}
	if none := d.OpenNow(NewID()); none != nil {
		t.Error("a payload that isn't there is opened")
	}
	for _, f := range []*File{third, fourth, fifth} {
		f.Close()
	}
	d.idle.expire(time.Now().Add(idleFor))
	if d.idle.count != 0 || len(d.idle.files) != 0 || d.idle.newest != nil || d.idle.oldest != nil {
		t.Errorf("%d files are kept for too long", d.idle.count)
	}
}

// TestIdleFilesOfWhatIsGone: a payload that was removed, replaced or changed
// behind the drive's back is never given from what was kept, nor is what was
// open meanwhile.
func TestIdleFilesOfWhatIsGone(t *testing.T) {
	old, next := bytes.Repeat([]byte("old"), 100), bytes.Repeat([]byte("new"), 100)
	path := func(d *Drive, id ID) string { return filepath.Join(d.path, payloadName, below(id)) }
	absent := func(t *testing.T, d *Drive, id ID, kind error) {
		t.Helper()
		if _, err := d.Open(t.Context(), id); !errors.Is(err, kind) {
			t.Errorf("open: %v, want %v", err, kind)
		}
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, d *Drive, id ID)
		then   func(t *testing.T, d *Drive, id ID)
	}{
		{"removed", func(t *testing.T, d *Drive, id ID) {
			if err := d.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if d.idle.count != 0 {
				t.Error("a removed payload still takes its space")
			}
		}, func(t *testing.T, d *Drive, id ID) { absent(t, d, id, ErrNotFound) }},
		{"replaced", func(t *testing.T, d *Drive, id ID) {
			w, err := d.CreateReplacement(t.Context(), id, int64(len(next)))
			commitIdle(t, w, err, next)
			if d.idle.count != 0 {
				t.Error("a replaced payload still takes its space")
			}
		}, func(t *testing.T, d *Drive, id ID) { openIdle(t, d, id, next).Close() }},
		{"unlinked by somebody", func(t *testing.T, d *Drive, id ID) {
			if err := os.Remove(path(d, id)); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, d *Drive, id ID) { absent(t, d, id, ErrNotFound) }},
		{"cut off by somebody", func(t *testing.T, d *Drive, id ID) {
			if err := os.Truncate(path(d, id), 10); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, d *Drive, id ID) { absent(t, d, id, ErrCorrupted) }},
		{"stalled", func(t *testing.T, d *Drive, id ID) {
			d.mark(true, errors.New("a test"))
		}, func(t *testing.T, d *Drive, id ID) { absent(t, d, id, ErrOffline) }},
		{"closed", func(t *testing.T, d *Drive, id ID) {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}, func(t *testing.T, d *Drive, id ID) { absent(t, d, id, ErrOffline) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, id := idleDrive(t, old)
			used, kept := openIdle(t, d, id, old), openIdle(t, d, id, old)
			kept.Close()
			for _, f := range []*File{used, kept} { // they are looked at again after stillFor
				f.looked = f.looked.Add(-stillFor)
			}
			c.change(t, d, id)
			c.then(t, d, id)
			used.Close()
			c.then(t, d, id)
			if d.State() != Offline {
				return
			}
			if _, err := used.f.Stat(); c.name == "closed" && !errors.Is(err, os.ErrClosed) {
				t.Errorf("a file of a closed drive is still open: %v", err)
			}
		})
	}
}

// TestStill: what was seen of an open file counts for stillFor and not for longer,
// and only for who sends it.
func TestStill(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	d, id := idleDrive(t, content)
	f := openIdle(t, d, id, content)
	if !f.InMemory(0, 1000) || f.memory.latest.at.IsZero() {
		t.Fatal("what was just read isn't in memory")
	}
	if !f.memory.has(0, 1000, time.Now()) || !f.memory.has(10, 900, time.Now()) || f.memory.has(0, 1001, time.Now()) {
		t.Error("another range is known than was asked for")
	}
	if f.memory.latest.at = f.memory.latest.at.Add(-stillFor); f.memory.has(0, 1000, time.Now()) {
		t.Error("it is known for longer")
	}
	f.Close()
	looked := f.looked
	again := d.OpenNow(id)
	if again == nil || again.opened != f.opened || again.looked != looked {
		t.Fatal("a file is looked at for each use")
	}
	again.Close()
	again.looked = again.looked.Add(-stillFor)
	if third := d.OpenNow(id); third == nil || third.opened != f.opened || !third.looked.After(looked) {
		t.Fatal("a file isn't looked at again")
	} else {
		third.Close()
	}
	// Who asks what is on the drive is told, however short it is since somebody looked.
	if err := os.Remove(filepath.Join(d.path, payloadName, below(id))); err != nil {
		t.Fatal(err)
	}
	if gone, err := d.Open(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("a payload that is gone is opened: %v", err)
		gone.Close()
	}
}

// TestRead: windows whose pages were read are known together, while the kernel has all
// of them, and for ten seconds from the first of them on.
func TestRead(t *testing.T) {
	const window = 128 << 10
	content := bytes.Repeat([]byte("0123456789abcdef"), 2*window/16)
	d, id := idleDrive(t, content)
	f := openIdle(t, d, id, content)
	defer f.Close()
	if !cached(f.f, 0, 1) {
		t.Skip("the kernel has no cachestat")
	}
	for off := int64(0); off < 2*window; off += window {
		if !f.InMemory(off, window) {
			t.Fatal("what was just read isn't in memory")
		}
	}
	m := &f.memory
	first := m.read.at
	if !m.hasRead(0, 2*window, time.Now()) || m.hasRead(0, 2*window+1, time.Now()) || m.latest.off != window {
		t.Fatalf("known: %+v, the latest %+v", m.read, m.latest)
	}
	m.latest.at = time.Time{}
	if !f.InMemory(10, window) || m.latest.at.IsZero() || m.read.at != first {
		t.Error("a part of it is not known, or known for longer than from the first look on")
	}
	if !cached(f.f, 0, 2*window) || !cached(f.f, 4095, 2) || !cached(f.f, 2*window-1, 1) || cached(f.f, 0, 3*window) {
		t.Error("the kernel says otherwise what it has")
	}
	// It has dropped some pages: each is looked at again.
	evictIdle(t, f.f)
	m.latest.at = time.Time{}
	if f.InMemory(0, 2*window) || !m.latest.at.IsZero() {
		t.Error("what the kernel has dropped is in memory")
	}
	m.read.at = first.Add(-readFor)
	if m.hasRead(0, window, time.Now()) {
		t.Error("it is known for longer than ten seconds")
	}
	m.found(window, window, true, time.Now())
	if m.hasRead(0, window, time.Now()) || !m.hasRead(window, window, time.Now()) {
		t.Errorf("after that: %+v", m.read)
	}
	m.found(5*window, window, true, time.Now())
	if m.hasRead(window, window, time.Now()) || m.hasRead(window, 5*window, time.Now()) || !m.hasRead(5*window, window, time.Now()) {
		t.Errorf("after a gap: %+v", m.read)
	}
}

// evictIdle has the kernel drop a file's pages, as soon as nobody is busy with them.
func evictIdle(t *testing.T, f *os.File) {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	if s.Type == unix.TMPFS_MAGIC {
		t.Skip("a tmpfs has its files in memory alone: set TMPDIR to a directory on a disk")
	}
	for range 1000 {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if !cached(f, 0, 1) {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("the kernel keeps the pages")
}

// TestIdleFilesHaveABound: of one payload, and of all.
func TestIdleFilesHaveABound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var i idle
	defer i.close()
	keep := func(id ID) bool {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		o := &opened{f: f, id: id}
		kept := i.keep(o)
		if !kept {
			o.close()
		}
		return kept
	}
	one := NewID()
	for n := range 2 * idleOfOne {
		if kept := keep(one); kept != (n < idleOfOne) {
			t.Fatalf("file %d of one payload: kept %v", n, kept)
		}
	}
	for range idleMost {
		if !keep(NewID()) {
			t.Fatal("a file isn't kept for which an older one could go")
		}
	}
	if len(i.files[one]) != 0 || i.count != idleMost || len(i.files) != idleMost {
		t.Errorf("%d files are kept, want %d; %d of the oldest", i.count, idleMost, len(i.files[one]))
	}
	i.close()
	if keep(one) || i.count != 0 {
		t.Error("something is kept after close")
	}
}

// TestFileThatFailedIsNotKept: its next user would have the same trouble.
func TestFileThatFailedIsNotKept(t *testing.T) {
	content := make([]byte, 200<<10)
	d, id := idleDrive(t, content)
	f := openIdle(t, d, id, content)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Prefetch(ctx, 0, -1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.Close()
	if d.idle.count != 1 {
		t.Error("a file is not kept that nothing happened to")
	}
	f = openIdle(t, d, id, content)
	if err := os.Truncate(filepath.Join(d.path, payloadName, below(id)), 10); err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context(), 0, -1); err == nil {
		t.Fatal("a file that was cut off is whole")
	}
	f.Close()
	if d.idle.count != 0 {
		t.Error("a file is kept that could not be read")
	}
}
