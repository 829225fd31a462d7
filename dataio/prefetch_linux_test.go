//go:build amd64 || arm64

package dataio_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// watch is a context that knows whether somebody may have waited for it.
type watch struct {
	context.Context
	waited bool
}

func (w *watch) Done() <-chan struct{} {
	w.waited = true
	return w.Context.Done()
}

// never tries until a call doesn't wait, for which a goroutine would be needed.
// A kernel short of memory may have dropped some page between two tries.
func never(t *testing.T, call func(ctx context.Context) error) {
	t.Helper()
	for range tries {
		w := &watch{Context: t.Context()}
		if err := call(w); err != nil {
			t.Fatal(err)
		}
		if !w.waited {
			return
		}
	}
	t.Errorf("something waits, for which a goroutine was started, in %d tries", tries)
}

const tries = 100

// evict has the kernel drop a file's pages.
func evict(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	if s.Type == unix.TMPFS_MAGIC {
		t.Skip("a tmpfs has its files in memory alone: set TMPDIR to a directory on a disk")
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// inMemory counts the pages of a file that are. Reading with RWF_NOWAIT would
// begin to read those that aren't, and a fast disk has them before the answer.
func inMemory(t *testing.T, path string, bytes int) (pages int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, bytes, unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mapped); err != nil {
			t.Error(err)
		}
	}()
	states := make([]byte, (bytes+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(mapped))), uintptr(bytes),
		uintptr(unsafe.Pointer(unsafe.SliceData(states))))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, s := range states {
		pages += int(s & 1)
	}
	return pages
}

// TestPrefetchReads has the kernel drop the pages of a payload: Prefetch and
// what comes before must find out, and have them in memory again.
func TestPrefetchReads(t *testing.T) {
	d := open(t, t.TempDir(), options())
	const size = 8 << 20
	for _, c := range []struct{ off, n int64 }{{0, size}, {1 << 20, 4 << 20}, {3<<20 + 5, 4096}, {3 << 20, 64 << 10}} {
		id := put(t, d, random(size, 1))
		path := payloadPath(d, id)
		f, err := d.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// All is in memory from having been written.
		never(t, func(ctx context.Context) error { return f.Prefetch(ctx, c.off, c.n) })
		for try := 1; ; try++ { // the kernel keeps those that somebody is busy with
			evict(t, path)
			pages := inMemory(t, path, size)
			if pages == 0 {
				break
			}
			if try == 10*tries {
				t.Fatalf("the kernel keeps %d pages", pages)
			}
			runtime.Gosched()
		}
		w := &watch{Context: t.Context()}
		// A few bytes it tries to read, and a fast disk has them.
		if err := f.Prefetch(w, c.off, c.n); err != nil || !w.waited && c.n > 16<<10 {
			t.Errorf("%+v: nothing is in memory, and Prefetch says %v at once", c, err)
		}
		never(t, func(ctx context.Context) error { return f.Prefetch(ctx, c.off, c.n) })
		read := func() bool { return int64(inMemory(t, path, size)*os.Getpagesize()) >= c.n }
		for try := 1; !read(); try++ {
			if try == tries {
				t.Fatalf("%+v: %d pages are in memory", c, inMemory(t, path, size))
			}
			if err := f.Prefetch(t.Context(), c.off, c.n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOpenWaitsOnlyForTheDisk opens a payload that is in memory without a
// goroutine, and one whose footer isn't with one.
func TestOpenWaitsOnlyForTheDisk(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := put(t, d, random(1<<20, 1))
	never(t, func(ctx context.Context) error {
		f, err := d.Open(ctx, id)
		if err == nil {
			f.Close()
		}
		return err
	})
	evict(t, payloadPath(d, id))
	f, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestPrefetchCalls counts what the kernel is asked for bytes in memory. It
// tries again where some weren't.
func TestPrefetchCalls(t *testing.T) {
	var wrong []string
	for range 5 {
		if wrong = prefetchCalls(t); len(wrong) == 0 {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

// TestPrefetchColdCalls has the drive read a payload, of which only a byte of each
// page at most comes into the process.
func TestPrefetchColdCalls(t *testing.T) {
	trace, payload := traceOfPrefetch(t, true)
	const most = prefetched/4096 + footerRead
	if n := trace.Bytes(payload, "mmap", "read", "pread64", "preadv2"); n > most {
		t.Errorf("%d bytes were read, want %d at most", n, most)
	}
	if len(trace.Select(nil, "fadvise64")) == 0 {
		t.Error("nothing had to be read")
	}
}

// footerRead is what is read of a file to have its footer.
const footerRead = 512

// prefetched is the size of what traceOfPrefetch has in memory in the end.
const prefetched = 16 << 20

// traceOfPrefetch traces Prefetch of a payload, window by window, and says which
// calls are about that.
func traceOfPrefetch(t *testing.T, cold bool) (trace *datatest.Trace, payload func(datatest.Call) bool) {
	var dir string
	trace = datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		id, err := dataio.ParseID(l.Hear())
		if err != nil {
			t.Fatal(err)
		}
		d := open(t, l.Hear(), options())
		f, err := d.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for off := int64(0); off < prefetched; off += dataio.NextWindowBytes {
			if err := f.Prefetch(t.Context(), off, dataio.NextWindowBytes); err != nil {
				t.Error(err)
			}
		}
		l.Wait()
	}, func(t *testing.T, l *datatest.Link) {
		dir = t.TempDir()
		d, err := dataio.Open(t.Context(), dir, options())
		if err != nil {
			t.Fatal(err)
		}
		id := put(t, d, random(prefetched, 1))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if cold {
			evict(t, payloadPath(d, id))
		}
		l.Say(id.String())
		l.Say(dir)
	})
	t.Logf("system calls:\n%s", trace)
	return trace, func(c datatest.Call) bool { return strings.HasPrefix(c.In, dir+"/payload/") }
}

func prefetchCalls(t *testing.T) (wrong []string) {
	trace, payload := traceOfPrefetch(t, false)
	for name, want := range map[string]int{"mincore": prefetched / dataio.NextWindowBytes, "openat2": 1, "fadvise64": 0} {
		if n := len(trace.Select(nil, name)); n != want {
			wrong = append(wrong, fmt.Sprintf("%d calls of %s, want %d", n, name, want))
		}
	}
	if n := len(trace.Select(payload, "mmap")); n != 1 {
		wrong = append(wrong, fmt.Sprintf("the file was mapped %d times", n))
	}
	if n := trace.Bytes(payload, "mmap", "read", "pread64", "preadv2"); n > footerRead {
		wrong = append(wrong, fmt.Sprintf("%d bytes were read, more than a footer", n))
	}
	return wrong
}
