package dataio

import (
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// writeMore writes p, and has the kernel keep what doesn't fill a packet for
// what comes next. That comes at once: else it leaves after 200 ms.
func (c *Conn) writeMore(p []byte) error {
	if c.raw == nil {
		_, err := c.TCPConn.Write(p)
		return err
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			n, err := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch err {
			case nil:
				p = p[n:]
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				failed = os.NewSyscallError("sendmsg", err)
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

func (c *Conn) cork(on bool) {
	if c.raw == nil {
		return
	}
	value := 0
	if on {
		value = 1
	}
	// It only saves packets: on a connection that is gone nothing depends on it.
	_ = c.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, value) })
}

// writeNow is a write that doesn't wait. It is a field of a Conn, so that it takes
// no memory of its own.
type writeNow struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool // write
}

func (w *writeNow) write(fd uintptr) bool {
	for {
		w.n, w.err = unix.Write(int(fd), w.p) // which doesn't wait: a net.Conn's never does
		if w.err != unix.EINTR {
			return true
		}
	}
}

// WriteNow writes what the kernel takes of p without a wait, and so without
// looking at the write deadline, unless that is over. It may write nothing.
func (c *Conn) WriteNow(p []byte) (n int, err error) {
	if c.raw == nil || len(p) == 0 {
		return 0, nil
	}
	if c.now.try == nil {
		c.now.try = c.now.write
	}
	c.now.p = p
	err = c.raw.Write(c.now.try)
	c.now.p = nil
	switch {
	case err != nil:
		return 0, err
	case c.now.err == unix.EAGAIN:
		return 0, nil
	case c.now.err != nil:
		return 0, os.NewSyscallError("write", c.now.err)
	}
	return c.now.n, nil
}

// receive is a read. It is a field of a Conn, as writeNow is.
type receive struct {
	p     []byte
	n     int
	tries int
	err   error
	try   func(fd uintptr) bool // read
}

func (r *receive) read(fd uintptr) bool {
	for r.tries++; ; {
		if r.n, r.err = unix.Read(int(fd), r.p); r.err != unix.EINTR {
			return r.err != unix.EAGAIN
		}
	}
}

// Receive is Read that says whether there was nothing to read at first, so that it
// had to wait.
func (c *Conn) Receive(p []byte) (n int, waited bool, err error) {
	if c.raw == nil || len(p) == 0 {
		n, err = c.TCPConn.Read(p)
		return n, true, err
	}
	r := &c.comes
	if r.try == nil {
		r.try = r.read
	}
	r.p, r.n, r.tries, r.err = p, 0, 0, nil
	err = c.raw.Read(r.try)
	r.p = nil
	switch {
	case err != nil:
		return 0, true, err
	case r.err != nil:
		return 0, r.tries > 1, os.NewSyscallError("read", r.err)
	case r.n == 0:
		return 0, r.tries > 1, io.EOF
	}
	return r.n, r.tries > 1, nil
}

// sendNow is a write and a sendfile that don't wait. It is a field of a Conn, as
// writeNow is.
type sendNow struct {
	head  []byte
	fd    int    // of the file
	at    *int64 // where in it; nil: at its position
	off   int64  // what at may point to
	n     int64
	waits bool // for room behind the head
	wrote int
	sent  int64
	err   error
	try   func(fd uintptr) bool // send
}

func (s *sendNow) send(fd uintptr) bool {
	for s.wrote < len(s.head) {
		n, err := unix.SendmsgN(int(fd), s.head[s.wrote:], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			s.wrote += n
		case unix.EINTR:
		case unix.EAGAIN:
			return true
		default:
			s.err = os.NewSyscallError("sendmsg", err)
			return true
		}
	}
	for s.sent < s.n {
		n, err := unix.Sendfile(int(fd), s.fd, s.at, int(min(s.n-s.sent, sendfileMost)))
		switch {
		case n > 0:
			s.sent += int64(n)
		case err == unix.EINTR:
		case err == unix.EAGAIN: // there is no room
			return !s.waits
		case err == nil: // the file has ended
			return true
		case err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP: // ReadFrom copies what can't be moved
			return true
		default:
			s.err = os.NewSyscallError("sendfile", err)
			return true
		}
	}
	return true
}

// sendfileMost is what one sendfile is asked for.
const sendfileMost = 4 << 20

// SendNow writes head and moves bytes of a file behind it, as many as the kernel
// takes without a wait, and so without looking at the write deadline, unless that
// is over. src has what is left then; of anything but a file that is all.
func (c *Conn) SendNow(head []byte, src io.Reader) (wrote int, sent int64, err error) {
	if c.raw == nil || c.held != nil {
		return 0, 0, nil
	}
	switch src := src.(type) {
	case *Range:
		return c.moveRange(head, src, false)
	case *io.LimitedReader:
		if f, ok := src.R.(*os.File); ok && src.N > 0 {
			c.file.at = nil
			wrote, sent, err = c.move(head, f, src.N, false)
			src.N -= sent
		}
	}
	return wrote, sent, err
}

// sendRange moves a Range, and waits for room.
func (c *Conn) sendRange(r *Range) (int64, error) {
	if c.raw == nil {
		return c.TCPConn.ReadFrom(r)
	}
	_, sent, err := c.moveRange(nil, r, true)
	if err != nil || r.left == 0 {
		return sent, err
	}
	n, err := c.TCPConn.ReadFrom(r) // it can't be moved, or has ended
	return sent + n, err
}

// moveRange is move with a Range's own offset.
func (c *Conn) moveRange(head []byte, r *Range, waits bool) (wrote int, sent int64, err error) {
	c.file.off = r.off
	c.file.at = &c.file.off
	wrote, sent, err = c.move(head, r.file(), r.left, waits)
	r.took(sent)
	return wrote, sent, err
}

// move has the kernel move up to n bytes of a file behind head.
func (c *Conn) move(head []byte, f *os.File, n int64, waits bool) (wrote int, sent int64, err error) {
	s := &c.file
	if s.try == nil {
		s.try = s.send
	}
	s.head, s.fd, s.n, s.waits = head, int(f.Fd()), n, waits
	s.wrote, s.sent, s.err = 0, 0, nil
	err = c.raw.Write(s.try)
	runtime.KeepAlive(f)
	s.head = nil
	if err == nil {
		err = s.err
	}
	return s.wrote, s.sent, err
}

// Gone says that the other end has closed the connection, or its half of it, and
// that everything it has sent was read. It takes nothing that has come.
func (c *Conn) Gone() (gone bool) {
	if c.raw == nil {
		return true
	}
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		for {
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				gone = err == nil && n == 0 || err != nil && err != unix.EAGAIN
				return
			}
		}
	})
	return gone || err != nil
}
