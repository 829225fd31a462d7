package dataio

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A Conn is a plaintext TCP connection on which the head of a response leaves
// together with the first bytes behind it, although whoever writes the head (as
// net/http) has to be made to write it alone, so that a file can be sent without
// being read: what is written after Hold waits for what comes next. In front of
// bytes that are in memory it goes out in one write with them, in front of a
// file or another connection with the flag that says that more is to come
// (MSG_MORE, Linux), so that the two share their first packet.
//
// Everything else is the TCP connection's own. Hold, Release, Cork, Write and ReadFrom
// are for one goroutine at a time, as Write alone would be in practice.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn

	corked  bool
	holding bool
	held    *heldBuffer // nil: nothing
	vectors [2][]byte
	send    net.Buffers // of vectors, while they are written
	now     writeNow
	file    sendNow
	comes   receive
}

// joinBytes is up to where bytes are copied behind what was held rather than
// gathered from two places: 4 KiB take 0.1 µs, a second vector longer.
const joinBytes = 16 << 10

// heldMost is how much is held back at most: a head has less.
const heldMost = 16 << 10

// heldBuffer has room for what is held, and a small body.
type heldBuffer struct {
	n    int
	data [heldMost + joinBytes]byte
}

var heldBuffers = sync.Pool{New: func() any { return new(heldBuffer) }}

// NewConn makes a Conn of a TCP connection.
func NewConn(c *net.TCPConn) *Conn {
	raw, err := c.SyscallConn()
	if err != nil {
		raw = nil // it is closed, which its users will see
	}
	return &Conn{TCPConn: c, raw: raw}
}

// NetConn gives the bare connection.
func (c *Conn) NetConn() net.Conn { return c.TCPConn }

// Hold has the next Write wait for what comes after it. Release ends that.
func (c *Conn) Hold() { c.holding = true }

// Release writes what is held back, if something is.
func (c *Conn) Release() error {
	c.holding = false
	if c.held == nil {
		return nil
	}
	held := c.take()
	defer heldBuffers.Put(held)
	_, err := c.TCPConn.Write(held.data[:held.n])
	return err
}

// Cork has the kernel keep what doesn't fill a packet for what comes next, for at most
// 200 ms (TCP_CORK, Linux; nothing elsewhere): a body of several windows wakes the
// other end less often. What is kept leaves when on is false.
func (c *Conn) Cork(on bool) {
	if c.corked != on {
		c.corked = on
		c.cork(on)
	}
}

func (c *Conn) take() *heldBuffer {
	held := c.held
	c.held, c.holding = nil, false
	return held
}

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	switch {
	case c.holding && c.held == nil && len(p) <= heldMost:
		c.held = heldBuffers.Get().(*heldBuffer)
		c.held.n = copy(c.held.data[:], p)
		c.holding = false
		return len(p), nil
	case c.held == nil:
		c.holding = false
		return c.TCPConn.Write(p)
	}
	held := c.take()
	defer heldBuffers.Put(held)
	if len(p) <= joinBytes {
		n, err := c.TCPConn.Write(held.data[:held.n+copy(held.data[held.n:], p)])
		return max(0, n-held.n), err
	}
	c.vectors = [2][]byte{held.data[:held.n], p}
	c.send = c.vectors[:]
	n, err := c.send.WriteTo(c.TCPConn)
	c.vectors, c.send = [2][]byte{}, nil
	return max(0, int(n)-held.n), err
}

// ReadFrom implements io.ReaderFrom: the bytes of a file or of another TCP
// connection are moved by the kernel, where it can (see Send).
func (c *Conn) ReadFrom(src io.Reader) (int64, error) {
	c.holding = false
	if c.held != nil {
		if !InKernel(src) {
			return CopyThrough(c, src)
		}
		held := c.take()
		err := c.writeMore(held.data[:held.n])
		heldBuffers.Put(held)
		if err != nil {
			return 0, err
		}
	}
	if r, ok := src.(*Range); ok {
		return c.sendRange(r)
	}
	return c.TCPConn.ReadFrom(src)
}

// InKernel says whether the bytes of src need not come to user space on their way
// to a connection in plaintext: they are a file's or a TCP connection's.
func InKernel(src io.Reader) bool {
	if limited, ok := src.(*io.LimitedReader); ok {
		src = limited.R
	}
	switch src.(type) {
	case *os.File, *net.TCPConn, *Range:
		return true
	}
	return false
}

// CopyThrough writes all of src to dst through a pooled buffer, past dst's ReadFrom.
func CopyThrough(dst io.Writer, src io.Reader) (int64, error) {
	buf := buffers.Get().(*[copyBufferBytes]byte)
	defer buffers.Put(buf)
	return io.CopyBuffer(writeOnly{dst}, src, buf[:])
}

// writeOnly hides ReadFrom from io.CopyBuffer.
type writeOnly struct{ io.Writer }
