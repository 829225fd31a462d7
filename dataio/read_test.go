package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

func TestRanges(t *testing.T) {
	d := open(t, t.TempDir(), options())
	content := random(3<<20+17, 4)
	f, err := d.Open(t.Context(), put(t, d, content))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(len(content))
	for _, r := range []struct{ off, n int64 }{
		{0, size}, {0, -1}, {0, 0}, {size, 0}, {size, -1}, {5, 100}, {1<<20 - 1, 2}, {2 << 20, -1}, {size - 1, 1},
	} {
		want := content[r.off:]
		if r.n >= 0 {
			want = want[:r.n]
		}
		section, err := f.Section(r.off, r.n)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(section); !bytes.Equal(got, want) || err != nil {
			t.Errorf("section %+v reads %d other bytes (%v)", r, len(got), err)
		}
		if err := f.Verify(t.Context(), r.off, r.n); err != nil {
			t.Errorf("verify %+v: %v", r, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{
		{-1, 1}, {-1, -1}, {0, size + 1}, {size, 1}, {size + 1, 0}, {size + 1, -1}, {1, 1<<63 - 1}, {1<<63 - 1, 1},
	} {
		_, err := f.Section(r.off, r.n)
		if err == nil || f.Verify(t.Context(), r.off, r.n) == nil {
			t.Errorf("%+v was accepted", r)
		}
		wantErr(t, err, f.ID().String(), dataio.ErrRange)
	}
	const near = 5000 // the end
	if err := iotest.TestReader(io.NewSectionReader(f, size-near, near), content[size-near:]); err != nil {
		t.Error(err)
	}
	if n, err := f.ReadAt(make([]byte, near+1), size-near); n != near || err != io.EOF {
		t.Errorf("ReadAt beyond the end: %d bytes, %v", n, err)
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); !errors.Is(err, dataio.ErrRange) {
		t.Errorf("ReadAt -1: %v", err)
	}
}

func TestFilesDoNotShareAPosition(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := put(t, d, []byte("0123456789"))
	var sections []io.Reader
	for off := range int64(2) {
		f, err := d.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		section, err := f.Section(off, 4)
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, section)
	}
	var got []byte
	for range 4 {
		for _, s := range sections {
			b := make([]byte, 1)
			if _, err := io.ReadFull(s, b); err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
	}
	if string(got) != "01122334" {
		t.Errorf("two files read alternately give %q", got)
	}
}

func TestVerifyFindsTheMiB(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := put(t, d, random(3<<20+100, 5))
	file, err := os.OpenFile(filepath.Join(d.Path(), "payload", id.String()[:2], id.String()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at := int64(1<<20 + 4711)
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	f, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range []struct {
		off, n int64
		ok     bool
	}{{0, -1, false}, {0, 1 << 20, true}, {0, 1<<20 + 1, false}, {2 << 20, -1, true}, {at, 0, true}} {
		err := f.Verify(t.Context(), r.off, r.n)
		if (err == nil) != r.ok {
			t.Errorf("verify %+v: %v", r, err)
		}
		if !r.ok {
			wantErr(t, err, "MiB 1 ", dataio.ErrCorrupted)
			wantErr(t, err, id.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Verify(ctx, 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("verify in a context that has ended: %v", err)
	}
}

func TestFailingReads(t *testing.T) {
	d, faults := faulty(t)
	id := put(t, d, random(100, 6))
	f, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	faults.Add(datatest.Fault{Op: dataio.OpOpen, Err: syscall.EIO})
	faults.Add(datatest.Fault{Op: dataio.OpRead, Err: syscall.EIO, Times: 3})
	_, openErr := d.Open(t.Context(), id)
	_, footerErr := d.Open(t.Context(), id)
	_, readErr := f.ReadAt(make([]byte, 10), 0)
	for _, err := range []error{openErr, footerErr, readErr, f.Verify(t.Context(), 0, -1)} {
		wantErr(t, err, id.String(), syscall.EIO)
		if err == nil || errors.Is(err, dataio.ErrNotFound) || errors.Is(err, dataio.ErrCorrupted) {
			t.Errorf("a failed read is %v", err)
		}
	}
	if d.Errors() != 4 || d.State() != dataio.Online {
		t.Errorf("%d errors, state %v", d.Errors(), d.State())
	}
	if _, err := get(t, d, id); err != nil {
		t.Error(err)
	}
}

func TestWalk(t *testing.T) {
	d, faults := faulty(t)
	faults.Add(datatest.Fault{Op: dataio.OpSync, Times: -1}) // for speed
	faults.Add(datatest.Fault{Op: dataio.OpSyncDir, Times: -1})
	var want []dataio.ID
	for i := range 700 { // more than a batch in one directory
		id := dataio.ID{0: 0xcc, 1: byte(i), 2: byte(i >> 8)}
		if err := write(t.Context(), d, id, nil, 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	want = append(want, put(t, d, nil))
	// What isn't ours is neither seen nor in the way.
	stranger := dataio.ID{0xdd}.String()
	for _, name := range []string{"notes.txt", "cc/notes.txt", "cc/" + stranger, "xx"} {
		if err := os.WriteFile(filepath.Join(d.Path(), "payload", filepath.FromSlash(name)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(want, func(a, b dataio.ID) int { return strings.Compare(a.String(), b.String()) })
	if got := payloads(t, d); !slices.Equal(got, want) {
		t.Errorf("Walk sees %d payloads, want %d", len(got), len(want))
	}
	stop := errors.New("stop")
	calls := 0
	err := d.Walk(t.Context(), func(_ dataio.ID, modified time.Time) error {
		if since := time.Since(modified); since < -time.Minute || since > time.Hour {
			t.Errorf("written %v ago", since)
		}
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Walk went on %d times after an error: %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Walk(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Walk in a context that has ended: %v", err)
	}
	faults.Add(datatest.Fault{Op: dataio.OpList, Name: "payload/cc", Err: syscall.EIO})
	err = d.Walk(t.Context(), func(dataio.ID, time.Time) error { return nil })
	if err == nil {
		t.Error("Walk hides a directory that can't be read")
	}
	wantErr(t, err, d.Path(), syscall.EIO)
}
