package grid

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Connection is this node's side of the one link with a host. It outlives
// sessions: the link may go and come. All methods may be called from many
// goroutines at once.
type Connection struct {
	m       *Manager
	h       host
	host    string
	dials   bool // this end dials
	session atomic.Pointer[session]
	count   counters
	rtt     atomic.Int64

	life context.Context // ends when the host is removed or the manager closes
	end  context.CancelFunc

	mu          sync.Mutex
	state       State
	changed     chan struct{} // closed at the next change of state; made by who waits
	current     *session      // published or about to be
	connectedAt time.Time
	sessions    uint64
	attempts    uint64
	lastError   error
	skew        time.Duration
}

// State says how a connection stands.
type State uint8

// The states of a connection.
const (
	StateUnknown      State = iota // the host is not known, or was removed
	StateConnecting                // never connected yet
	StateConnected                 // a session is up
	StateDisconnected              // the session was lost; the dialling end is at it
	StateDraining                  // a session is up whose peer is going away
	StateClosed                    // the manager is closed
)

// String names the state.
func (s State) String() string {
	names := [...]string{"unknown", "connecting", "connected", "disconnected", "draining", "closed"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

func newConnection(m *Manager, h host) *Connection {
	return &Connection{
		m: m, h: h, host: h.name, dials: dials(m.local, h.name),
		state: StateConnecting, life: m.life, end: func() {},
	}
}

// dials says whether local dials peer: a hash of both names decides, so that
// over many nodes each dials about half of the others.
func dials(local, peer string) bool {
	first, second := local, peer
	if peer < local {
		first, second = peer, local
	}
	sum := sha256.Sum256([]byte(first + "\x00" + second))
	return (sum[0]&1 == 0) == (local == first)
}

// Host gives the peer's normalised name.
func (c *Connection) Host() string { return c.host }

// State gives the present state.
func (c *Connection) State() State {
	c = c.resolve()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == StateConnected && c.current != nil && c.current.going.Load() {
		return StateDraining
	}
	return c.state
}

// resolve gives the connection that the manager has for the host by now: one
// that was unknown, or removed, may have been added since.
func (c *Connection) resolve() *Connection {
	if known := (*c.m.conns.Load())[c.host]; known != nil {
		return known
	}
	return c
}

// whyDown is the error of a call without a session.
func (c *Connection) whyDown() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case StateUnknown:
		return ErrUnknownHost
	case StateClosed:
		return ErrClosed
	}
	if c.lastError != nil && !errors.Is(c.lastError, ErrDisconnected) {
		return fmt.Errorf("%w: %w", ErrDisconnected, c.lastError)
	}
	if c.lastError != nil {
		return c.lastError
	}
	return ErrDisconnected
}

// WaitConnected returns when a session is up whose peer is not going away,
// when ctx ends, when the host is removed or when the manager closes.
func (c *Connection) WaitConnected(ctx context.Context) error {
	c = c.resolve()
	for {
		c.mu.Lock()
		state, changed := c.state, c.changedLocked()
		draining := c.current != nil && c.current.going.Load()
		c.mu.Unlock()
		switch state {
		case StateConnected:
			if !draining { // its calls would fail, and who tries again would spin
				return nil
			}
		case StateUnknown, StateClosed:
			return &Error{Op: "wait", Host: c.host, Err: c.whyDown(), notExecuted: true}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &Error{Op: "wait", Host: c.host, Err: errors.Join(ctx.Err(), c.whyDown()), notExecuted: true}
		}
	}
}

func (c *Connection) changedLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

func (c *Connection) setStateLocked(state State) {
	c.state = state
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// errSuperseded ends a session whose peer has made a newer one.
var errSuperseded = fmt.Errorf("%w: superseded by a newer session", ErrDisconnected)

// mayInstall tells whether a session of peer would be installed: a dial
// attempt of the same instance that is older than the present one's came late.
func (c *Connection) mayInstall(peer peerParams) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayInstallLocked(peer)
}

