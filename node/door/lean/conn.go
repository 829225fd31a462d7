package lean

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// bufferBytes is how large a head may be that is served here.
const bufferBytes = 4 << 10

// leastBytes is what net/http waits for behind an answer, before it takes what
// comes for a request. A connection that ends with fewer has no answer.
const leastBytes = 4

// States of a connection.
const (
	idle   int32 = iota // there is no whole head of a request
	active              // a request is served, or the connection given away
	ended               // it is closed, or net/http's
)

// conn is a connection that net/http hasn't got. One goroutine serves it.
type conn struct {
	l      *Listener
	conn   *dataio.Conn
	ctx    context.Context // above those of its requests
	cancel context.CancelFunc

	state  atomic.Int32
	serial atomic.Uint32 // of the request that is served; odd: there is one
	seen   uint32        // what it was when somebody looked last: look's own

	direct Direct // nil: there is none
	get    Get    // that it has

	head   head
	remote string      // address, as requests have it
	header http.Header // of requests, filled anew for each
	url    url.URL     // likewise
	writer writer

	data     []byte    // what has come and isn't served, in buf
	served   bool      // one request at least
	waited   bool      // the last read did
	patience int       // how often yielding may still be of no use; below zero: it rests
	deadline time.Time // of reads, as it is set
	// headUntil is the end of the head that has begun; zero: nobody has waited
	// for it yet.
	headUntil time.Time
	buf       [bufferBytes]byte
}

func newConn(l *Listener, joined *dataio.Conn) *conn {
	c := &conn{l: l, conn: joined, header: make(http.Header, maxFields)}
	ctx := l.base
	if l.server.ConnContext != nil {
		ctx = l.server.ConnContext(ctx, &answering{joined, &c.writer})
	}
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, joined.LocalAddr())
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.remote = joined.RemoteAddr().String()
	if l.Direct != nil {
		c.direct = l.Direct(joined)
	}
	c.writer.c = c
	c.writer.header = make(http.Header)
	return c
}

// serve serves requests as long as they are plain, and then gives the connection
// away or closes it.
func (c *conn) serve() {
	defer c.l.workers.Done()
	defer c.cancel()
	handed, finished := false, false
	defer func() {
		c.l.leave(c)
		if !handed {
			c.l.drop(c.conn)
		}
	}()
	c.setReadDeadline(after(time.Now(), c.l.server.ReadHeaderTimeout))
	for !finished {
		n, v := c.next()
		if v == unended || !c.rouse() {
			return
		}
		if v == doubtful {
			handed = true
			c.hand()
			return
		}
		finished = !c.answer(n)
	}
}

// next reads until there is a whole head of n bytes, or something that is for
// net/http. unended is the end of the connection.
func (c *conn) next() (n int, v verdict) {
	if !c.served {
		c.headUntil = c.deadline
	} else {
		c.headUntil = time.Time{}
	}
	if len(c.data) == 0 && !c.wait() {
		return 0, unended
	}
	for {
		if c.served && len(c.data) < leastBytes {
			n, v = 0, unended
		} else {
			n, v = c.head.parse(c.data)
		}
		switch {
		case v == unended && len(c.data) == len(c.buf):
			return 0, doubtful
		case v != unended:
			return n, v
		}
		if c.served && c.headUntil.IsZero() {
			c.setReadDeadline(after(time.Now(), c.l.server.ReadHeaderTimeout))
			c.headUntil = c.deadline
		}
		had := len(c.data)
		switch err := c.read(); {
		case len(c.data) > had: // an error comes again
		case err == nil:
		case !c.served || had >= leastBytes:
			return 0, doubtful // the same comes again, and net/http says what it thinks of it
		default:
			return 0, unended
		}
	}
}

// wait is for the first bytes of a request; false ends the connection. A read
// deadline costs more than a wait that it does not end: the one that there is
// stays, if it comes sooner, and then another takes its place.
func (c *conn) wait() bool {
	until := c.deadline
	if c.served {
		until = after(time.Now(), c.l.server.IdleTimeout)
		if !until.IsZero() && (c.deadline.IsZero() || c.deadline.After(until)) {
			c.setReadDeadline(until)
		}
	}
	yielded := c.served && c.yield()
	for {
		err := c.read()
		if yielded {
			yielded = false
			c.yielded(!c.waited)
		}
		switch {
		case len(c.data) > 0:
			return true
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.deadline.Equal(until):
			c.setReadDeadline(until)
		default:
			return false
		}
	}
}

// Where requests follow each other closely, the read for the next one most often
// comes a moment too early: it finds nothing, and is followed by a wait and by
// another. With much to do it needs only let others run first. With little to do
// that would wake a processor that has nothing to run.
const (
	patienceMost = 8  // after so many reads that found something, or more, as many may not
	patienceRest = 16 // reads without, once there was nothing too often
)

// yield lets others run before a read, if that has been of use.
func (c *conn) yield() bool {
	if c.patience < 0 {
		c.patience++
		return false
	}
	runtime.Gosched()
	return true
}

