package dataio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// claimStepBytes is what a writer of unknown size claims at a time, if there is
// so much.
const claimStepBytes = 8 << 20

// writeBehindBytes is how much is written before the system is told to begin
// with bringing it to the disk, so that the disk is at work while the rest
// arrives, and the sync at the end has little left to do. Where the end is known
// it is less and less towards it, down to writeBehindLeast: of 64 MiB, 2 are left
// for the sync rather than 8.
const (
	writeBehindBytes = 8 << 20
	writeBehindLeast = 1 << 20
)

// A Writer writes one payload file. Until Commit returns there is no payload:
// Open, Walk and Remove don't see it. One goroutine uses a Writer; only
// Drive.Close may abort it from another. Defer Abort, which does nothing after
// a successful Commit.
type Writer struct {
	d        *Drive
	id       ID
	file     string // the file's name in its directory
	name     string // as Op.Name
	announce int64  // size told to Create, negative if unknown
	replaces bool   // the payload, if there is one, is there until Commit

	claimed int64 // guarded by Drive.mu

	mu        sync.Mutex // a call under way; guards what follows
	dir       *os.Root   // payload/<2 hex>
	f         *os.File
	made      bool   // the file exists
	allocated bool   // the file system has set the announced size aside
	behind    behind // what the system was told to begin to write
	size      int64
	sums      blockSums // of what was written
	end       error     // set once: why no more can be written
}

// Written is what Commit made durable.
type Written struct {
	SizeBytes int64
	CRC32C    uint32 // Castagnoli, of the whole payload
}

// Create begins the payload id of sizeBytes; negative if that isn't known. With
// a known size the space is set aside before Create returns, so that a drive
// too full for it fails with ErrNoSpace before a byte is sent to it; with an
// unknown one, any Write can.
//
// It fails with ErrExists if there is such a payload, committed or being
// written; with ErrReadOnly, ErrSuspect, ErrOffline as State says; with ErrSize
// above MaxPayloadBytes.
func (d *Drive) Create(ctx context.Context, id ID, sizeBytes int64) (*Writer, error) {
	return d.create(ctx, id, sizeBytes, false)
}

// CreateReplacement begins a payload that takes the place of one that is there,
// or was: a copy that scrubbing found damaged. What is there stays visible, and
// is what Open gives, until Commit renames the new file over it; Files that are
// open stay what they were. After a crash it is the one or the other, and after
// Commit has returned, the new one. It fails as Create does, with ErrExists if
// the payload is being written. Removing the payload meanwhile ends the Writer,
// with ErrNotFound.
func (d *Drive) CreateReplacement(ctx context.Context, id ID, sizeBytes int64) (*Writer, error) {
	return d.create(ctx, id, sizeBytes, true)
}

func (d *Drive) create(ctx context.Context, id ID, sizeBytes int64, replaces bool) (*Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if sizeBytes > MaxPayloadBytes {
		err := fmt.Errorf("%d bytes, at most %d", sizeBytes, int64(MaxPayloadBytes))
		return nil, &Error{Op: "create", Path: d.path, ID: id, Kind: ErrSize, Err: err}
	}
	if id.IsZero() {
		return nil, &Error{Op: "create", Path: d.path, Err: errors.New("the payload's id is zero")}
	}
	sub, name := names(id)
	w := &Writer{d: d, id: id, file: id.String(), name: name, announce: max(sizeBytes, -1), replaces: replaces}
	if replaces {
		w.file += newSuffix
		w.name += newSuffix
	}
	need, most := footerBytes(0), int64(claimStepBytes)
	if sizeBytes >= 0 {
		need = sizeBytes + footerBytes(sizeBytes)
		most = need
		w.sums.full = make([]uint32, 0, sizeBytes/blockBytes+1)
	}
	w.mu.Lock() // against Drive.Close, which knows of w from here on
	defer w.mu.Unlock()
	if err := d.admit(w, need, most); err != nil {
		return nil, err
	}
	if kind, err := w.create(sub, need); err != nil {
		return nil, w.abandonLocked(d.fail("create", id, kind, err))
	}
	if w.allocated {
		d.settle(w, need)
	}
	return w, nil
}

