package limit

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// FloodOptions are the limits of one HTTP/2 connection.
type FloodOptions struct {
	// Frames is how many frames there may be in a second that ask for nothing and
	// carry nothing: resets, settings, priorities, continuations, empty data,
	// frames of unknown types; and what the server has to reset. Four times as many
	// may come at once.
	Frames int
	// Streams is how many may be waiting to be answered, from their header to the
	// end of the answer or a reset. A server that keeps its own limit has no
	// more; it is for one that can't.
	Streams int
	// Untaken is how long an answer may lie ready while none of what is ready
	// leaves: a client that opens no window would keep it for ever.
	Untaken time.Duration
	Refused func(limit string) // nil is nobody
}

// errFlood ends a connection.
var errFlood = errors.New("limit: the connection was closed for what it did with HTTP/2")

// Flood watches the plaintext of a server's HTTP/2 connection, by the heads of
// the frames alone. One goroutine reads, one writes; Begin and End come from any.
type Flood struct {
	net.Conn
	o    FloodOptions
	idle *rate.Limiter

	in, out frames // each of its goroutine

	mu     sync.Mutex // guards what follows; no I/O under it
	last   uint32     // greatest stream that the client has opened
	open   map[uint32]struct{}
	active int    // handlers that run
	moved  uint64 // frames that took an answer further
	timer  *time.Timer
	closed bool
}

// NewFlood begins before the client's preface.
func NewFlood(conn net.Conn, o FloodOptions) *Flood {
	return &Flood{
		Conn: conn, o: o, idle: rate.NewLimiter(rate.Limit(o.Frames), 4*o.Frames),
		in: frames{skip: len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")}, open: make(map[uint32]struct{}),
	}
}

// NetConn gives the connection below.
func (f *Flood) NetConn() net.Conn { return f.Conn }

// RemoteAddr is the client's, by which FloodOf finds the connection again.
func (f *Flood) RemoteAddr() net.Addr { return &floodAddr{f.Conn.RemoteAddr(), f} }

type floodAddr struct {
	net.Addr
	of *Flood
}

// FloodOf gives the connection that an address is of, if it is of one.
func FloodOf(addr net.Addr) (*Flood, bool) {
	a, ok := addr.(*floodAddr)
	if !ok {
		return nil, false
	}
	return a.of, true
}

// The frames of RFC 9113, section 6, and their flag.
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	framePing         = 6
	frameGoAway       = 7
	frameWindowUpdate = 8
	flagEndStream     = 1
)

// frame is the head of one.
type frame struct {
	size   int
	kind   byte
	flags  byte
	stream uint32
}

// frames finds them in a stream of bytes.
type frames struct {
	skip int // bytes of payload still to come
	head [9]byte
	have int // bytes of head
}

// next reads to the end of the next head in p, if it is there.
func (s *frames) next(p []byte) (f frame, rest []byte, ok bool) {
	n := min(s.skip, len(p))
	s.skip -= n
	p = p[n:]
	n = copy(s.head[s.have:], p)
	s.have += n
	if s.have < len(s.head) {
		return frame{}, nil, false
	}
	s.have = 0
	s.skip = int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
	return frame{
		size: s.skip, kind: s.head[3], flags: s.head[4],
		stream: binary.BigEndian.Uint32(s.head[5:]) &^ (1 << 31),
	}, p[n:], true
}

// Read implements net.Conn.
func (f *Flood) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	for h, rest, ok := f.in.next(p[:n]); ok; h, rest, ok = f.in.next(rest) {
		if limit := f.came(h); limit != "" {
			f.end(limit)
			return 0, errFlood
		}
	}
	return n, err
}

// Write implements net.Conn.
func (f *Flood) Write(p []byte) (int, error) {
	n, err := f.Conn.Write(p)
	for h, rest, ok := f.out.next(p[:n]); ok; h, rest, ok = f.out.next(rest) {
		f.left(h)
		if h.kind == frameReset && !f.idle.AllowN(time.Now(), min(resetCost(rest), f.idle.Burst())) {
			f.end("frames")
			return n, errFlood
		}
	}
	return n, err
}

// resetCost is what a reset of the server's counts, of which p begins behind the
// head: as one of the client's, where the stream was in vain, and 50 times as
// much where it was wrong. To find out that a list of fields is too large takes
// long.
func resetCost(p []byte) int {
	const protocolError, frameSizeError = 1, 6 // RFC 9113, section 7
	if len(p) >= 4 {
		switch binary.BigEndian.Uint32(p) {
		case protocolError, frameSizeError:
			return 50
		}
	}
	return 1
}

// came notes a frame of the client's. It returns the limit that it is over.
func (f *Flood) came(h frame) (limit string) {
	switch h.kind {
	case frameWindowUpdate, framePing, frameGoAway: // grpc limits pings itself
		return ""
	case frameHeaders:
		f.mu.Lock()
		defer f.mu.Unlock()
		if h.stream <= f.last { // trailers
			return ""
		}
		f.last = h.stream
		f.open[h.stream] = struct{}{}
		if f.o.Streams > 0 && len(f.open) > f.o.Streams {
			return "streams"
		}
		return ""
	case frameData:
		if h.size > 0 || h.flags&flagEndStream != 0 {
			return ""
		}
	case frameReset:
		f.mu.Lock()
		delete(f.open, h.stream)
		f.mu.Unlock()
	}
	if !f.idle.Allow() {
		return "frames"
	}
	return ""
}

// left notes a frame of the server's.
func (f *Flood) left(h frame) {
	switch {
	case h.kind == frameReset, h.kind <= frameHeaders && h.flags&flagEndStream != 0:
		f.mu.Lock()
		delete(f.open, h.stream)
		f.moved++
		f.mu.Unlock()
	case h.kind == frameData:
		f.mu.Lock()
		f.moved++
		f.mu.Unlock()
	}
}

// Begin says that a handler begins.
func (f *Flood) Begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active++
}

// End says that a handler has ended. What it leaves behind must go.
func (f *Flood) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active--
	if f.timer == nil && !f.closed && len(f.open) > f.active {
		f.armLocked()
	}
}

func (f *Flood) armLocked() {
	moved := f.moved
	f.timer = time.AfterFunc(f.o.Untaken, func() { f.check(moved) })
}

// check closes the connection if nothing has moved since.
func (f *Flood) check(moved uint64) {
	f.mu.Lock()
	f.timer = nil
	stuck := false
	switch {
	case f.closed || len(f.open) <= f.active:
	case f.moved == moved:
		stuck = true
	default:
		f.armLocked()
	}
	f.mu.Unlock()
	if stuck {
		f.end("untaken")
	}
}

func (f *Flood) end(limit string) {
	report(f.o.Refused, limit)
	_ = f.Close()
}

// Close implements net.Conn.
func (f *Flood) Close() error {
	f.mu.Lock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.mu.Unlock()
	return f.Conn.Close()
}
