package grid

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// Handler serves the accepting end; mount it at RoutePath. It refuses with an
// HTTP error whatever can be refused before the connection is taken over.
func (m *Manager) Handler() http.Handler { return http.HandlerFunc(m.serveHTTP) }

// maxHandshakes bounds the handshakes under way at the accepting end.
const maxHandshakes = 1024

// handshakes are those under way at the accepting end, by the name that the
// peer claims. When there are too many, the name with most of them loses its
// oldest: whoever opens connections in a known name to say nothing on them
// keeps no other peer out. Where none has two, honest peers have all come at
// once, and the newest has to try again.
type handshakes struct {
	mu    sync.Mutex
	limit int
	n     int
	by    map[*Connection][]net.Conn // oldest first
}

// enter reports whether the handshake may begin.
func (h *handshakes) enter(c *Connection, conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n >= h.limit {
		var most *Connection
		for other, conns := range h.by {
			if len(conns) > len(h.by[most]) {
				most = other
			}
		}
		if len(h.by[most]) < 2 {
			return false
		}
		h.by[most][0].Close()
		h.removeLocked(most, h.by[most][0])
	}
	h.by[c] = append(h.by[c], conn)
	h.n++
	return true
}

// leave takes a handshake out that has ended, unless it had to go already.
func (h *handshakes) leave(c *Connection, conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(c, conn)
}

func (h *handshakes) removeLocked(c *Connection, conn net.Conn) {
	i := slices.Index(h.by[c], conn)
	if i < 0 {
		return
	}
	h.n--
	if h.by[c] = slices.Delete(h.by[c], i, i+1); len(h.by[c]) == 0 {
		delete(h.by, c)
	}
}

func (h *handshakes) underWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

func (m *Manager) serveHTTP(w http.ResponseWriter, r *http.Request) {
	claimed, c, status, err := m.screen(r)
	if err != nil {
		m.refused(r.RemoteAddr, claimed, err)
		http.Error(w, err.Error(), status)
		return
	}
	// The deadline is set before anything is written; the server's own
	// deadlines do not apply to a hijacked connection.
	conn, rw, _, err := ws.HTTPUpgrader{Timeout: m.o.HandshakeTimeout}.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		m.refused(r.RemoteAddr, claimed, err)
		return
	}
	secure := r.TLS != nil
	buffered := drainBuffered(rw.Reader)
	// In a goroutine of its own: the server's keeps the request's memory.
	if !m.spawn(func() { m.acceptConn(c, conn, buffered, secure) }) {
		conn.Close()
	}
}

// screen checks everything about an upgrade request that can be checked
// before the connection is taken over.
func (m *Manager) screen(r *http.Request) (claimed string, c *Connection, status int, err error) {
	claimed = clip(r.Header.Get(headerFrom))
	switch {
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return claimed, nil, http.StatusMethodNotAllowed, errors.New("grid: want GET by HTTP/1.1")
	case r.URL.Path != RoutePath:
		return claimed, nil, http.StatusNotFound, fmt.Errorf("grid: this node speaks %s", RoutePath)
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-Websocket-Version") != "13" || len(r.Header.Get("Sec-Websocket-Key")) != 24:
		return claimed, nil, http.StatusUpgradeRequired, errors.New("grid: want a WebSocket upgrade")
	case r.Header.Get(headerTo) != m.local:
		return claimed, nil, http.StatusMisdirectedRequest, errors.New("grid: this node has another name")
	}
	c = (*m.conns.Load())[claimed]
	switch {
	case c == nil || claimed == m.local:
		return claimed, nil, http.StatusForbidden, ErrUnknownHost
	case c.dials:
		return claimed, nil, http.StatusConflict, errors.New("grid: between these two names it is for this end to dial")
	}
	if err := m.checkCertificate(r, c); err != nil {
		return claimed, nil, http.StatusForbidden, err
	}
	return claimed, c, 0, nil
}

// checkCertificate binds the peer's name to its certificate. Without secrets
// that is the only proof, so it is asked for.
func (m *Manager) checkCertificate(r *http.Request, c *Connection) error {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return r.TLS.PeerCertificates[0].VerifyHostname(m.o.certificateName(c.h))
	}
	if m.o.Secrets == nil && !m.o.Insecure {
		return errors.New("grid: no verified client certificate")
	}
	return nil
}

func (m *Manager) refused(addr, claimed string, err error) {
	if hook := m.o.Hooks.Refused; hook != nil {
		hook(addr, claimed, err)
	}
	if m.unlet.first(claimed, err) {
		m.logInfo("grid: refused", "addr", addr, "claimed", claimed, "err", err)
	}
}

// acceptConn shakes hands at the accepting end and runs the session.
func (m *Manager) acceptConn(c *Connection, conn net.Conn, buffered []byte, secure bool) {
	if !m.shaking.enter(c, conn) {
		conn.Close()
		m.refused(conn.RemoteAddr().String(), c.host, errors.New("grid: too many handshakes under way"))
		return
	}
	s, skew, err := m.shake(c, conn, buffered, secure)
	m.shaking.leave(c, conn)
	if err != nil {
		conn.Close()
		m.refused(conn.RemoteAddr().String(), c.host, err)
		return
	}
	if err := c.serve(s, skew); !errors.Is(err, ErrDisconnected) {
		m.refused(conn.RemoteAddr().String(), c.host, err)
	}
}

func (m *Manager) shake(c *Connection, conn net.Conn, buffered []byte, secure bool) (*session, time.Duration, error) {
	if len(buffered) > maxHandshake {
		return nil, 0, fmt.Errorf("%w: %d bytes before the handshake", errProtocol, len(buffered))
	}
	timer := time.AfterFunc(m.o.HandshakeTimeout, func() { conn.Close() })
	unwatch := context.AfterFunc(c.life, func() { conn.Close() })
	defer unwatch()
	h := newHandshaker(m, conn, false, buffered)
	agreed, err := h.accept(c.host, secure, c.mayInstall)
	if !timer.Stop() && err == nil {
		err = errors.New("grid: handshake timed out")
	}
	if err != nil {
		return nil, 0, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, 0, err
	}
	info := SessionInfo{Host: c.host, RemoteAddr: conn.RemoteAddr().String(), Attempt: agreed.peer.attempt, Secure: secure}
	s := newSession(m, c, conn, info, agreed.peer, agreed.features)
	s.in.unread(h.in.buf[h.in.r:h.in.w])
	return s, agreed.skew, nil
}