func (c *Connection) mayInstallLocked(peer peerParams) error {
	if c.m.draining.Load() || c.life.Err() != nil || c.state == StateUnknown || c.state == StateClosed {
		return errors.New("the host was removed, or this node is closing")
	}
	if old := c.current; old != nil && !old.isDead() &&
		old.peer.instance == peer.instance && old.peer.attempt >= peer.attempt {
		return fmt.Errorf("attempt %d is older than the session, which is of attempt %d", peer.attempt, old.peer.attempt)
	}
	return nil
}

// serve runs a session that has passed the handshake until it ends.
func (c *Connection) serve(s *session, skew time.Duration) error {
	c.mu.Lock()
	if err := c.mayInstallLocked(s.peer); err != nil {
		c.mu.Unlock()
		s.conn.Close()
		return err
	}
	old := c.current
	c.current = s
	c.connectedAt, c.skew = time.Now(), skew
	c.sessions++
	c.session.Store(s)
	c.setStateLocked(StateConnected)
	c.mu.Unlock()
	if old != nil {
		old.fail(errSuperseded)
	}
	hooks := &c.m.o.Hooks
	if hooks.SessionUp != nil {
		hooks.SessionUp(s.info)
	}
	c.m.undialed.forget(c.host)
	c.m.unlet.forget(c.host)
	c.m.logInfo("grid: session up", "host", c.host, "dialled", s.info.Dialled, "attempt", s.info.Attempt)
	cause := s.run()
	if hooks.SessionDown != nil {
		hooks.SessionDown(s.info, cause)
	}
	c.m.logInfo("grid: session down", "host", c.host, "cause", cause)
	return cause
}

// lost takes note that a session has ended.
func (c *Connection) lost(s *session, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session.CompareAndSwap(s, nil)
	c.lastError = cause
	if c.current == s {
		c.current = nil
		if c.state == StateConnected {
			c.setStateLocked(StateDisconnected)
		}
	}
}

// failed takes note of a dial attempt that came to nothing.
func (c *Connection) failed(attempt uint64, err error) {
	c.mu.Lock()
	c.lastError = err
	c.mu.Unlock()
	if hook := c.m.o.Hooks.DialFailed; hook != nil {
		hook(c.host, attempt, err)
	}
	if c.m.undialed.first(c.host, err) {
		c.m.logInfo("grid: dial failed", "host", c.host, "attempt", attempt, "err", err)
	}
}

// remove ends the connection for good.
func (c *Connection) remove(state State, cause error) {
	c.mu.Lock()
	s := c.current
	c.session.Store(nil)
	c.setStateLocked(state)
	c.mu.Unlock()
	if s != nil {
		s.fail(cause)
	}
	c.end()
}

// Stats gives a snapshot of counters and gauges.
func (c *Connection) Stats() ConnectionStats {
	st := ConnectionStats{
		Host: c.host, State: c.State(), Dialler: c.dials,
		BytesIn: c.count.bytesIn.Load(), BytesOut: c.count.bytesOut.Load(),
		MessagesIn: c.count.messagesIn.Load(), MessagesOut: c.count.messagesOut.Load(),
		BatchesIn: c.count.batchesIn.Load(), BatchesOut: c.count.batchesOut.Load(),
		RTT:         time.Duration(c.rtt.Load()),
		StreamWaits: c.count.streamWaits.Load(), WindowWaits: c.count.windowWaits.Load(), QueueWaits: c.count.queueWaits.Load(),
	}
	c.mu.Lock()
	st.ConnectedAt, st.Sessions, st.DialAttempts = c.connectedAt, c.sessions, c.attempts
	st.LastError, st.ClockOffset = c.lastError, c.skew
	s := c.current
	c.mu.Unlock()
	if s != nil {
		st.QueuedBytes = s.room.used.Load()
		st.QueuedCallers = int(s.room.waiting.Load())
		st.CallsOut = int(s.slots.used.Load())
		st.CallsIn = int(s.serving.Load())
	}
	return st
}