// create makes the file, and its directory if it is the first in it. The kind
// is that of the operation that failed.
func (w *Writer) create(sub string, need int64) (kind OpKind, err error) {
	d := w.d
	w.dir, err = d.payload.OpenRoot(sub)
	if errors.Is(err, fs.ErrNotExist) {
		err = d.do(Op{Kind: OpMkdir, Name: payloadName + "/" + sub}, func() error {
			return d.payload.Mkdir(sub, 0o700)
		})
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return OpMkdir, err
		}
		w.dir, err = d.payload.OpenRoot(sub)
	}
	if err != nil {
		return OpOpen, err
	}
	if w.replaces {
		// What a crash left of an earlier one; it has no meaning.
		err := d.removeBelow(w.dir, w.file, w.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return OpRemove, err
		}
	}
	err = d.do(Op{Kind: OpCreate, Name: w.name}, func() (err error) {
		w.f, err = w.dir.OpenFile(w.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		w.made = err == nil
		return err
	})
	if err != nil || w.announce < 0 {
		return OpCreate, err
	}
	err = d.do(Op{Kind: OpAllocate, Name: w.name, Bytes: need}, func() (err error) {
		w.allocated, err = allocate(w.f, need)
		return err
	})
	return OpAllocate, err
}

// Write writes p after what was written before. After an error, which is
// ErrNoSpace, ErrSize, ErrSuspect, ErrOffline or another of the file system,
// the file is removed and every further call fails alike.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end != nil {
		return 0, w.end
	}
	limit := w.announce
	if limit < 0 {
		limit = MaxPayloadBytes
	}
	if int64(len(p)) > limit-w.size {
		err := fmt.Errorf("more than %d bytes were written", limit)
		return 0, w.abandonLocked(&Error{Op: "write", Path: w.d.path, ID: w.id, Kind: ErrSize, Err: err})
	}
	if err := w.d.trusted("write", w.id); err != nil {
		return 0, w.abandonLocked(err)
	}
	n, err := w.writeLocked(p, w.size)
	w.sums.add(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, w.abandonLocked(err)
	}
	return n, nil
}

// writeLocked writes to the file, claiming the space if it has to.
func (w *Writer) writeLocked(p []byte, offset int64) (n int, err error) {
	d := w.d
	if !w.allocated && w.announce < 0 {
		if err := w.claimLocked(int64(len(p))); err != nil {
			return 0, err
		}
	}
	op := Op{Kind: OpWrite, Name: w.name, Offset: offset, Bytes: int64(len(p)), Data: p}
	err = d.do(op, func() (err error) {
		n, err = w.f.Write(p)
		if err == nil {
			if off, n := w.behind.due(w.announce, offset+int64(n)); n > 0 {
				writeBehind(w.f, off, n)
			}
		}
		return err
	})
	if !w.allocated {
		d.settle(w, int64(n))
	}
	if err != nil {
		return n, d.fail("write", w.id, OpWrite, err)
	}
	return n, nil
}

// behind is up to where the system was told to begin to write a payload.
type behind int64

// due is what it is to be told next, now that a payload of the size told to Create
// is written up to end; of no bytes if there is nothing yet.
func (b *behind) due(announced, end int64) (off, n int64) {
	step := int64(writeBehindBytes)
	if announced >= 0 {
		step = min(max((announced-int64(*b))/2, writeBehindLeast), step)
	}
	off, n = int64(*b), end-int64(*b)
	if n < step {
		return off, 0
	}
	*b = behind(end)
	return off, n
}

// claimLocked sees to it that bytes more are claimed.
func (w *Writer) claimLocked(bytes int64) error {
	w.d.mu.Lock()
	missing := bytes - w.claimed
	w.d.mu.Unlock()
	if missing <= 0 {
		return nil
	}
	return w.d.admit(w, missing, max(missing, claimStepBytes))
}