// yielded notes whether it was of use.
func (c *conn) yielded(useful bool) {
	switch {
	case useful:
		c.patience = min(c.patience+1, patienceMost)
	case c.patience > 0:
		c.patience--
	default:
		c.patience = -patienceRest
	}
}

// rouse makes an idle connection active, now that there is a head to serve,
// unless it was closed: one that comes in pieces keeps nobody from stopping.
func (c *conn) rouse() bool { return c.state.CompareAndSwap(idle, active) && !c.l.closing() }

// after is a time that comes after limit; the zero time, which never comes, where
// there is none.
func after(now time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return now.Add(limit)
}

func (c *conn) setReadDeadline(t time.Time) {
	c.deadline = t
	_ = c.conn.SetReadDeadline(t)
}

// read reads once, behind what there is.
func (c *conn) read() error {
	kept := len(c.data)
	if kept > 0 && &c.data[0] != &c.buf[0] {
		copy(c.buf[:], c.data)
	}
	n, waited, err := c.conn.Receive(c.buf[kept:])
	c.data, c.waited = c.buf[:kept+n], waited
	return err
}

// hand gives the connection to net/http.
func (c *conn) hand() {
	h := &handed{Conn: c.conn, rest: append([]byte(nil), c.data...), until: c.headUntil}
	h.old.framing.Store(int32(Bodyless))
	h.old.see(h.rest)
	c.l.hand(h, c.conn)
}

// answer serves the request whose head has n bytes, and says whether another may
// follow.
func (c *conn) answer(n int) bool {
	c.data = c.data[n:]
	c.serial.Add(1)
	again := c.run()
	c.serial.Add(1)
	c.served = true
	c.state.Store(idle)
	return again && !c.l.closing()
}

// fill makes the request of the head, with nothing of the one before.
func (c *conn) fill(ctx context.Context) *http.Request {
	h := &c.head
	clear(c.header)
	for i := range h.fields {
		c.header[h.fields[i].name] = h.fields[i].value
	}
	c.url = h.url
	fresh := http.Request{
		Method: h.method, URL: &c.url, RequestURI: h.target, Host: h.host, RemoteAddr: c.remote,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: c.header, Body: http.NoBody,
	}
	return fresh.WithContext(ctx)
}

// run has the handler serve the request, and ends the answer.
func (c *conn) run() (again bool) {
	defer func() {
		c.writer.free()
		if p := recover(); p != nil {
			again = false
			if p != http.ErrAbortHandler && c.l.server.ErrorLog != nil {
				buf := make([]byte, 64<<10)
				c.l.server.ErrorLog.Printf("http: panic serving %v: %v\n%s", c.remote, p, buf[:runtime.Stack(buf, false)])
			}
		}
	}()
	if served, again := c.serveDirect(); served {
		return again
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel() // whatever the handler has left behind ends with the request
	r := c.fill(ctx)
	c.writer.begin(r.Method == http.MethodHead)
	c.l.server.Handler.ServeHTTP(&c.writer, r)
	return c.writer.finish()
}

// closeIdle closes the connection if nothing has begun on it.
func (c *conn) closeIdle() {
	if c.state.CompareAndSwap(idle, ended) {
		_ = c.conn.Close()
	}
}

// takesLong says that the request that is served was so when it was called
// before. One goroutine calls it.
func (c *conn) takesLong() bool {
	before := c.seen
	c.seen = c.serial.Load()
	return c.seen == before && c.seen%2 == 1
}

// handed is a connection that net/http gets, with what was read of it first.
// Everything else is the connection's: its ReadFrom, Hold and Release too.
type handed struct {
	*dataio.Conn
	rest  []byte
	until time.Time   // the end of a head that has begun; zero: there is none
	set   atomic.Bool // a read deadline was
	old   old
}

// Read implements net.Conn.
func (h *handed) Read(p []byte) (int, error) {
	if len(h.rest) > 0 {
		n := copy(p, h.rest)
		if h.rest = h.rest[n:]; len(h.rest) == 0 {
			h.rest = nil
		}
		return n, nil
	}
	n, err := h.Conn.Read(p)
	h.old.see(p[:n])
	return n, err
}

// WriteTo implements io.WriterTo.
func (h *handed) WriteTo(w io.Writer) (n int64, err error) {
	if len(h.rest) > 0 {
		m, err := w.Write(h.rest)
		h.rest = h.rest[m:]
		if err != nil {
			return int64(m), err
		}
		n = int64(m)
	}
	m, err := h.Conn.WriteTo(w)
	return n + m, err
}

// SetReadDeadline implements net.Conn. The first one is that of the head, which
// has no more time than it had.
func (h *handed) SetReadDeadline(t time.Time) error {
	if !h.set.Load() && !h.set.Swap(true) && !h.until.IsZero() && h.until.Before(t) {
		t = h.until
	}
	return h.Conn.SetReadDeadline(t)
}

var _ net.Conn = (*handed)(nil)
