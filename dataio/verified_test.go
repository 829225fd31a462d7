package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

func TestVerified(t *testing.T) {
	d := open(t, t.TempDir(), options())
	const mib = 1 << 20
	content := random(9*mib+4711, 1)
	size := int64(len(content))
	f, err := d.Open(t.Context(), put(t, d, content))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range []struct{ off, n int64 }{
		{0, -1}, {0, 0}, {size, -1}, {0, 1}, {size - 1, 1}, {mib - 1, 2}, {mib, mib}, {5, 7*mib + 3}, {8 * mib, -1},
	} {
		want := content[r.off:]
		if r.n >= 0 {
			want = want[:r.n]
		}
		if err := iotest.TestReader(f.Verified(t.Context(), r.off, r.n), want); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {0, size + 1}, {size + 1, -1}} {
		_, err := io.ReadAll(f.Verified(t.Context(), r.off, r.n))
		if err == nil {
			t.Errorf("%+v was accepted", r)
		}
		wantErr(t, err, f.ID().String(), dataio.ErrRange)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader := f.Verified(ctx, 0, -1)
	if _, err := io.ReadFull(reader, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, reader); !errors.Is(err, context.Canceled) || n >= mib {
		t.Errorf("%d bytes were read after the end of the context: %v", n, err)
	}
}

// TestVerifiedGivesNoBadByte flips a bit in each part of a payload in turn.
func TestVerifiedGivesNoBadByte(t *testing.T) {
	d := open(t, t.TempDir(), options())
	const mib = 1 << 20
	content := random(3*mib+100, 1)
	id := put(t, d, content)
	for _, at := range []int64{0, mib - 1, mib, 2*mib + 5, 3*mib + 99} {
		flip(t, payloadPath(d, id), at)
		f, err := d.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, 10, mib, 2 * mib} {
			got, err := io.ReadAll(f.Verified(t.Context(), off, -1))
			bad := at / mib * mib
			if off >= bad+mib { // behind what is bad
				if err != nil || !bytes.Equal(got, content[off:]) {
					t.Errorf("bit at %d, from %d: %d bytes (%v)", at, off, len(got), err)
				}
				continue
			}
			if err == nil || !bytes.Equal(got, content[off:max(off, bad)]) {
				t.Errorf("bit at %d, from %d: %d bytes were given (%v), want those before %d", at, off, len(got), err, bad)
			}
			wantErr(t, err, id.String(), dataio.ErrCorrupted)
		}
		f.Close()
		flip(t, payloadPath(d, id), at)
	}
}

// flip flips a bit of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestVerifiedFails(t *testing.T) {
	d, faults := faulty(t)
	f, err := d.Open(t.Context(), put(t, d, random(2<<20, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for skip := range 4 {
		faults.Clear()
		faults.Add(datatest.Fault{Op: dataio.OpRead, Skip: skip, Err: syscall.EIO})
		n, err := io.Copy(io.Discard, f.Verified(t.Context(), 0, -1))
		if err == nil || n%(1<<20) != 0 {
			t.Errorf("read %d fails: %d bytes were given (%v)", skip, n, err)
		}
		wantErr(t, err, f.ID().String(), syscall.EIO)
	}
}
