package grid

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gobwas/ws"
)

// The headers of the upgrade request, which let the accepting end refuse a
// stranger before it gives it a socket.
const (
	headerFrom = "Gridloom-Grid-From"
	headerTo   = "Gridloom-Grid-To"
)

// dialLoop keeps the connection up until the host is removed. The session
// runs in this goroutine.
func (c *Connection) dialLoop() {
	ctx := c.life
	bound := c.m.o.BackoffMin
	for ctx.Err() == nil {
		up := time.Now()
		c.dialOnce(ctx)
		if time.Since(up) > c.m.o.BackoffMax {
			bound = c.m.o.BackoffMin // it had been up for a while
		}
		// Full jitter, also after a session that ended as soon as it began.
		wait := time.NewTimer(time.Duration(rand.Int64N(int64(bound) + 1)))
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
		bound = min(2*bound, c.m.o.BackoffMax)
	}
}

// dialOnce makes one attempt and runs the session it leads to.
func (c *Connection) dialOnce(ctx context.Context) {
	attempt := c.m.attempts.Add(1)
	c.mu.Lock()
	c.attempts++
	c.mu.Unlock()
	s, skew, err := c.connect(ctx, attempt)
	if err == nil {
		err = c.serve(s, skew)
	}
	if err != nil && ctx.Err() == nil && (s == nil || !errors.Is(err, ErrDisconnected)) {
		c.failed(attempt, err)
	}
}

// connect dials, upgrades and shakes hands, within HandshakeTimeout.
func (c *Connection) connect(ctx context.Context, attempt uint64) (*session, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, c.m.o.HandshakeTimeout)
	defer cancel()
	conn, err := c.dialTransport(ctx)
	if err != nil {
		return nil, 0, err
	}
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	buffered, err := c.upgrade(conn)
	var agreed agreement
	var h *handshaker
	if err == nil {
		h = newHandshaker(c.m, conn, true, buffered)
		agreed, err = h.dial(c.host, attempt, c.h.secure)
	}
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, 0, err
	}
	info := SessionInfo{Host: c.host, RemoteAddr: conn.RemoteAddr().String(), Dialled: true, Attempt: attempt, Secure: c.h.secure}
	s := newSession(c.m, c, conn, info, agreed.peer, agreed.features)
	s.in.unread(h.in.buf[h.in.r:h.in.w])
	return s, agreed.skew, nil
}

// dialTransport opens the socket, with TLS on top for an https host.
func (c *Connection) dialTransport(ctx context.Context) (net.Conn, error) {
	dial := c.m.o.Dial
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", addr)
		}
	}
	conn, err := dial(ctx, c.h.addr)
	if err != nil || !c.h.secure {
		return conn, err
	}
	config := &tls.Config{}
	if c.m.o.TLS != nil {
		config = c.m.o.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = c.m.o.certificateName(c.h)
	}
	config.NextProtos = []string{"http/1.1"}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// upgrade makes a WebSocket of the connection. What the other end sent with
// its answer already is returned.
func (c *Connection) upgrade(conn net.Conn) ([]byte, error) {
	d := ws.Dialer{
		ReadBufferSize: smallRead,
		Header: ws.HandshakeHeaderHTTP(http.Header{
			headerFrom: {c.m.local},
			headerTo:   {c.host},
		}),
	}
	scheme := "ws"
	if c.h.secure {
		scheme = "wss"
	}
	br, _, err := d.Upgrade(conn, &url.URL{Scheme: scheme, Host: c.h.addr, Path: RoutePath})
	if err != nil {
		return nil, err
	}
	return drainBuffered(br), nil
}

// drainBuffered takes what a bufio.Reader has read ahead.
func drainBuffered(br *bufio.Reader) []byte {
	if br == nil || br.Buffered() == 0 {
		return nil
	}
	b := make([]byte, br.Buffered())
	n, _ := br.Read(b) // from memory: it can't fail
	return b[:n]
}
