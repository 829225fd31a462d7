package dataio

import (
	"io"
	"os"
	"time"
)

// A Range is a payload on its way to a Conn, by an offset of its own: any number
// of them share an open file, whose position they leave alone. It is what Borrow
// gives, and belongs to one goroutine at a time. The zero value has nothing.
type Range struct {
	o    *opened // nil: nothing was borrowed
	off  int64   // what is sent next
	left int64
}

// Borrow has r be all of the payload id, if nothing has to be asked for that: the
// file is kept open, was looked at, and was found to be in memory, both less than
// 100 ms ago (see OpenNow and InMemory, which do that). r has nothing before, and
// is given back by Release. Nothing is allocated.
func (d *Drive) Borrow(r *Range, id ID) bool {
	if d.options.Interceptor != nil || d.operations.refuse.Load() {
		return false
	}
	o := d.idle.share(id, time.Now())
	if o == nil {
		return false
	}
	r.o, r.off, r.left = o, 0, o.footer.size
	return true
}

// Release gives the file back. Again, it does nothing.
func (r *Range) Release() {
	if r.o != nil {
		r.o.close()
		*r = Range{}
	}
}

// SizeBytes is File.SizeBytes.
func (r *Range) SizeBytes() int64 { return r.o.footer.size }

// CRC32C is File.CRC32C.
func (r *Range) CRC32C() uint32 { return r.o.footer.total }

// Left is how many bytes are still to be sent.
func (r *Range) Left() int64 { return r.left }

// file is what the bytes are in.
func (r *Range) file() *os.File { return r.o.f }

// took notes that n bytes were sent.
func (r *Range) took(n int64) { r.off, r.left = r.off+n, r.left-n }

// Read implements io.Reader, for where the kernel can't move the bytes.
func (r *Range) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.o.f.ReadAt(p[:min(int64(len(p)), r.left)], r.off)
	r.took(int64(n))
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}
