//go:build real

//real:needs

package dataio_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/dataio"
)

// TestFullFileSystem fills a file system of 1 MiB to its last block: what the
// kernel says then, not what a Fault says, must leave nothing behind.
func TestFullFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The mount is seen by this thread alone, and goes with it.
		runtime.LockOSThread()
		fillTmpfs(t)
	}()
	<-done
}

func fillTmpfs(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("gridloom", dir, "tmpfs", 0, "size=1m"))
	if err != nil {
		t.Errorf("mount a file system of 1 MiB: %v", err)
		return
	}
	d, err := dataio.Open(t.Context(), dir, options())
	if err != nil {
		t.Error(err)
		return
	}
	defer d.Close()

	// Known sizes are refused before a byte is written.
	kept := dataio.NewID()
	if err := write(t.Context(), d, kept, random(600_000, 1), 600_000); err != nil {
		t.Error(err)
	}
	_, err = d.Create(t.Context(), dataio.NewID(), 600_000)
	expect(t, err, dataio.ErrNoSpace)

	// An unknown size is refused when it comes to it; by the kernel, if others
	// have taken what was claimed.
	for _, others := range []bool{false, true} {
		w, err := d.Create(t.Context(), dataio.NewID(), -1)
		if err != nil {
			t.Error(err)
			return
		}
		if others {
			if err := fill(filepath.Join(dir, "others")); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("the file system isn't full: %v", err)
			}
		}
		_, err = io.Copy(w, zeros{})
		expect(t, err, dataio.ErrNoSpace)
		if errors.Is(err, unix.ENOSPC) != others {
			t.Errorf("refused by the kernel, want %t: %v", others, err)
		}
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}
	expect(t, write(t.Context(), d, dataio.NewID(), nil, 0), dataio.ErrNoSpace, dataio.ErrReadOnly)
	if d.State() != dataio.ReadOnly {
		t.Errorf("a full drive is %v", d.State())
	}
	if left := files(t, d); len(left) != 1 {
		t.Errorf("left behind: %q", left)
	}

	// It reads and removes, and takes payloads again.
	if got, err := get(t, d, kept); len(got) != 600_000 || err != nil {
		t.Errorf("%d bytes came back (%v)", len(got), err)
	}
	if err := errors.Join(d.Remove(t.Context(), kept), os.Remove(filepath.Join(dir, "others"))); err != nil {
		t.Error(err)
	}
	if err := write(t.Context(), d, dataio.NewID(), random(600_000, 2), 600_000); err != nil {
		t.Errorf("the drive has space again, but: %v", err)
	}
}

// fill writes a file until the file system is full.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, zeros{})
	return errors.Join(err, f.Close())
}

// expect fails the test unless err is all of the kinds.
func expect(t *testing.T, err error, kinds ...error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	}
	wantErr(t, err, "", kinds...)
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
