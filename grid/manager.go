package grid

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// RoutePath is where (*Manager).Handler is mounted. It is the protocol's
// name: a change of the protocol is a new path.
const RoutePath = "/grid/v1"

// Manager is one node's end of the grid: its handlers and its connections.
// All methods may be called from many goroutines at once.
type Manager struct {
	o        ManagerOptions
	self     host
	local    string
	instance string
	handlers handlerTable
	work     workPool
	running  gauge           // handlers that have not returned
	shaking  handshakes      // under way at the accepting end
	attempts atomic.Uint64   // of this instance, over all hosts
	undialed said            // why dialling comes to nothing
	unlet    said            // why peers aren't let in
	values   context.Context // what handlers' contexts look values up in
	started  time.Time

	life    context.Context // ends at the hard end of Close
	endLife context.CancelCauseFunc

	conns  atomic.Pointer[map[string]*Connection] // by normalised name; replaced, never changed
	connMu sync.Mutex                             // who replaces conns, and closing
	closed bool                                   // no more hosts, sessions or goroutines
	wg     sync.WaitGroup                         // every goroutine but workers

	closing  sync.Mutex // one Close at a time
	draining atomic.Bool
	done     bool
}

// elapsed is a reading of the monotonic clock alone, at half the price of
// time.Now.
func (m *Manager) elapsed() time.Duration { return time.Since(m.started) }

// NewManager starts a node's end of the grid. It connects to the hosts it
// dials in the background; the end of ctx ends what Close would end, without
// draining, but only Close joins.
func NewManager(ctx context.Context, o ManagerOptions) (*Manager, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	self, err := parseHost(o.Local)
	if err != nil {
		return nil, fmt.Errorf("grid: Local: %w", err)
	}
	m := &Manager{o: o, self: self, local: self.name, instance: string(randomBytes(instanceLen)), values: context.WithoutCancel(ctx), started: time.Now()}
	m.life, m.endLife = context.WithCancelCause(ctx)
	m.shaking.limit, m.shaking.by = maxHandshakes, make(map[*Connection][]net.Conn)
	m.running.zero = make(chan struct{}, 1)
	m.conns.Store(&map[string]*Connection{})
	loop := newConnection(m, self)
	m.conns.Store(&map[string]*Connection{self.name: loop})
	loop.startLoopback()
	for _, h := range o.Hosts {
		if err := m.AddHost(h); err != nil {
			m.endLife(ErrClosed)
			return nil, errors.Join(err, m.Close(m.life))
		}
	}
	return m, nil
}

// Local gives the normalised name of this node.
func (m *Manager) Local() string { return m.local }

// Hosts lists the normalised names of all other nodes, sorted.
func (m *Manager) Hosts() []string {
	names := slices.Collect(maps.Keys(*m.conns.Load()))
	names = slices.DeleteFunc(names, func(name string) bool { return name == m.local })
	sort.Strings(names)
	return names
}

// Handlers lists what is registered, by id.
func (m *Manager) Handlers() []Handler {
	var all []Handler
	m.handlers.each(func(reg *registration) { all = append(all, reg.Handler) })
	return all
}

// Connection gives the connection with a host, by its base URL in any
// spelling. It is never nil: calls on the connection of an unknown host give
// ErrUnknownHost. The local name gives a loopback.
func (m *Manager) Connection(name string) *Connection {
	if c := (*m.conns.Load())[name]; c != nil {
		return c
	}
	h, err := parseHost(name)
	if err != nil {
		h.name = name
	} else if c := (*m.conns.Load())[h.name]; c != nil {
		return c
	}
	c := newConnection(m, h)
	c.state = StateUnknown
	return c
}

// AddHost makes a host known and connects to it. A known host is no error; a
// plaintext host that nothing could prove itself by is one.
func (m *Manager) AddHost(name string) error {
	h, err := parseHost(name)
	if err != nil {
		return err
	}
	m.connMu.Lock()
	defer m.connMu.Unlock()
	if m.closed {
		return ErrClosed
	}
	conns := *m.conns.Load()
	if conns[h.name] != nil {
		return nil
	}
	if !h.secure && m.o.Secrets == nil && !m.o.Insecure {
		return fmt.Errorf("grid: host %s: over plaintext and without Secrets it could not prove who it is (set Insecure to allow that)", h.name)
	}
	c := newConnection(m, h)
	c.life, c.end = context.WithCancel(m.life)
	conns = maps.Clone(conns)
	conns[h.name] = c
	m.conns.Store(&conns)
	if c.dials {
		m.wg.Go(c.dialLoop)
	}
	return nil
}

// RemoveHost forgets a host: its session ends, and calls give ErrUnknownHost.
// The local host can't be removed.
func (m *Manager) RemoveHost(name string) error {
	h, err := parseHost(name)
	if err != nil {
		return err
	}
	if h.name == m.local {
		return fmt.Errorf("grid: %s is this node", h.name)
	}
	m.connMu.Lock()
	conns := *m.conns.Load()
	c := conns[h.name]
	if c == nil {
		m.connMu.Unlock()
		return fmt.Errorf("grid: remove %s: %w", h.name, ErrUnknownHost)
	}
	conns = maps.Clone(conns)
	delete(conns, h.name)
	m.conns.Store(&conns)
	m.connMu.Unlock()
	c.remove(StateUnknown, ErrUnknownHost)
	return nil
}

// spawn runs f in a goroutine that Close joins; false after Close.
func (m *Manager) spawn(f func()) bool {
	m.connMu.Lock()
	defer m.connMu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Go(f)
	return true
}

func (m *Manager) secrets() [][]byte {
	if m.o.Secrets == nil {
		return nil
	}
	return m.o.Secrets()
}

func (m *Manager) realm() string {
	if m.o.Realm == nil {
		return ""
	}
	return m.o.Realm()
}

// checkRealm compares the peer's realm with ours, once both have one.
func (m *Manager) checkRealm(theirs string) error {
	ours := m.realm()
	if ours == "" || theirs == "" || hmac.Equal([]byte(ours), []byte(theirs)) {
		return nil
	}
	return fmt.Errorf("%w: realm %q, the peer's is %q", errRefused, ours, clip(theirs))
}

func (m *Manager) logError(msg string, args ...any) {
	if m.o.Hooks.Logger != nil {
		m.o.Hooks.Logger.Error(msg, args...)
	}
}

func (m *Manager) logInfo(msg string, args ...any) {
	if m.o.Hooks.Logger != nil {
		m.o.Hooks.Logger.Info(msg, args...)
	}
}

// Stats is a snapshot of every connection, the loopback included, sorted by
// host.
func (m *Manager) Stats() []ConnectionStats {
	var all []ConnectionStats
	for _, c := range *m.conns.Load() {
		all = append(all, c.Stats())
	}
	slices.SortFunc(all, func(a, b ConnectionStats) int {
		if a.Host < b.Host {
			return -1
		}
		return 1
	})
	return all
}

// gauge counts what is under way and tells when nothing is.
type gauge struct {
	n       atomic.Int64
	waiting atomic.Bool
	zero    chan struct{} // a token: look again
}

func (g *gauge) add(d int64) {
	if g.n.Add(d) == 0 && g.waiting.Load() {
		signal(g.zero)
	}
}

// wait returns true when the count is zero, false when ctx ends first. One
// goroutine may wait at a time.
func (g *gauge) wait(ctx context.Context) bool {
	g.waiting.Store(true)
	defer g.waiting.Store(false)
	for g.n.Load() != 0 {
		select {
		case <-g.zero:
		case <-ctx.Done():
			return g.n.Load() == 0
		}
	}
	return true
}
