package lean

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// lookEvery is how often requests that take longer are looked after.
const lookEvery = 250 * time.Millisecond

// endTimeout is what handlers have whose connections were closed in the middle.
const endTimeout = time.Second

// Listener serves what is plain of the connections that it accepts, by the
// handler of an http.Server, and gives that server the others.
type Listener struct {
	net.Listener
	// Direct makes what serves the plainest requests of a connection. It is set
	// before the first Accept; nil: the handler serves all.
	Direct func(net.Conn) Direct

	server *http.Server
	base   context.Context
	closed chan struct{} // Close was called
	begin  sync.Once
	end    sync.Once
	failed chan error    // of Accept
	others chan net.Conn // for the server

	dated atomic.Pointer[second] // the latest

	workers sync.WaitGroup // conns, and who accepts and looks after them

	mu    sync.Mutex // guards what follows
	conns map[*conn]struct{}
	ended bool // no more of them are taken
}

// NewListener makes one, for server.Serve, over a listener of plaintext
// connections. Of the server it uses Handler, ReadHeaderTimeout, IdleTimeout,
// ConnContext, ConnState (of connections that end here) and ErrorLog, if there is
// one. What isn't a *dataio.Conn goes to the server as it is.
func NewListener(inner net.Listener, server *http.Server) *Listener {
	return &Listener{
		Listener: inner, server: server,
		base:   context.WithValue(context.Background(), http.ServerContextKey, server),
		closed: make(chan struct{}), failed: make(chan error), others: make(chan net.Conn),
		conns: make(map[*conn]struct{}),
	}
}

// Accept implements net.Listener. It gives the connections that are for
// net/http, with what was read of them.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ended {
			return
		}
		l.workers.Add(2)
		go l.accept()
		go l.look()
	})
	select {
	case <-l.closed: // also if there is one of the others
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-l.others:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// accept accepts until the listener is closed. What the server is to know of is
// told to it before the next is accepted: it rests after errors.
func (l *Listener) accept() {
	defer l.workers.Done()
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			select {
			case l.failed <- err:
				continue
			case <-l.closed:
				return
			}
		}
		joined, ok := conn.(*dataio.Conn)
		if !ok {
			l.hand(conn, conn)
			continue
		}
		if c := l.enter(joined); c != nil {
			go c.serve()
		}
	}
}

// enter makes a connection one of ours, unless there are to be no more.
func (l *Listener) enter(joined *dataio.Conn) *conn {
	c := newConn(l, joined)
	l.mu.Lock()
	ended := l.ended
	if !ended {
		l.conns[c] = struct{}{}
		l.workers.Add(1)
	}
	l.mu.Unlock()
	if ended {
		l.drop(joined)
		return nil
	}
	return c
}

// leave takes a connection out, whatever becomes of it.
func (l *Listener) leave(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// hand gives the server a connection. If it takes no more, it is closed.
func (l *Listener) hand(conn, bare net.Conn) {
	select {
	case l.others <- conn:
	case <-l.closed:
		l.drop(bare)
	}
}

// drop closes a connection that the server doesn't know of.
func (l *Listener) drop(conn net.Conn) {
	_ = conn.Close()
	if l.server.ConnState != nil {
		l.server.ConnState(conn, http.StateClosed)
	}
}

// Close implements net.Listener: what is idle is closed, what is under way ends
// with its answer. http.Server calls it first when it shuts down.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.end.Do(func() {
		close(l.closed)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
		for c := range l.conns {
			c.closeIdle()
		}
	})
	return err
}

// closing says that answers are the last of their connections.
func (l *Listener) closing() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Wait is for the end of all connections here, after Close. Those that are left
// when ctx ends are closed in the middle, and their handlers have endTimeout. One
// that hangs in the kernel longer is left behind, as http.Server does.
func (l *Listener) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		l.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	for c := range l.conns {
		_ = c.conn.Close()
		c.cancel()
	}
	l.mu.Unlock()
	end := time.NewTimer(endTimeout)
	defer end.Stop()
	select {
	case <-done:
	case <-end.C:
	}
	return ctx.Err()
}

// look ends the contexts of requests whose client has gone, as net/http does by
// reading on while a handler runs. Most requests have long been answered before
// somebody looks.
func (l *Listener) look() {
	defer l.workers.Done()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var long []*conn
	for {
		select {
		case <-tick.C:
		case <-l.closed:
			return
		}
		l.mu.Lock()
		long = long[:0]
		for c := range l.conns {
			if c.takesLong() {
				long = append(long, c)
			}
		}
		l.mu.Unlock()
		for i, c := range long {
			if c.conn.Gone() {
				c.cancel()
			}
			long[i] = nil
		}
	}
}

// second is what the field Date says in one.
type second struct {
	unix int64
	text string
}

// date is what Date says now: the same for most answers.
func (l *Listener) date(now time.Time) string {
	d := l.dated.Load()
	if d == nil || d.unix != now.Unix() {
		d = &second{now.Unix(), now.UTC().Format(http.TimeFormat)}
		l.dated.Store(d)
	}
	return d.text
}
