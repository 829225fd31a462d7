package gridtest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// errReset is what both ends of a reset connection get.
var errReset = errors.New("gridtest: connection reset")

// wireBuffer is how much one direction of a connection holds, in bytes, as
// the two kernels' buffers would.
const wireBuffer = 256 << 10

// half is one direction of a connection: a bounded buffer with a switch that
// holds back what is in it, as a network does that loses every packet while
// both ends go on believing in it.
type half struct {
	mu      sync.Mutex
	buf     []byte
	held    bool
	ended   bool  // the writer has closed
	err     error // reset, or the reader has closed
	changed chan struct{}
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) read(b []byte, deadline <-chan struct{}) (int, error) {
	for {
		select {
		case <-deadline:
			return 0, os.ErrDeadlineExceeded
		default:
		}
		h.mu.Lock()
		if h.err != nil {
			defer h.mu.Unlock()
			return 0, h.err
		}
		if !h.held && len(h.buf) > 0 {
			n := copy(b, h.buf)
			h.buf = h.buf[:copy(h.buf, h.buf[n:])]
			close(h.changed)
			h.changed = make(chan struct{})
			h.mu.Unlock()
			return n, nil
		}
		if !h.held && h.ended {
			h.mu.Unlock()
			return 0, io.EOF
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
		}
	}
}

func (h *half) write(b []byte, deadline <-chan struct{}) (n int, err error) {
	for {
		select {
		case <-deadline:
			return n, os.ErrDeadlineExceeded
		default:
		}
		h.mu.Lock()
		switch {
		case h.err != nil:
			defer h.mu.Unlock()
			return n, h.err
		case h.ended:
			h.mu.Unlock()
			return n, net.ErrClosed
		}
		if room := min(wireBuffer-len(h.buf), len(b)); room > 0 {
			h.buf = append(h.buf, b[:room]...)
			b, n = b[room:], n+room
			close(h.changed)
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		if len(b) == 0 {
			return n, nil
		}
		select {
		case <-changed:
		case <-deadline:
		}
	}
}

// conn is one end of a connection in memory.
type conn struct {
	in, out       *half
	local, remote addr
	onClose       func()
	closeOnce     sync.Once
	readBy        deadline
	writeBy       deadline
}

type addr string

func (addr) Network() string  { return "gridtest" }
func (a addr) String() string { return string(a) }

func newConnPair(a, b addr) (*conn, *conn) {
	ab, ba := newHalf(), newHalf()
	near := &conn{in: ba, out: ab, local: a, remote: b}
	far := &conn{in: ab, out: ba, local: b, remote: a}
	for _, c := range []*conn{near, far} {
		c.readBy.init()
		c.writeBy.init()
	}
	return near, far
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b, c.readBy.wait()) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b, c.writeBy.wait()) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions; what was written before still arrives.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		c.out.change(func() { c.out.ended = true })
		c.in.change(func() { c.in.err = net.ErrClosed })
		c.readBy.set(time.Time{})
		c.writeBy.set(time.Time{})
		if c.onClose != nil {
			c.onClose()
		}
	})
	return nil
}

// reset breaks both directions at both ends.
func (c *conn) reset() {
	for _, h := range []*half{c.in, c.out} {
		h.change(func() {
			if h.err == nil {
				h.err = errReset
			}
		})
	}
}

// hold stops both directions, or lets them go on.
func (c *conn) hold(held bool) {
	for _, h := range []*half{c.in, c.out} {
		h.change(func() { h.held = held })
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.readBy.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.writeBy.set(t); return nil }

// deadline is a channel that closes at a time that may be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{}
}

func (d *deadline) init() { d.ch = make(chan struct{}) }

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ch
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	passed := false
	select {
	case <-d.ch:
		passed = true
	default:
	}
	if t.IsZero() || time.Until(t) > 0 {
		if passed {
			d.ch = make(chan struct{})
		}
		if !t.IsZero() {
			ch := d.ch
			d.timer = time.AfterFunc(time.Until(t), func() { closeOnce(&d.mu, ch) })
		}
		return
	}
	if !passed {
		close(d.ch)
	}
}

func closeOnce(mu *sync.Mutex, ch chan struct{}) {
	mu.Lock()
	defer mu.Unlock()
	select {
	case <-ch:
	default:
		close(ch)
	}
}
