package dataio_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

func TestPrefetchRanges(t *testing.T) {
	d := open(t, t.TempDir(), options())
	const size = 5<<20 + 4711
	f, err := d.Open(t.Context(), put(t, d, random(size, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range []struct{ off, n int64 }{
		{0, 0}, {size, 0}, {0, 1}, {size - 1, 1}, {0, -1}, {4095, 2}, {1 << 20, 4 << 20}, {1, 16 << 10}, {1, 64 << 10}, {size, -1},
	} {
		if err := f.Prefetch(t.Context(), r.off, r.n); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {0, size + 1}, {size, 1}, {size + 1, -1}} {
		if err := f.Prefetch(t.Context(), r.off, r.n); !errors.Is(err, dataio.ErrRange) {
			t.Errorf("%+v was accepted: %v", r, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Prefetch(ctx, 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("in a context that has ended: %v", err)
	}
	if err := os.Truncate(payloadPath(d, f.ID()), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Prefetch(t.Context(), 0, -1); !errors.Is(err, dataio.ErrCorrupted) {
		t.Errorf("a file that was cut off is prefetched: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Prefetch(t.Context(), 0, 1<<20); err == nil {
		t.Error("a closed file is prefetched")
	}
}

// payloadPath is where a payload's file is.
func payloadPath(d *dataio.Drive, id dataio.ID) string {
	return filepath.Join(d.Path(), "payload", id.String()[:2], id.String())
}

// TestStalledRead has the drive hang in a read: whoever can wait no longer goes
// on, and the read ends by itself.
func TestStalledRead(t *testing.T) {
	for _, c := range []struct {
		name string
		op   dataio.OpKind
		call func(ctx context.Context, d *dataio.Drive, f *dataio.File) error
	}{
		{"prefetch", dataio.OpRead, func(ctx context.Context, _ *dataio.Drive, f *dataio.File) error {
			return f.Prefetch(ctx, 0, -1)
		}},
		{"verified", dataio.OpRead, func(ctx context.Context, _ *dataio.Drive, f *dataio.File) error {
			_, err := io.Copy(io.Discard, f.Verified(ctx, 0, -1))
			return err
		}},
		{"open", dataio.OpOpen, func(ctx context.Context, d *dataio.Drive, f *dataio.File) error {
			f, err := d.Open(ctx, f.ID())
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"footer", dataio.OpRead, func(ctx context.Context, d *dataio.Drive, f *dataio.File) error {
			f, err := d.Open(ctx, f.ID())
			if err == nil {
				f.Close()
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, faults := faulty(t)
				f, err := d.Open(t.Context(), put(t, d, random(3<<20, 1)))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				release := make(chan struct{})
				faults.Add(datatest.Fault{Op: c.op, Times: -1, Wait: release, Done: true})
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				began := time.Now()
				if err := c.call(ctx, d, f); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("on a stalled drive: %v", err)
				}
				if took := time.Since(began); took != 100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				close(release)
				synctest.Wait()
				if err := c.call(t.Context(), d, f); err != nil {
					t.Errorf("when it is well again: %v", err)
				}
			})
		})
	}
}

// TestStalledReadsAreBounded leaves so many reads behind as may be, and one
// more.
func TestStalledReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, faults := faulty(t)
		id := put(t, d, random(3<<20, 1))
		f, err := d.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		release := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpRead, Times: -1, Wait: release, Done: true})
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, dataio.StalledMax)
		for range dataio.StalledMax {
			go func() { errs <- f.Prefetch(ctx, 0, -1) }()
		}
		synctest.Wait()
		cancel()
		for range dataio.StalledMax {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("on a stalled drive: %v", err)
			}
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, openErr := d.Open(ctx, id)
		for _, err := range []error{f.Prefetch(ctx, 0, -1), openErr} {
			if err == nil {
				t.Error("one more was let wait")
			}
			wantErr(t, err, id.String(), dataio.ErrOffline)
			wantErr(t, err, d.Path())
		}
		close(release)
		synctest.Wait()
		if err := f.Prefetch(ctx, 0, -1); err != nil {
			t.Errorf("when it is well again: %v", err)
		}
	})
}

// TestStalledCallsAreBounded does the same with callers that wait themselves.
func TestStalledCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, faults := faulty(t)
		f, err := d.Open(t.Context(), put(t, d, random(100, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		release := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpRead, Times: -1, Wait: release, Done: true})
		errs := make(chan error, dataio.StalledMax)
		read := func() error {
			_, err := f.ReadAt(make([]byte, 10), 0)
			return err
		}
		for range dataio.StalledMax {
			go func() { errs <- read() }()
		}
		time.Sleep(2 * time.Second)
		_, createErr := d.Create(t.Context(), dataio.NewID(), 10)
		for _, err := range []error{read(), createErr} {
			if err == nil {
				t.Error("one more was let wait")
			}
			wantErr(t, err, "stalled", dataio.ErrOffline)
		}
		if n := d.Errors(); n != 0 {
			t.Errorf("%d errors of the file system, which wasn't asked", n)
		}
		close(release)
		for range dataio.StalledMax {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if err := read(); err != nil {
			t.Errorf("when it is well again: %v", err)
		}
	})
}

func TestPrefetchFails(t *testing.T) {
	d, faults := faulty(t)
	f, err := d.Open(t.Context(), put(t, d, random(3<<20, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	faults.Add(datatest.Fault{Op: dataio.OpRead, Err: syscall.EIO})
	err = f.Prefetch(t.Context(), 0, -1)
	wantErr(t, err, f.ID().String(), syscall.EIO)
	if err == nil || d.State() != dataio.Online || d.Errors() != 1 {
		t.Errorf("%v, the drive is %v with %d errors", err, d.State(), d.Errors())
	}
	if err := f.Prefetch(t.Context(), 0, -1); err != nil {
		t.Error(err)
	}
}

// BenchmarkPrefetch is what Prefetch costs for bytes that are in memory: before
// every window of a payload, and once for one of a single window.
func BenchmarkPrefetch(b *testing.B) {
	d := open(b, b.TempDir(), options())
	const size = 64 << 20
	id := put(b, d, random(size, 1))
	for _, window := range []int64{4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("window=%dK", window>>10), func(b *testing.B) {
			f, err := d.Open(b.Context(), id)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := f.Prefetch(b.Context(), int64(i)*window%size, window); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, prefetch := range []int64{0, 16 << 10, 64 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("open+%dK", prefetch>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, err := d.Open(b.Context(), id)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Prefetch(b.Context(), 0, prefetch); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
