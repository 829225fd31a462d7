package disk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// counted is a file system that counts writes, and fails them from one on.
type counted struct {
	vfs.FS
	writes, failAt int
}

var errDisk = errors.New("the disk is broken")

func (c *counted) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	return &countedFile{f, c}, err
}

type countedFile struct {
	vfs.File
	c *counted
}

func (f *countedFile) Write(p []byte) (int, error) {
	if f.c.writes++; f.c.failAt > 0 && f.c.writes >= f.c.failAt {
		return 0, errDisk
	}
	return f.File.Write(p)
}

// A table has what was written to it, in the order of it, wherever it is synced,
// and is written in few pieces; a log is written as it comes.
func TestBuffered(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for name, pieces := range map[string]bool{"1.sst": false, "2.blob": false, "3.log": true} {
		c := &counted{FS: vfs.NewMem()}
		f, err := buffered{c}.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		const writes = 2000
		syncs := 0
		for i := range writes {
			p := bytes.Repeat([]byte{byte(i)}, random.IntN(6<<10))
			want = append(want, p...)
			if n, err := f.Write(p); n != len(p) || err != nil {
				t.Fatalf("%s: wrote %d of %d, %v", name, n, len(p), err)
			}
			if random.IntN(200) > 0 {
				continue
			}
			syncs++
			switch syncs % 3 {
			case 0:
				err = f.Sync()
			case 1:
				err = f.SyncData()
			case 2:
				_, err = f.SyncTo(int64(len(want)))
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := c.Stat(name); err != nil || info.Size() != int64(len(want)) {
				t.Fatalf("%s: after a sync has %v, %v; want %d bytes", name, info, err, len(want))
			}
		}
		if info, err := f.Stat(); err != nil || info.Size() != int64(len(want)) {
			t.Errorf("%s: has %v, %v; want %d bytes", name, info, err, len(want))
		}
		if _, err := f.Write([]byte("end")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := c.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if want = append(want, "end"...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: has %d bytes, %v; want these %d", name, len(got), err, len(want))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if most := len(want)/bufferBytes + syncs + 2; (c.writes > most) != pieces {
			t.Errorf("%s: was written in %d pieces", name, c.writes)
		}
	}
}

// A write that has failed is told of by whatever comes next, and nothing is
// written behind the gap.
func TestBufferedFails(t *testing.T) {
	for name, after := range map[string]func(vfs.File) error{
		"write":    func(f vfs.File) error { _, err := f.Write([]byte("x")); return err },
		"sync":     func(f vfs.File) error { return f.Sync() },
		"syncdata": func(f vfs.File) error { return f.SyncData() },
		"syncto":   func(f vfs.File) error { _, err := f.SyncTo(1); return err },
		"stat":     func(f vfs.File) error { _, err := f.Stat(); return err },
	} {
		c := &counted{FS: vfs.NewMem(), failAt: 2}
		f, err := buffered{c}.Create("1.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if _, err := f.Write(make([]byte, bufferBytes)); (err != nil) != (i == 1) {
				t.Errorf("write %d: %v", i, err)
			}
		}
		c.failAt = 0
		if err := after(f); !errors.Is(err, errDisk) {
			t.Errorf("%s after a write that failed: %v", name, err)
		}
		if err := f.Close(); !errors.Is(err, errDisk) || c.writes != 2 {
			t.Errorf("closed after a write that failed: %v, %d writes", err, c.writes)
		}
	}
}
