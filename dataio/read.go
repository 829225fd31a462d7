package dataio

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

// tailBytes are read from the end of a file in one go: the whole footer of a
// payload of up to 116 MiB, and little else.
const tailBytes = 512

// A File is a committed payload, open for reading. It has an *os.File of its
// own, never shared with another File: sendfile moves the file's position. Close
// may leave it to a File that is opened later, so nothing that was got from the
// File is to be used after that.
// ReadAt and Verify may overlap with each other and with the use of a Section.
type File struct {
	*opened
	d      *Drive
	name   string
	closed atomic.Bool
}

// Open opens the payload id. It fails with ErrNotFound if there is none, with
// ErrCorrupted if the footer is damaged, missing, or another payload's. If the
// context ends while the drive doesn't answer, it is the context's error. A file
// that has been kept open is looked at again: what was done to it behind the
// drive's back is found.
func (d *Drive) Open(ctx context.Context, id ID) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, ready, err := d.find(id, 0)
	if err != nil || ready {
		return f, err
	}
	_, f.name = names(id)
	err = d.await(ctx, f.open, func() { f.Close() })
	if err != nil && err == ctx.Err() {
		return nil, err // f isn't ours any more
	}
	if err != nil {
		f.Close()
		return nil, d.readError("open", id, err)
	}
	return f, nil
}

// OpenNow is Open where that is known to need no waiting for the drive, and
// works; else it returns nil, and Open says why. What was seen of a file that has
// been kept open counts for 100 ms: it is for sending, and not for finding out
// what is on the drive.
func (d *Drive) OpenNow(id ID) *File {
	f, ready, err := d.find(id, stillFor)
	if err != nil {
		return nil
	}
	if !ready {
		f.suspect.Store(true)
		f.Close()
		return nil
	}
	return f
}

// find opens the payload, if all that takes is in memory. Else there is a File
// that is yet to be opened. One that has been kept open isn't looked at where it
// was less than still ago.
func (d *Drive) find(id ID, still time.Duration) (f *File, ready bool, err error) {
	if err := d.present("open", id); err != nil {
		return nil, false, err
	}
	if d.writing(id) {
		return nil, false, &Error{Op: "open", Path: d.path, ID: id, Kind: ErrNotFound}
	}
	f = &File{d: d}
	plain := d.options.Interceptor == nil && !d.operations.refuse.Load()
	if plain {
		if f.opened = d.idle.take(id, still); f.opened != nil {
			return f, true, nil
		}
	}
	f.opened = &opened{id: id, epoch: d.idle.epoch(id).Load()}
	return f, plain && f.openNow(), nil
}

// openNow opens the file, if all that takes is in memory, and nothing is wrong
// with it. Then no goroutine is needed, which costs half as much as the rest.
func (f *File) openNow() bool {
	if f.f = openNow(f.d.entries, below(f.id)); f.f == nil {
		return false
	}
	return f.readFooter(func(b []byte, offset int64) error {
		if !readNow(f.f, b, offset) {
			return errNotNow
		}
		return nil
	}) == nil
}

// errNotNow is why a footer isn't read that isn't in memory.
var errNotNow = errors.New("not in memory")

// open opens the file and reads its footer.
func (f *File) open() (err error) {
	defer func() {
		if err != nil {
			f.suspect.Store(true)
		}
	}()
	if f.f != nil { // by openNow
		return f.readFooter(f.readFull)
	}
	err = f.d.do(Op{Kind: OpOpen, Name: f.name}, func() (err error) {
		f.f, err = f.d.payload.Open(below(f.id))
		return err
	})
	if err != nil {
		return err
	}
	return f.readFooter(f.readFull)
}

// readError gives an error of reading its kind. It leaves the drive's state:
// what can still be read may be the last copy.
func (d *Drive) readError(op string, id ID, err error) error {
	e := &Error{Op: op, Path: d.path, ID: id, Err: err}
	var inner *Error
	switch {
	case errors.As(err, &inner):
		e.Kind, e.Err = inner.Kind, inner.Err
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Err = ErrNotFound, nil
	case errors.Is(err, fs.ErrClosed):
		e.Kind = ErrOffline
	}
	return e
}

// readFooter reads and checks the footer.
func (f *File) readFooter(read func(b []byte, offset int64) error) error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &Error{Kind: ErrCorrupted, Err: errors.New("it is not a regular file")}
	}
	f.modified, f.seen, f.looked = info.ModTime(), markFrom(info), time.Now()
	size := info.Size()
	f.fileBytes = size
	tail := make([]byte, min(size, tailBytes))
	if err := read(tail, size-int64(len(tail))); err != nil {
		return err
	}
	length, err := footerSize(tail[max(0, len(tail)-trailerBytes):], size)
	if err != nil {
		return err
	}
	if length > int64(len(tail)) {
		tail = make([]byte, length)
		if err := read(tail, size-length); err != nil {
			return err
		}
	}
	f.footer, err = parseFooter(tail[int64(len(tail))-length:], f.id)
	return err
}