// Commit makes the payload durable: the footer is written, then the file is
// synced, then its directory. From its return on the payload is there, also
// after a loss of power; before, and after an error, there is none. A context
// that has ended is such an error; it doesn't interrupt the syncs. Fewer bytes
// than Create was told are ErrSize. An error of a sync, of this or meanwhile of
// another payload, is ErrSuspect: the copy is lost, and it must be written
// elsewhere. If the file can't even be removed, the error says so.
func (w *Writer) Commit(ctx context.Context) (Written, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end != nil {
		return Written{}, w.end
	}
	if err := ctx.Err(); err != nil {
		return Written{}, w.abandonLocked(err)
	}
	if w.announce >= 0 && w.size != w.announce {
		err := fmt.Errorf("%d bytes were written, %d announced", w.size, w.announce)
		return Written{}, w.abandonLocked(&Error{Op: "commit", Path: w.d.path, ID: w.id, Kind: ErrSize, Err: err})
	}
	f := footer{id: w.id, size: w.size}
	f.blocks, f.total = w.sums.end()
	if _, err := w.writeLocked(f.encode(), w.size); err != nil {
		return Written{}, w.abandonLocked(err)
	}
	if kind, err := w.syncLocked(); err != nil {
		return Written{}, w.abandonLocked(w.d.fail("commit", w.id, kind, err))
	}
	// Of several syncs that wait for the same lost write, the kernel may fail
	// only the first: success counts while no other has failed.
	if err := w.d.trusted("commit", w.id); err != nil {
		return Written{}, w.abandonLocked(err)
	}
	w.end = &Error{Op: "write", Path: w.d.path, ID: w.id, Err: errors.New("it was committed")}
	w.dir.Close()
	w.d.forget(w)
	return Written{SizeBytes: w.size, CRC32C: f.total}, nil
}

// syncLocked makes the file and its name durable.
func (w *Writer) syncLocked() (OpKind, error) {
	d := w.d
	// All of it may still have to go to the disk.
	err := d.doMoving(Op{Kind: OpSync, Name: w.name}, w.size, false, func() error { return syncData(w.f) })
	if err != nil {
		return OpSync, err
	}
	err = w.f.Close()
	w.f = nil
	if err != nil {
		return OpSync, err
	}
	if w.replaces {
		_, final := names(w.id)
		defer d.idle.forget(w.id)
		err := d.do(Op{Kind: OpRename, Name: w.name, To: final}, func() error {
			return w.dir.Rename(w.file, w.id.String())
		})
		if err != nil {
			return OpRename, err
		}
		w.made = false // the file is the payload now, and stays
	}
	sub := payloadName + "/" + w.id.String()[:2]
	err = d.do(Op{Kind: OpSyncDir, Name: sub}, func() error {
		dir, err := w.dir.Open(".")
		if err != nil {
			return err
		}
		defer dir.Close()
		return syncDir(dir)
	})
	if err != nil {
		return OpSyncDir, err
	}
	// The directory's own name: once for every drive opened, as neither this
	// writer nor this process need be the one that made it.
	if durable := &d.durable[w.id[0]]; !durable.Load() {
		err := d.do(Op{Kind: OpSyncDir, Name: payloadName}, func() error { return syncDir(d.entries) })
		if err != nil {
			return OpSyncDir, err
		}
		durable.Store(true)
	}
	return OpSyncDir, nil
}

// Abort removes what was written, if it wasn't committed. It may be called
// again, and after Commit, and then does nothing. An error means that a file
// without a valid footer may remain, which can't be opened.
func (w *Writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end != nil {
		return nil
	}
	if w.end = w.d.present("write", w.id); w.end == nil {
		w.end = &Error{Op: "write", Path: w.d.path, ID: w.id, Err: errors.New("it was aborted")}
	}
	return w.discardLocked()
}

// cancel ends a replacement whose payload is being removed.
func (w *Writer) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end == nil {
		err := errors.New("it was removed while it was being replaced")
		w.abandonLocked(&Error{Op: "write", Path: w.d.path, ID: w.id, Kind: ErrNotFound, Err: err})
	}
}

// abandonLocked ends the writer with err, removing the file.
func (w *Writer) abandonLocked(err error) error {
	w.end = err
	if derr := w.discardLocked(); derr != nil {
		w.end = fmt.Errorf("%w (and %w)", err, derr)
	}
	return w.end
}

// discardLocked closes and removes the file, and gives back the claim and the
// id. The removal isn't synced: a file that a loss of power brings back is one
// that nothing refers to.
func (w *Writer) discardLocked() error {
	defer w.d.forget(w)
	if w.dir == nil {
		return nil
	}
	defer w.dir.Close()
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
	if !w.made {
		return nil
	}
	if err := w.d.removeBelow(w.dir, w.file, w.name); err != nil {
		return w.d.fail("remove", w.id, OpRemove, err)
	}
	return nil
}
