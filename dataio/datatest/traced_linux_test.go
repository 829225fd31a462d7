//go:build amd64 || arm64

package datatest_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestTraced compares the trace with what the child is known to do, in several
// threads, with errors among it.
func TestTraced(t *testing.T) {
	t.Run("name with (brackets) [and] more/so", func(t *testing.T) {
		const threads, writes, bytes = 4, 50, 100
		var dir string
		trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
			dir := l.Hear()
			l.Say("I have " + dir)
			var wg sync.WaitGroup
			for i := range threads {
				wg.Go(func() {
					f, err := os.Create(filepath.Join(dir, string(rune('a'+i))))
					if err != nil {
						t.Error(err)
						return
					}
					defer f.Close()
					for range writes {
						if _, err := f.Write(make([]byte, bytes)); err != nil {
							t.Error(err)
						}
					}
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if _, err := unix.Write(-1, []byte("x")); err != unix.EBADF {
				t.Errorf("writing to nothing: %v", err)
			}
			l.Wait()
		}, func(t *testing.T, l *datatest.Link) {
			dir = t.TempDir()
			l.Say(dir)
			if got := l.Hear(); got != "I have "+dir {
				t.Errorf("the child said %q", got)
			}
		})
		ours := func(c datatest.Call) bool { return filepath.Dir(c.Out) == dir }
		if n := len(trace.Select(ours, "write")); n != threads*writes {
			t.Errorf("%d writes were seen, want %d", n, threads*writes)
		}
		if n := trace.Bytes(ours, "write", "fsync"); n != threads*writes*bytes {
			t.Errorf("%d bytes were seen, want %d", n, threads*writes*bytes)
		}
		if n := len(trace.Select(ours, "fsync")); n != threads {
			t.Errorf("%d syncs were seen, want %d", n, threads)
		}
		failed := trace.Select(func(c datatest.Call) bool { return c.Err != nil && c.Out == "" }, "write")
		if len(failed) != 1 || !errors.Is(failed[0].Err, unix.EBADF) || int32(failed[0].Args[0]) != -1 || failed[0].Args[2] != 1 {
			t.Errorf("of one failed write %+v was seen", failed)
		}
	})
}