// readFull fills b from the offset of the file.
func (f *File) readFull(b []byte, offset int64) error {
	op := Op{Kind: OpRead, Name: f.opName(), Offset: offset, Bytes: int64(len(b))}
	err := f.d.do(op, func() error { return f.fillAt(b, offset) })
	if err != nil {
		f.suspect.Store(true)
	}
	return err
}

// opName is the name under which the file's operations are told.
func (f *File) opName() string {
	if f.name != "" {
		return f.name
	}
	_, name := names(f.id)
	return name
}

// fillAt is readFull as a part of an operation.
func (f *File) fillAt(b []byte, offset int64) error {
	n, err := f.f.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		return &Error{Kind: ErrCorrupted, Err: fmt.Errorf("the file ends at %d bytes", offset+int64(n))}
	}
	return err
}

// ID returns the payload's id.
func (f *File) ID() ID { return f.id }

// SizeBytes returns the size of the payload, without the footer.
func (f *File) SizeBytes() int64 { return f.footer.size }

// CRC32C returns the Castagnoli checksum of the whole payload, as Commit did.
func (f *File) CRC32C() uint32 { return f.footer.total }

// ModTime returns when the file was written.
func (f *File) ModTime() time.Time { return f.modified }

// clip checks a range of the payload; a negative n means up to its end.
func (f *File) clip(op string, off, n int64) (int64, error) {
	if n < 0 && off >= 0 && off <= f.footer.size {
		n = f.footer.size - off
	}
	if off < 0 || n < 0 || off > f.footer.size || n > f.footer.size-off {
		err := fmt.Errorf("%d bytes from %d, of %d", n, off, f.footer.size)
		return 0, &Error{Op: op, Path: f.d.path, ID: f.id, Kind: ErrRange, Err: err}
	}
	return n, nil
}

// Section returns the n bytes from off on, to the end if n is negative, for
// Send: a LimitedReader over the *os.File itself, so that a connection's
// ReadFrom can use sendfile. It moves the file's position: the sections of one
// File are used one after the other. Closing the File ends it. What it reads
// is not compared with the checksums; Verify does that.
func (f *File) Section(off, n int64) (*io.LimitedReader, error) {
	n, err := f.clip("read", off, n)
	if err != nil {
		return nil, err
	}
	if f.closed.Load() {
		return nil, f.d.readError("read", f.id, fs.ErrClosed)
	}
	if _, err := f.f.Seek(off, io.SeekStart); err != nil {
		return nil, f.d.readError("read", f.id, err)
	}
	return &io.LimitedReader{R: f.f, N: n}, nil
}

// ReadAt reads from the payload, as io.ReaderAt says, without comparing with
// the checksums.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		_, err := f.clip("read", off, 0)
		return 0, err
	}
	left := max(0, f.footer.size-off)
	end := int64(len(p)) > left
	if end {
		p = p[:left]
	}
	if len(p) > 0 {
		if err := f.readFull(p, off); err != nil {
			return 0, f.d.readError("read", f.id, err)
		}
	}
	if end {
		return len(p), io.EOF
	}
	return len(p), nil
}

// blockBuffers holds *[blockBytes]byte for Verify.
var blockBuffers = sync.Pool{New: func() any { return new([blockBytes]byte) }}

// Verify reads every MiB that has bytes of the range, to the end if n is
// negative, and compares them with their checksums. It fails with ErrCorrupted
// naming the first that differs. The context is looked at before each.
func (f *File) Verify(ctx context.Context, off, n int64) error {
	n, err := f.clip("verify", off, n)
	if err != nil || n == 0 {
		return err
	}
	buf := blockBuffers.Get().(*[blockBytes]byte)
	defer blockBuffers.Put(buf)
	for i := off / blockBytes; i*blockBytes < off+n; i++ {
		if _, err := f.checkBlock(ctx, i, buf); err != nil {
			return err
		}
	}
	return nil
}

// checkBlock reads the MiB i into buf and compares it with its checksum.
func (f *File) checkBlock(ctx context.Context, i int64, buf *[blockBytes]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b := buf[:min(blockBytes, f.footer.size-i*blockBytes)]
	if err := f.readFull(b, i*blockBytes); err != nil {
		return nil, f.d.readError("verify", f.id, err)
	}
	if sum := crc32.Checksum(b, castagnoli); sum != f.footer.blocks[i] {
		err := fmt.Errorf("MiB %d has CRC32C %08x, want %08x", i, sum, f.footer.blocks[i])
		return nil, &Error{Op: "verify", Path: f.d.path, ID: f.id, Kind: ErrCorrupted, Err: err}
	}
	return b, nil
}

// Close gives the file back: to whoever opens the payload next, or, if something
// went wrong with it or there are many already, to the system. Again, it does
// nothing.
func (f *File) Close() error {
	if f.closed.Swap(true) || f.d.options.Interceptor == nil && f.f != nil && f.d.idle.keep(f.opened) {
		return nil
	}
	return f.close()
}
