package dataio

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// walkBatch is how many directory entries Walk holds at a time.
const walkBatch = 256

// Walk calls fn for every payload file with the time when it was written, in no
// particular order, and ends with fn's error if it returns one. A payload that
// is committed or removed meanwhile may be seen or not. The footer isn't read:
// a file that a crash cut off is among them, so that it can be removed. What a
// crash left of a replacement Walk removes itself. Other files that are not
// named by an id are not ours and left alone.
func (d *Drive) Walk(ctx context.Context, fn func(id ID, modified time.Time) error) error {
	if err := d.present("walk", ID{}); err != nil {
		return err
	}
	return d.list(ctx, ".", func(sub string) error {
		if _, err := hex.DecodeString(sub); err != nil || len(sub) != 2 {
			return nil
		}
		return d.list(ctx, sub, func(file string) error {
			id, err := ParseID(strings.TrimSuffix(file, newSuffix))
			if err == nil && strings.HasSuffix(file, newSuffix) && file[:2] == sub {
				return d.removeLeftover(id, file)
			}
			if err != nil || file[:2] != sub || d.writing(id) {
				return nil
			}
			info, err := d.payload.Lstat(filepath.Join(sub, file))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return d.readError("walk", id, err)
			}
			return fn(id, info.ModTime())
		})
	})
}

// list calls fn for every name in a directory below payload/.
func (d *Drive) list(ctx context.Context, dir string, fn func(name string) error) error {
	f, err := d.payload.Open(dir)
	if err != nil {
		return d.readError("walk", ID{}, err)
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var batch []string
		err := d.do(Op{Kind: OpList, Name: path.Join(payloadName, dir)}, func() (err error) {
			batch, err = f.Readdirnames(walkBatch)
			if err == io.EOF {
				err = nil
			}
			return err
		})
		if err != nil {
			return d.readError("walk", ID{}, err)
		}
		if len(batch) == 0 {
			return nil
		}
		for _, name := range batch {
			if err := fn(name); err != nil {
				return err
			}
		}
	}
}

// removeLeftover removes the beginning of a replacement, unless it is being
// written. A drive that refuses keeps it for the next Walk.
func (d *Drive) removeLeftover(id ID, file string) error {
	// Whoever creates one meanwhile removes the leftover as well, and then
	// finds its own name: so it is looked at and removed under the id's claim.
	lease := &Writer{d: d, id: id, replaces: true, end: errors.New("a leftover is being removed")}
	if !d.lease(lease) {
		return nil
	}
	defer d.forget(lease)
	d.removeBelow(d.payload, filepath.Join(file[:2], file), path.Join(payloadName, file[:2], file))
	return nil
}

// removeBelow removes a file, told by its full name.
func (d *Drive) removeBelow(dir *os.Root, file, name string) error {
	return d.do(Op{Kind: OpRemove, Name: name}, func() error { return dir.Remove(file) })
}

// Remove removes the payload id, ErrNotFound if there is none. Files that are
// open stay readable. It works on a drive that takes no new payload. It isn't
// synced: after a loss of power the file may be back.
func (d *Drive) Remove(ctx context.Context, id ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.present("remove", id); err != nil {
		return err
	}
	if d.writing(id) {
		return &Error{Op: "remove", Path: d.path, ID: id, Kind: ErrNotFound}
	}
	if w := d.replacing(id); w != nil {
		w.cancel()
	}
	_, name := names(id)
	// Before, so that the space is free when the name has gone, and after, for
	// who has opened it meanwhile.
	d.idle.forget(id)
	defer d.idle.forget(id)
	if err := d.removeBelow(d.payload, below(id), name); err != nil {
		return d.fail("remove", id, OpRemove, err)
	}
	return nil
}
