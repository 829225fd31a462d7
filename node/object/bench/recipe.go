//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const copies = 3

// recipe is three directories laid out as drives are.
type recipe struct{ drives [copies]string }

func newRecipe(dir string) (*recipe, error) {
	var r recipe
	for i := range r.drives {
		r.drives[i] = filepath.Join(dir, fmt.Sprintf("bare-%d", i+1))
		for sub := range 256 {
			if err := os.MkdirAll(filepath.Join(r.drives[i], fmt.Sprintf("%02x", sub)), 0o755); err != nil {
				return nil, err
			}
		}
	}
	return &r, nil
}

// put stores content once on each drive.
func (r *recipe) put(_ context.Context, _ int, content []byte) error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	var all errgroup.Group
	for _, drive := range r.drives {
		all.Go(func() error {
			return writeFile(filepath.Join(drive, fmt.Sprintf("%02x", id[0])), fmt.Sprintf("%x", id), content)
		})
	}
	return all.Wait()
}

// footerBytes is what a payload file has after its payload.
func footerBytes(size int) int { return 48 + 4*((size+mib-1)/mib) }

// writeFile is what DESIGN's recipe asks of one drive.
func writeFile(dir, name string, content []byte) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	footer := make([]byte, footerBytes(len(content)))
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(len(content)+len(footer))); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if _, err := f.Write(footer); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return err
	}
	return d.Sync()
}

func (r *recipe) clear() error {
	for _, drive := range r.drives {
		names, err := filepath.Glob(filepath.Join(drive, "*", "*"))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// load has clients put n objects, and returns how long that took. put is told
// which object it is.
func load(ctx context.Context, r *row, content func(i int) []byte, put func(ctx context.Context, i int, content []byte) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range r.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= r.puts {
					return
				}
				if err := put(ctx, i, content(i)); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return time.Since(start), context.Cause(ctx)
}
