package dataio

import (
	"context"
	"io"
	"sync"
)

// The windows of Send, where Windows leaves them at zero. The first is small
// so that the time to the first byte is not the time of four mebibytes.
const (
	FirstWindowBytes = 64 << 10
	NextWindowBytes  = 4 << 20
)

// copyBufferBytes is the buffer for a destination that has no ReadFrom.
const copyBufferBytes = 128 << 10

// Windows says how Send divides a transfer, and what is done around each part.
// The zero value is ready for use.
type Windows struct {
	FirstBytes int64 // size of the first window; 0 is FirstWindowBytes
	NextBytes  int64 // size of every other; 0 is NextWindowBytes

	// Before is called before each window, for instance to renew the
	// connection's write deadline. An error ends the transfer and is returned
	// as it is.
	Before func() error
	// After is called after each window with the bytes that it moved, also
	// after one that failed. The first call comes when the first bytes were
	// handed to the kernel, which is where a time to first byte is taken.
	After func(n int64)
}

// buffers holds *[copyBufferBytes]byte for destinations without ReadFrom.
var buffers = sync.Pool{New: func() any { return new([copyBufferBytes]byte) }}

// Send moves the bytes that src has left to dst, one window after the other,
// and returns how many it moved. A context that ends is noticed between two
// windows; a window under way ends by dst's write deadline (see
// Windows.Before). A src that ends before its N bytes is io.ErrUnexpectedEOF.
//
// Each window is handed to dst's ReadFrom as an io.LimitedReader over src.R,
// which is the form that net.TCPConn and net/http look for: with an *os.File
// (File.Section) the kernel moves the bytes by sendfile(2), with a
// *net.TCPConn by splice(2), on Linux, to a plaintext connection. The other
// cases work, at the price of a copy: dst's own if it has a ReadFrom, else one
// through a pooled buffer of 128 KiB.
//
// After an error src is of no more use: dst may have taken more from it than it
// could pass on.
func Send(ctx context.Context, dst io.Writer, src *io.LimitedReader, w Windows) (int64, error) {
	if w.FirstBytes <= 0 {
		w.FirstBytes = FirstWindowBytes
	}
	if w.NextBytes <= 0 {
		w.NextBytes = NextWindowBytes
	}
	var sent int64
	size := w.FirstBytes
	for src.N > 0 {
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		if w.Before != nil {
			if err := w.Before(); err != nil {
				return sent, err
			}
		}
		want := min(size, src.N)
		if sent > 0 && src.N > want {
			prefetch(src.R, want, min(w.NextBytes, src.N-want))
		}
		n, err := sendWindow(dst, src.R, want)
		sent += n
		src.N -= n
		if w.After != nil {
			w.After(n)
		}
		if err != nil {
			return sent, err
		}
		if n < want {
			return sent, io.ErrUnexpectedEOF
		}
		size = w.NextBytes
	}
	return sent, nil
}

// sendWindow moves up to want bytes, fewer only at the end of src or on error.
func sendWindow(dst io.Writer, src io.Reader, want int64) (int64, error) {
	window := &io.LimitedReader{R: src, N: want}
	if rf, ok := dst.(io.ReaderFrom); ok {
		return rf.ReadFrom(window)
	}
	buf := buffers.Get().(*[copyBufferBytes]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(dst, window, buf[:])
}
