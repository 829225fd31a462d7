package limit

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// ConnOptions are the limits of the connections of a listener.
type ConnOptions struct {
	Max        int                // in all
	MaxPerAddr int                // from one address that isn't loopback
	Refused    func(limit string) // nil is nobody
}

// loopbackRoom is how many connections from loopback there may be beyond Max.
const loopbackRoom = 64

// Conns are the connections of one listener. See the package comment for which
// one gives way.
//
// For an http.Server: Listen, ConnState, ConnContext and Handler, all four. Its
// connections stay what they are, since sendfile needs a bare *net.TCPConn. For
// a grpc.Server: Wrap alone, and Busy and Quiet from its stats handler.
type Conns struct {
	o ConnOptions

	mu    sync.Mutex // guards what follows, and all entries. No I/O under it.
	by    map[net.Conn]*entry
	addrs map[netip.Addr]*address
	quiet queue // without a request, longest first
}

// address is what one address has.
type address struct {
	n     int
	quiet queue // as Conns.quiet
}

// entry is one connection.
type entry struct {
	conn     net.Conn
	from     netip.Addr
	own      *address // that of from
	requests int
	inAll    place // in Conns.quiet, unless it has a request
	inOwn    place // in address.quiet, likewise
}

// NewConns begins with none.
func NewConns(o ConnOptions) *Conns {
	return &Conns{o: o, by: make(map[net.Conn]*entry), addrs: make(map[netip.Addr]*address)}
}

// Open is how many there are.
func (c *Conns) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.by)
}

// enter lets a connection in, or closes it. Another may be closed for it.
func (c *Conns) enter(conn net.Conn) bool {
	e := &entry{conn: conn, from: source(conn.RemoteAddr().String())}
	e.inAll.of, e.inOwn.of = e, e
	c.mu.Lock()
	gone, limit := c.makeRoomLocked(e)
	in := gone != e
	if gone != nil && in {
		c.leaveLocked(gone)
	}
	if in {
		own := c.addrs[e.from]
		if own == nil {
			own = new(address)
			c.addrs[e.from] = own
		}
		own.n++
		e.own = own
		c.by[conn] = e
		c.hushLocked(e)
	}
	c.mu.Unlock()
	if gone != nil {
		report(c.o.Refused, limit)
		_ = gone.conn.Close()
	}
	return in
}

// makeRoomLocked says which connection has to go so that e may come: none, an
// older one, or e itself.
func (c *Conns) makeRoomLocked(e *entry) (gone *entry, limit string) {
	loopback := e.from.IsLoopback()
	if own := c.addrs[e.from]; own != nil && own.n >= c.o.MaxPerAddr && !loopback {
		if oldest := own.quiet.front(); oldest != nil {
			return oldest, "connections_per_address"
		}
		return e, "connections_per_address"
	}
	n := len(c.by)
	if n < c.o.Max {
		return nil, ""
	}
	if oldest := c.quiet.front(); oldest != nil {
		return oldest, "connections"
	}
	if loopback && n < c.o.Max+loopbackRoom {
		return nil, ""
	}
	return e, "connections"
}

func (c *Conns) hushLocked(e *entry) {
	if e.inAll.next == nil {
		c.quiet.push(&e.inAll)
		e.own.quiet.push(&e.inOwn)
	}
}

func (c *Conns) rouseLocked(e *entry) {
	if e.inAll.next != nil {
		c.quiet.remove(&e.inAll)
		e.own.quiet.remove(&e.inOwn)
	}
}

func (c *Conns) leaveLocked(e *entry) {
	if c.by[e.conn] != e {
		return
	}
	c.rouseLocked(e)
	delete(c.by, e.conn)
	if own := c.addrs[e.from]; own.n > 1 {
		own.n--
	} else {
		delete(c.addrs, e.from)
	}
}

// leave takes a connection out that has ended.
func (c *Conns) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[conn]; e != nil {
		c.leaveLocked(e)
	}
}

// Busy says that a request of a connection has begun. The connection may be one
// over that which was accepted.
func (c *Conns) Busy(conn net.Conn) { c.request(conn, +1) }

// Quiet says that it has ended; once for each Busy.
func (c *Conns) Quiet(conn net.Conn) { c.request(conn, -1) }

func (c *Conns) request(conn net.Conn, delta int) {
	conn = bare(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[conn]
	if e == nil { // it had to go
		return
	}
	if e.requests += delta; e.requests > 0 {
		c.rouseLocked(e)
	} else {
		c.hushLocked(e)
	}
}

// Listen gives a listener that accepts what there is room for, for an
// http.Server.
func (c *Conns) Listen(l net.Listener) net.Listener { return &listener{l, c, false} }

// Wrap is Listen, with connections that leave by their Close.
func (c *Conns) Wrap(l net.Listener) net.Listener { return &listener{l, c, true} }

type listener struct {
	net.Listener
	conns *Conns
	wrap  bool
}

// Accept implements net.Listener. It doesn't return for what it refuses.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.conns.enter(conn) {
			continue
		}
		if l.wrap {
			conn = &leaving{conn, l.conns}
		}
		return conn, nil
	}
}

// leaving leaves when it is closed.
type leaving struct {
	net.Conn
	conns *Conns
}

func (l *leaving) Close() error {
	l.conns.leave(l.Conn)
	return l.Conn.Close()
}

// NetConn gives the bare connection.
func (l *leaving) NetConn() net.Conn { return l.Conn }

// bare gives the connection that was accepted, under TLS and our own wrappers.
func bare(conn net.Conn) net.Conn {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = over.NetConn()
	}
}

type connKey struct{}

// ConnState is an http.Server's. What was hijacked is bounded by who has it.
func (c *Conns) ConnState(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		c.leave(bare(conn))
	}
}

// ConnContext is an http.Server's.
func (c *Conns) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, bare(conn))
}

// Handler goes around an http.Server's.
func (c *Conns) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			c.Busy(conn)
			defer c.Quiet(conn)
		}
		next.ServeHTTP(w, r)
	})
}
