// Package gridtest runs a mesh of grid nodes in one process, over a network in
// memory whose links a test can cut, reset and make swallow everything.
//
//	mesh := gridtest.New(t, 3, func(i int, o *grid.ManagerOptions) { o.PingInterval = time.Second })
//	mesh.Node(0).Register(…)
//	mesh.WaitConnected(ctx)
//	mesh.Partition([]int{0}, []int{1, 2})
//
// Nothing in it reads a clock or sleeps, so that it works under
// testing/synctest with virtual time.
package gridtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gridloom/gridloom/grid"
)

// Mesh is a number of nodes that know each other. All methods may be called
// from many goroutines at once.
type Mesh struct {
	t      testing.TB
	change func(i int, o *grid.ManagerOptions)

	mu    sync.Mutex
	nodes []*node
	links map[[2]int]*link
}

// node is one running node. Restart replaces it.
type node struct {
	manager  *grid.Manager
	server   *http.Server
	listener *listener
	served   chan struct{}
}

// link is what lies between two nodes.
type link struct {
	cut   bool // connections are refused
	held  bool // nothing arrives, and nobody is told
	conns map[*conn]struct{}
}

// Secret is what the nodes prove to each other unless a test changes it.
const Secret = "gridtest's secret, known to all"

// New starts n nodes. change, which may be nil, alters the options of node i
// before it starts and whenever it restarts. The mesh ends with the test.
func New(t testing.TB, n int, change func(i int, o *grid.ManagerOptions)) *Mesh {
	t.Helper()
	m := &Mesh{t: t, change: change, nodes: make([]*node, n), links: make(map[[2]int]*link)}
	t.Cleanup(m.close)
	for i := range n {
		if err := m.start(i); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// Name gives the host name of node i.
func (m *Mesh) Name(i int) string { return fmt.Sprintf("http://node%d:80", i) }

// Node gives the manager of node i; after Restart it is another.
func (m *Mesh) Node(i int) *grid.Manager {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[i].manager
}

// Connection gives the connection from node i to node j.
func (m *Mesh) Connection(i, j int) *grid.Connection { return m.Node(i).Connection(m.Name(j)) }

// WaitConnected waits until every node has a session with every other.
func (m *Mesh) WaitConnected(ctx context.Context) error {
	for i := range m.nodes {
		for j := range m.nodes {
			if err := m.Connection(i, j).WaitConnected(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Mesh) start(i int) error {
	o := grid.ManagerOptions{
		Local:   m.Name(i),
		Secrets: func() [][]byte { return [][]byte{[]byte(Secret)} },
		Dial:    func(ctx context.Context, addr string) (net.Conn, error) { return m.dial(ctx, i, addr) },
	}
	for j := range m.nodes {
		o.Hosts = append(o.Hosts, m.Name(j))
	}
	if m.change != nil {
		m.change(i, &o)
	}
	nd := &node{listener: newListener(addr(fmt.Sprintf("node%d:80", i))), served: make(chan struct{})}
	manager, err := grid.NewManager(context.Background(), o)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(grid.RoutePath, manager.Handler())
	nd.manager, nd.server = manager, &http.Server{Handler: mux}
	m.mu.Lock()
	m.nodes[i] = nd
	m.mu.Unlock()
	go func() {
		defer close(nd.served)
		_ = nd.server.Serve(nd.listener) // ends by Close
	}()
	return nil
}

// Stop ends node i at once, without draining. Its peers see their
// connections break.
func (m *Mesh) Stop(i int) {
	m.mu.Lock()
	nd := m.nodes[i]
	m.mu.Unlock()
	if nd == nil {
		return
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := nd.manager.Close(ended); err != nil {
		m.t.Errorf("gridtest: close node %d: %v", i, err)
	}
	nd.server.Close()
	nd.listener.Close()
	<-nd.served
}

// Restart stops node i and starts another of the same name, without its
// handlers.
func (m *Mesh) Restart(i int) {
	m.t.Helper()
	m.Stop(i)
	if err := m.start(i); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Mesh) close() {
	for i := range m.nodes {
		m.Stop(i)
	}
}

func (m *Mesh) linkLocked(i, j int) *link {
	key := [2]int{min(i, j), max(i, j)}
	l := m.links[key]
	if l == nil {
		l = &link{conns: make(map[*conn]struct{})}
		m.links[key] = l
	}
	return l
}

// Reset breaks the connection between two nodes; they may connect again.
func (m *Mesh) Reset(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resetLocked(m.linkLocked(i, j))
}

func (m *Mesh) resetLocked(l *link) {
	for c := range l.conns {
		c.reset()
	}
	clear(l.conns)
}

// Cut breaks the connection between two nodes and refuses new ones.
func (m *Mesh) Cut(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.linkLocked(i, j)
	l.cut = true
	m.resetLocked(l)
}

// Blackhole makes the link between two nodes hold back every byte, in both
// directions and on new connections too, without an error to anybody.
func (m *Mesh) Blackhole(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.linkLocked(i, j)
	l.held = true
	for c := range l.conns {
		c.hold(true)
	}
}

// Heal makes the link between two nodes work again; what a blackhole held
// back arrives late, as it would by TCP.
func (m *Mesh) Heal(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.linkLocked(i, j)
	l.cut, l.held = false, false
	for c := range l.conns {
		c.hold(false)
	}
}

// Partition cuts every link between nodes of different groups.
func (m *Mesh) Partition(groups ...[]int) {
	for a := range groups {
		for b := range a {
			for _, i := range groups[a] {
				for _, j := range groups[b] {
					m.Cut(i, j)
				}
			}
		}
	}
}

// HealAll makes every link work again.
func (m *Mesh) HealAll() {
	for i := range m.nodes {
		for j := range i {
			m.Heal(i, j)
		}
	}
}

var errRefused = errors.New("gridtest: connection refused")

func (m *Mesh) dial(ctx context.Context, from int, to string) (net.Conn, error) {
	m.mu.Lock()
	target := -1
	for j := range m.nodes {
		if m.nodes[j] != nil && string(m.nodes[j].listener.addr) == to {
			target = j
		}
	}
	if target < 0 {
		m.mu.Unlock()
		return nil, errRefused
	}
	l := m.linkLocked(from, target)
	if l.cut {
		m.mu.Unlock()
		return nil, errRefused
	}
	ln := m.nodes[target].listener
	near, far := newConnPair(addr(fmt.Sprintf("node%d:1", from)), ln.addr)
	if l.held {
		near.hold(true)
	}
	l.conns[near] = struct{}{}
	near.onClose = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(l.conns, near)
	}
	m.mu.Unlock()
	select {
	case ln.queue <- far:
		return near, nil
	case <-ln.closed:
		near.Close()
		return nil, errRefused
	case <-ctx.Done():
		near.Close()
		return nil, ctx.Err()
	}
}

// listener hands the far ends of dialled connections to a node's server.
type listener struct {
	addr   addr
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener(a addr) *listener {
	return &listener{addr: a, queue: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
