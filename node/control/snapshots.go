package control

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// A snapshot goes from node to node as its files: the one that needs it asks
// for the list over the grid and reads the files one by one over the bulk port,
// from where it stopped if it was cut off. A file is taken once its length and
// CRC32C are right.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// serveManifest lists the files of a snapshot that this node offers.
func (c *Control) serveManifest(_ context.Context, ref *snapshotRef) (*manifest, error) {
	dir, release, err := c.offered(replica.GroupID(ref.Group), ref.To, ref.Index)
	if err != nil {
		return nil, ToWire(err)
	}
	defer release()
	names, err := c.fs.List(dir)
	if err != nil {
		return nil, ToWire(err)
	}
	slices.Sort(names)
	m := &manifest{}
	for _, name := range names {
		f, err := c.describe(dir, name)
		if err != nil {
			return nil, ToWire(err)
		}
		m.Files = append(m.Files, f)
	}
	return m, nil
}

// describe reads a file through.
func (c *Control) describe(dir, name string) (out snapshotFile, err error) {
	f, err := c.fs.Open(c.fs.PathJoin(dir, name), vfs.SequentialReadsOption)
	if err != nil {
		return out, err
	}
	defer closeInto(&err, f)
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, f)
	return snapshotFile{Name: name, Size: n, CRC32C: sum.Sum32()}, err
}

func (c *Control) offered(g replica.GroupID, to, index uint64) (dir string, release func(), err error) {
	if e := c.engine.Load(); e != nil {
		if dir, release, ok := e.Snapshot(g, to, index); ok {
			return dir, release, nil
		}
	}
	return "", nil, fault.New(fault.NotFound, "snapshot", "%d of group %s isn't offered here any more", index, groupName(g))
}

// snapshotPath is the path by which a file of a snapshot is asked for.
func snapshotPath(ref *snapshotRef, name string) string {
	return fmt.Sprintf("%d/%d/%x/%s", ref.Group, ref.Index, ref.To, name)
}

// SnapshotFile finds the file that another node's Fetch asks for by path:
// where it is, and what to call when it has been read. NotFound.
func (c *Control) SnapshotFile(p string) (file string, release func(), err error) {
	bad := fault.New(fault.NotFound, "snapshot", "%.100q is no file of one", p)
	part := strings.Split(p, "/")
	if len(part) != 4 || part[3] == "" || part[3] != path.Base(part[3]) || part[3][0] == '.' {
		return "", nil, bad
	}
	group, err1 := strconv.ParseUint(part[0], 10, 32)
	index, err2 := strconv.ParseUint(part[1], 10, 64)
	to, err3 := strconv.ParseUint(part[2], 16, 64)
	if errors.Join(err1, err2, err3) != nil {
		return "", nil, bad
	}
	dir, release, err := c.offered(replica.GroupID(group), to, index)
	if err != nil {
		return "", nil, err
	}
	return c.fs.PathJoin(dir, part[3]), release, nil
}

// fetchSnapshot brings the snapshot that another node offers into dir.
func (c *Control) fetchSnapshot(ctx context.Context, from uint64, g replica.GroupID, at replica.Position, dir string) error {
	name := c.nameOf(from)
	if name == "" || c.fetch == nil {
		return fault.New(fault.Unavailable, "snapshot", "comes from node %x, which isn't known", from)
	}
	ref := &snapshotRef{Group: uint32(g), Index: at.Index, To: c.raftID}
	m, err := manifestCall.Call(ctx, c.conn(name), ref)
	if err != nil {
		return FromWire(err)
	}
	if err := c.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range m.Files {
		if f.Name != path.Base(f.Name) || f.Name == "" || f.Name[0] == '.' || f.Size < 0 {
			return fault.New(fault.Corrupted, "snapshot", "has a file %.100q", f.Name)
		}
		if err := c.fetchFile(ctx, name, snapshotPath(ref, f.Name), c.fs.PathJoin(dir, f.Name), f); err != nil {
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
	}
	d, err := c.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fetchFile brings one file, or what is missing of it.
func (c *Control) fetchFile(ctx context.Context, node, path, to string, want snapshotFile) error {
	switch have, err := c.fs.Stat(to); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case have.Size() == want.Size:
		got, err := c.describe(c.fs.PathDir(to), want.Name)
		if err != nil || got == want {
			return err
		}
		if err := c.fs.Remove(to); err != nil {
			return err
		}
	case have.Size() > want.Size:
		if err := c.fs.Remove(to); err != nil {
			return err
		}
	}
	if err := c.appendFile(ctx, node, path, to, want.Size); err != nil {
		return err
	}
	switch got, err := c.describe(c.fs.PathDir(to), want.Name); {
	case err != nil:
		return err
	case got != want:
		return errors.Join(fault.New(fault.Corrupted, "snapshot", "came with %d bytes and CRC32C %08x, not %d and %08x", got.Size, got.CRC32C, want.Size, want.CRC32C), c.fs.Remove(to))
	}
	return nil
}

// appendFile reads on from where the file at to ends. What came is kept where
// the rest doesn't.
func (c *Control) appendFile(ctx context.Context, node, path, to string, size int64) (err error) {
	offset := int64(0)
	var f vfs.File
	if have, statErr := c.fs.Stat(to); statErr == nil {
		offset = have.Size()
		f, err = c.fs.OpenReadWrite(to, vfs.WriteCategoryUnspecified)
	} else {
		f, err = c.fs.Create(to, vfs.WriteCategoryUnspecified)
	}
	if err != nil {
		return err
	}
	if offset < size {
		err = c.fetch(ctx, node, path, offset, size-offset, &offsetWriter{f, offset})
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// offsetWriter writes to a file from an offset on.
type offsetWriter struct {
	f      vfs.File
	offset int64
}

// Write implements io.Writer.
func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.offset)
	w.offset += int64(n)
	return n, err
}
