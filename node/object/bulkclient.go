package object

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	bulkDialTimeout   = 5 * time.Second
	bulkHeadTimeout   = 30 * time.Second // for a response's head; the drive may have to be waited for
	bulkCommitTimeout = time.Minute      // for the syncs at the end of an upload
	bulkErrorTimeout  = time.Second      // for the reason after a failed write
	bulkIdleTimeout   = 30 * time.Second
	bulkIdlePerPeer   = 16
)

// longAgo is a deadline that ends whatever a connection is at.
var longAgo = time.Unix(1, 0)

// bulkClient keeps connections of our own to the bulk ports of the peers, so
// that payload can be spliced from them: net/http's client would have read
// ahead. It has no goroutines but those of uploads and reapLoop.
type bulkClient struct {
	s *Service

	mu     sync.Mutex // guards the fields below it, and bulkPeer.idle. No I/O under it.
	peers  map[string]*bulkPeer
	closed bool
}

// bulkPeer is a peer by its base URL. Who has a slot takes an idle connection
// before a new one is opened, so that the open ones, idle or not, are never
// more than there are slots.
type bulkPeer struct {
	slots chan struct{} // connections in use, or being opened
	idle  []*bulkConn   // oldest first; at most bulkIdlePerPeer
}

// bulkConn is a connection. One goroutine at a time uses it.
type bulkConn struct {
	net.Conn
	peer   *bulkPeer
	node   string
	reader io.Reader // what payload is read from: *net.TCPConn if that can be
	head   headSource
	used   bool      // has served a request before
	since  time.Time // when it became idle
}

func newBulkClient(s *Service) *bulkClient {
	return &bulkClient{s: s, peers: make(map[string]*bulkPeer)}
}

func (b *bulkClient) peer(base string) *bulkPeer {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[base]
	if p == nil {
		p = &bulkPeer{slots: make(chan struct{}, b.s.o.BulkConns)}
		b.peers[base] = p
	}
	return p
}

// connect returns an idle connection to a node, or a new one, for which the
// oldest idle one makes way if fresh.
func (b *bulkClient) connect(ctx context.Context, n control.Node, fresh bool) (*bulkConn, error) {
	p := b.peer(n.URL)
	if err := b.slot(ctx, p, n.Name); err != nil {
		return nil, err
	}
	switch c := b.takeIdle(p, fresh); {
	case c != nil && !fresh:
		return c, nil
	case c != nil:
		b.discard(c)
	}
	c, err := b.dial(ctx, n)
	if err != nil {
		<-p.slots
		return nil, err
	}
	c.peer = p
	b.count(n.Name, +1)
	return c, nil
}

// takeIdle takes the idle connection that was used last, or the oldest; nil if
// there is none.
func (b *bulkClient) takeIdle(p *bulkPeer, oldest bool) *bulkConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := len(p.idle) - 1
	if i < 0 {
		return nil
	}
	if oldest {
		i = 0
	}
	c := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	return c
}

// slot waits until one more connection may be in use.
func (b *bulkClient) slot(ctx context.Context, p *bulkPeer, node string) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(b.s.o.WaitTimeout)
	defer t.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-t.C:
		return fault.New(fault.Overloaded, "node "+node, "all %d bulk connections to it are in use", cap(p.slots))
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bulkClient) count(node string, delta int) {
	if f := b.s.o.Hooks.BulkConns; f != nil {
		f(node, delta)
	}
}

