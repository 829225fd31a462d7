//go:build unix

package grid

import (
	"net"
	"syscall"
)

// directWriter tries writes that do not block, so that a caller may write its
// own request. It belongs to the writer role.
type directWriter struct {
	raw syscall.RawConn
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool // made once: a closure a write would be garbage
}

func newDirectWriter(conn net.Conn) *directWriter {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	w := &directWriter{raw: raw}
	w.try = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.b)
			if w.err != syscall.EINTR {
				return true
			}
		}
	}
	return w
}

// write writes what the socket takes at once: all of b, a part, or nothing.
func (w *directWriter) write(b []byte) (int, error) {
	w.b = b
	err := w.raw.Write(w.try)
	w.b = nil
	if err != nil {
		return 0, err
	}
	if w.err == syscall.EAGAIN {
		return 0, nil
	}
	return max(w.n, 0), w.err
}
