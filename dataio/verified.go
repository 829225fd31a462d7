package dataio

import (
	"context"
	"io"
)

// Verified reads the n bytes from off on, to the end if n is negative, and
// gives only what it has compared with the checksums, a MiB at a time: a
// damaged one is ErrCorrupted before the first of its bytes. When the context
// ends, Read returns its error, also while the drive doesn't answer. It holds a
// MiB of memory.
func (f *File) Verified(ctx context.Context, off, n int64) io.Reader {
	n, err := f.clip("verify", off, n)
	return &verified{ctx: ctx, f: f, off: off, left: n, err: err, ahead: blockBytes}
}

// verified is the reader of Verified. One goroutine uses it.
type verified struct {
	ctx  context.Context
	f    *File
	off  int64 // of what comes next
	left int64
	err  error  // set once
	buf  []byte // compared, not yet given
	room *[blockBytes]byte

	ready int64 // up to where it was prefetched
	ahead int64 // how much is prefetched next
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if v.err == nil && len(v.buf) == 0 {
		if v.left == 0 {
			v.err = io.EOF
		} else {
			v.err = v.fill()
		}
	}
	if v.err != nil {
		return 0, v.err
	}
	n := copy(p, v.buf)
	v.buf = v.buf[n:]
	return n, nil
}

// fill reads the MiB that has the next byte.
func (v *verified) fill() error {
	if v.room == nil {
		v.room = new([blockBytes]byte)
	}
	i := v.off / blockBytes
	// What is waited for is the prefetch, which ends with the context. The first
	// is small, as all of it is waited for before the first byte.
	if start := i * blockBytes; start >= v.ready {
		ahead := min(v.ahead, v.f.footer.size-start)
		if err := v.f.Prefetch(v.ctx, start, ahead); err != nil {
			return err
		}
		v.ready, v.ahead = start+ahead, NextWindowBytes
	}
	b, err := v.f.checkBlock(v.ctx, i, v.room)
	if err != nil {
		return err
	}
	b = b[v.off-i*blockBytes:]
	v.buf = b[:min(int64(len(b)), v.left)]
	v.off += int64(len(v.buf))
	v.left -= int64(len(v.buf))
	return nil
}