func (b *bulkClient) dial(ctx context.Context, n control.Node) (*bulkConn, error) {
	u, err := url.Parse(n.URL)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ctx, cancel := context.WithTimeout(ctx, bulkDialTimeout)
	defer cancel()
	addr := net.JoinHostPort(u.Hostname(), port)
	var conn net.Conn
	if b.s.o.Dial != nil {
		conn, err = b.s.o.Dial(ctx, addr)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	c := &bulkConn{Conn: conn, node: n.Name, reader: conn}
	switch tcp, plain := conn.(*net.TCPConn); {
	case u.Scheme == "https":
		return c, c.secure(ctx, b.s.o.TLS, b.s.certificateName(n.Name, u))
	case plain:
		c.head = newTCPHead(tcp)
	default:
		c.head = &byteHead{conn: conn}
	}
	return c, nil
}

// secure puts TLS on a connection. The peer's certificate must be for name,
// unless the configuration has another.
func (c *bulkConn) secure(ctx context.Context, conf *tls.Config, name string) error {
	if conf == nil {
		conf = &tls.Config{}
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = name
	}
	conf.NextProtos = []string{"http/1.1"}
	t := tls.Client(c.Conn, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Conn.Close()
		return err
	}
	r := bufio.NewReaderSize(t, 32<<10)
	c.Conn, c.reader, c.head = t, r, bufferedHead{r}
	return nil
}

// release gives a connection and its slot back, to be used again if it is at
// the end of a response and in order. It is idle before somebody who waits for
// the slot looks for it.
func (b *bulkClient) release(c *bulkConn, again bool) {
	defer func() { <-c.peer.slots }()
	if again && c.SetDeadline(time.Time{}) == nil {
		b.mu.Lock()
		if !b.closed && len(c.peer.idle) < bulkIdlePerPeer {
			c.used, c.since = true, time.Now()
			c.peer.idle = append(c.peer.idle, c)
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
	}
	b.discard(c)
}

// discard closes a connection.
func (b *bulkClient) discard(c *bulkConn) {
	c.Close()
	b.count(c.node, -1)
}

// closeIdle closes the connections of a peer that became idle before a time.
func (b *bulkClient) closeIdle(p *bulkPeer, before time.Time) {
	b.mu.Lock()
	n := 0
	for n < len(p.idle) && p.idle[n].since.Before(before) {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	b.mu.Unlock()
	for _, c := range old {
		b.discard(c)
	}
}

// reapLoop closes idle connections until ctx ends.
func (b *bulkClient) reapLoop(ctx context.Context) {
	t := time.NewTicker(bulkIdleTimeout / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.closeAll(time.Now().Add(-bulkIdleTimeout))
		}
	}
}

func (b *bulkClient) closeAll(before time.Time) {
	b.mu.Lock()
	peers := make([]*bulkPeer, 0, len(b.peers))
	for _, p := range b.peers {
		peers = append(peers, p)
	}
	b.mu.Unlock()
	for _, p := range peers {
		b.closeIdle(p, before)
	}
}

// close closes the idle connections, and keeps none from now on.
func (b *bulkClient) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.closeAll(time.Now().Add(time.Hour))
}

// exchange sends a request's head and reads the head of the answer. The
// connection is the caller's then; its deadlines are to be set through
// c.until. A used connection that fails before the first byte of an answer was
// closed by the peer while idle, most likely: that is tried again, once, on a
// new one. No body has been sent by then.
func (b *bulkClient) exchange(ctx context.Context, n control.Node, method, path string, h http.Header, length int64) (*bulkConn, *http.Response, error) {
	// Where a node listens is for this node's own configuration to say, as it
	// does for the grid: the index may still have its address of before a move.
	if host := b.s.o.Conn(n.Name).Host(); host != "" {
		n.URL = host
	}
	b.s.sign(h, method, path, length, n.Name)
	if f := b.s.o.Hooks.Traceparent; f != nil {
		if parent := f(ctx); parent != "" {
			h.Set(headerTrace, parent)
		}
	}
	head := requestHead(n, method, path, h)
	for fresh := false; ; fresh = true {
		c, err := b.connect(ctx, n, fresh)
		if err != nil {
			return nil, nil, err
		}
		used := c.used
		resp, begun, err := c.ask(ctx, method, head)
		if err == nil {
			return c, resp, nil
		}
		b.release(c, false)
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if begun || !used || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil, err
		}
	}
}

// requestHead writes the head of a request: of h, the fields that bulk requests
// have, in this order.
func requestHead(n control.Node, method, path string, h http.Header) []byte {
	host := n.URL
	if u, err := url.Parse(n.URL); err == nil {
		host = u.Host
	}
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, name := range []string{
		"Range", "Expect", "Content-Length", "Transfer-Encoding",
		headerTrace, headerFrom, headerTo, headerMesh, headerExpires, headerProof,
	} {
		if value := h.Get(name); value != "" {
			head = fmt.Appendf(head, "%s: %s\r\n", name, value)
		}
	}
	return append(head, "\r\n"...)
}

// ask sends the head of a request and reads that of the answer.
func (c *bulkConn) ask(ctx context.Context, method string, head []byte) (resp *http.Response, begun bool, err error) {
	defer c.interrupt(ctx)()
	if err := c.until(ctx, c.SetDeadline, bulkHeadTimeout); err != nil {
		return nil, false, err
	}
	if _, err := c.Write(head); err != nil {
		return nil, false, err
	}
	return readHead(c.head, method)
}

// interrupt ends what the connection is at when ctx ends, until stop.
func (c *bulkConn) interrupt(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(longAgo) })
}

// until sets a deadline. ctx is looked at afterwards, since interrupt may have
// come before it.
func (c *bulkConn) until(ctx context.Context, set func(time.Time) error, d time.Duration) error {
	if err := set(time.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err()
}

// bulkFault gives the failure of an exchange a kind.
func bulkFault(err error, subject string) error {
	var fe *fault.Error
	if err == nil || errors.As(err, &fe) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &fault.Error{Kind: fault.Unavailable, Subject: subject, Detail: "its node's bulk port failed", Err: err}
}
