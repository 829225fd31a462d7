//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// load is GETs over kept connections, one request at a time on each. The
// connections are spread over a few threads, each with an epoll of its own. The
// first bytes of an answer are read and its head parsed; of the rest the kernel
// is told to drop it (MSG_TRUNC), so that next to nothing is spent here.
type load struct {
	addr     string
	requests [][]byte // whole heads; each connection begins at another and goes round
	size     int64    // of every body
	conns    int
	threads  int
}

// window is what happened in the measured time.
type window struct {
	took  time.Duration
	bytes int64 // of bodies, of those that were not whole by its end too
}

// stallTimeout is how long no connection may move a byte.
const stallTimeout = 20 * time.Second

// discardBytes is how much the kernel drops in one call at most.
const discardBytes = 1 << 20

// run has the load go for warm, then measures it. before and after are called at
// the window's ends.
func (l *load) run(ctx context.Context, warm, length time.Duration, before, after func() error) (w window, err error) {
	loops := make([]*loop, min(l.threads, l.conns))
	defer func() {
		for _, lp := range loops {
			if lp != nil {
				err = errors.Join(err, lp.close())
			}
		}
	}()
	for i := range loops {
		if loops[i], err = newLoop(l); err != nil {
			return w, err
		}
	}
	for i := range l.conns {
		if err := loops[i%len(loops)].connect(ctx, i*len(l.requests)/l.conns); err != nil {
			return w, err
		}
	}
	var wg sync.WaitGroup
	failed := make(chan error, len(loops))
	for _, lp := range loops {
		wg.Go(func() {
			if err := lp.serve(); err != nil {
				failed <- err
			}
		})
	}
	defer wg.Wait()
	defer func() {
		for _, lp := range loops {
			lp.ending.Store(true)
		}
	}()
	return measure(ctx, func() int64 { return received(loops) }, failed, warm, length, before, after)
}

// measure waits for warm, and then sees what is received within length.
func measure(ctx context.Context, received func() int64, failed <-chan error, warm, length time.Duration, before, after func() error) (w window, err error) {
	if err := wait(ctx, warm, failed); err != nil {
		return w, err
	}
	if err := before(); err != nil {
		return w, err
	}
	from, sofar := time.Now(), received()
	for w.bytes == 0 { // once, but where a machine is very slow: a stall ends it
		if err := wait(ctx, length, failed); err != nil {
			return w, err
		}
		w.bytes, w.took = received()-sofar, time.Since(from)
	}
	return w, after()
}

// received adds up the bytes of bodies.
func received(loops []*loop) (bytes int64) {
	for _, lp := range loops {
		bytes += lp.bytes.Load()
	}
	return bytes
}

// wait is for d, for ctx or for a failure.
func wait(ctx context.Context, d time.Duration, failed <-chan error) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// loop is one thread's share of the connections.
type loop struct {
	*load
	epoll  int
	conns  []*conn
	drop   []byte // never written to: memory that MSG_TRUNC is given
	bytes  atomic.Int64
	ending atomic.Bool
}

// conn is a connection. Its descriptor does not block.
type conn struct {
	fd   int
	next int    // index of the next request
	head []byte // as far as it has come; empty while a body comes
	left int64  // of the body
	buf  [headMaxBytes]byte
}

func newLoop(l *load) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{load: l, epoll: epoll, drop: make([]byte, discardBytes)}, nil
}

func (lp *loop) close() error {
	err := unix.Close(lp.epoll)
	for _, c := range lp.conns {
		err = errors.Join(err, unix.Close(c.fd))
	}
	return err
}

// connect adds a connection, and sends its first request.
func (lp *loop) connect(ctx context.Context, first int) error {
	fd, err := dial(ctx, lp.addr)
	if err != nil {
		return err
	}
	c := &conn{fd: fd, next: first % len(lp.requests)}
	c.head = c.buf[:0]
	lp.conns = append(lp.conns, c)
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(lp.conns) - 1)} // an index, no descriptor
	if err := unix.EpollCtl(lp.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	return lp.ask(c)
}

// dial gives a connection's descriptor that is nobody else's.
func dial(ctx context.Context, addr string) (int, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	tcp, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tcp.Close() }()
	raw, err := tcp.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr) // non-blocking, as the one that it was made of
}

// serve goes on until it is told to end, or a connection fails.
func (lp *loop) serve() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 128)
	moved := time.Now()
	for !lp.ending.Load() {
		n, err := unix.EpollWait(lp.epoll, events, 100)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		if n > 0 {
			moved = time.Now()
		} else if time.Since(moved) > stallTimeout {
			return fmt.Errorf("no connection has moved a byte for %v", stallTimeout)
		}
		for i := range events[:n] {
			if err := lp.readable(lp.conns[events[i].Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readable takes what a connection has.
func (lp *loop) readable(c *conn) error {
	for {
		var n int
		var err error
		want := len(c.buf) - len(c.head)
		if c.left == 0 {
			n, err = receive(c.fd, c.buf[len(c.head):], 0)
		} else {
			want = int(min(c.left, discardBytes))
			n, err = receive(c.fd, lp.drop[:want], unix.MSG_TRUNC)
		}
		switch {
		case err == unix.EAGAIN || err == unix.EINTR: // the latter comes again
			return nil
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			return fmt.Errorf("closed by the server: %w", io.ErrUnexpectedEOF)
		}
		inHead := c.left == 0
		if inHead {
			err = lp.took(c, n)
		} else {
			err = lp.dropped(c, int64(n))
		}
		whole := c.left == 0 && len(c.head) == 0
		if err != nil || whole || n < want && !(inHead && c.left > 0) {
			return err
		}
	}
}

// took is for n more bytes in c.buf.
func (lp *loop) took(c *conn, n int) error {
	c.head = c.buf[:len(c.head)+n]
	head, length, err := parseHead(c.head)
	if head == 0 || err != nil {
		return err
	}
	body := int64(len(c.head) - head)
	if length != lp.size || body > length {
		return fmt.Errorf("a body of %d bytes, and %d of it are here; want %d", length, body, lp.size)
	}
	c.head, c.left = c.buf[:0], length
	return lp.dropped(c, body)
}

// dropped is for n bytes of a body that need no more thought.
func (lp *loop) dropped(c *conn, n int64) error {
	lp.bytes.Add(n)
	if c.left -= n; c.left > 0 {
		return nil
	}
	return lp.ask(c)
}

// ask sends the next request, which fits into the socket's buffer: all that was
// sent before it has been answered.
func (lp *loop) ask(c *conn) error {
	request := lp.requests[c.next]
	if c.next++; c.next == len(lp.requests) {
		c.next = 0
	}
	n, err := unix.Write(c.fd, request)
	if err != nil || n < len(request) {
		return fmt.Errorf("sent %d of %d bytes: %w", n, len(request), err)
	}
	return nil
}
