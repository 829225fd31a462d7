package dataio

import (
	"context"
	"os"
	"sync"
	"time"
)

// touchBytes is the buffer that bytes are read into to have them in memory.
const touchBytes = 128 << 10

// touchBuffers holds *[touchBytes]byte.
var touchBuffers = sync.Pool{New: func() any { return new([touchBytes]byte) }}

// Prefetch returns when the n bytes from off on, to the end if n is negative,
// are in memory, so that a Section over them doesn't wait for the drive. If the
// context ends before, it returns the context's error, and the read goes on
// without it: then the drive is slow, and another copy may be quicker. An error
// of the file system is one of reading. It may overlap with everything.
//
// On Linux it takes two system calls, one for each page of a few, and no
// goroutine to find that up to 4 MiB are in memory already. Nothing keeps them there: the kernel may need the
// memory for something else before they are sent.
func (f *File) Prefetch(ctx context.Context, off, n int64) error {
	n, err := f.clip("prefetch", off, n)
	if err != nil || n == 0 {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.d.options.Interceptor == nil && f.inMemory(off, n) {
		return nil
	}
	err = f.d.await(ctx, func() error { return f.touch(off, n) }, nil)
	if err != nil {
		f.suspect.Store(true) // perhaps it is still being read
	}
	if err != nil && err != ctx.Err() {
		return f.d.readError("prefetch", f.id, err)
	}
	return err
}

// InMemory reports whether a range is known to be in memory, or was a moment ago:
// then Prefetch has nothing to do. It doesn't wait. On Linux it looks at each page
// of a range once in ten seconds, and asks only whether all are still there in between,
// which takes 1 µs rather than 70 for 4 MiB.
func (f *File) InMemory(off, n int64) bool {
	n, err := f.clip("prefetch", off, n)
	now := time.Now()
	switch {
	case err != nil || f.d.options.Interceptor != nil:
		return false
	case f.memory.has(off, n, now):
		return true
	case f.memory.hasRead(off, n, now) && cached(f.f, off, n):
		f.memory.found(off, n, false, now)
		return true
	case !f.inMemory(off, n):
		return false
	}
	f.memory.found(off, n, true, now)
	return true
}

// touch has what isn't in memory read, and waits for it. Where the kernel says
// which pages those are, one byte of each is enough: payload is the kernel's to
// move, and none of it passes through here.
func (f *File) touch(off, n int64) error {
	op := Op{Kind: OpRead, Name: f.opName(), Offset: off, Bytes: n}
	return f.d.do(op, func() error {
		advise(f.f, off, n) // all of it at once, before it is waited for
		buf := touchBuffers.Get().(*[touchBytes]byte)
		defer touchBuffers.Put(buf)
		for end := off + n; off < end; {
			next := min(off+touchBytes, end)
			b := buf[:next-off]
			if from, to, known := f.pages.missing(f.f, f.fileBytes, off, next-off); known {
				if from == to {
					off = next
					continue
				}
				b, off, next = buf[:1], from, min(pageAfter(from), next)
			}
			if err := f.fillAt(b, off); err != nil {
				return err
			}
			off = next
		}
		return nil
	})
}

// pageAfter is where the page behind the one of off begins.
func pageAfter(off int64) int64 {
	page := int64(os.Getpagesize())
	return off - off%page + page
}

// inMemory reports whether a range is known to be in memory.
func (f *File) inMemory(off, n int64) bool {
	if n > askNowBytes {
		from, to, known := f.pages.missing(f.f, f.fileBytes, off, n)
		if !known || to-from > touchBytes {
			return false
		}
		// A page that has more blocks than were written, as the last of a file,
		// or a large folio, counts as missing, and can be read nevertheless.
		off, n = from, to-from
	}
	if n == 0 {
		return true
	}
	buf := touchBuffers.Get().(*[touchBytes]byte)
	defer touchBuffers.Put(buf)
	for end := off + n; off < end; off = pageAfter(off) {
		if !readNow(f.f, buf[:1], off) {
			return false
		}
	}
	return true
}
