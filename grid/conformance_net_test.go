package grid_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// network is what a case runs on: nodes that know each other, and what can
// happen to the links between them. *gridtest.Mesh has these methods already.
type network interface {
	Node(i int) *grid.Manager
	Name(i int) string
	Connection(i, j int) *grid.Connection
	WaitConnected(ctx context.Context) error
	Reset(i, j int)
	Cut(i, j int)
	Blackhole(i, j int)
	Heal(i, j int)
	Restart(i int)
	Stop(i int)
}

// bed is a network with a clock: virtual in gridtest, real on TCP.
type bed struct {
	network
	t       *testing.T
	ctx     context.Context
	virtual bool
	tcp     *tcpNet // nil in gridtest
}

// until waits for a condition.
func (b *bed) until(what string, cond func() bool) {
	b.t.Helper()
	for !cond() {
		if b.ctx.Err() != nil {
			b.t.Fatalf("waited in vain until %s", what)
		}
		b.pass(time.Millisecond)
	}
}

// pass lets time pass, and everything settle where the clock is virtual.
func (b *bed) pass(d time.Duration) {
	if b.virtual {
		synctest.Wait()
	}
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
	}
	if b.virtual {
		synctest.Wait()
	}
}

// settle is the time after which what has not happened will not.
func (b *bed) settle() {
	if b.virtual {
		b.pass(time.Millisecond)
		return
	}
	b.pass(20 * time.Millisecond)
}

// serve registers handlers at node i.
func (b *bed) serve(i int, handlers ...grid.Handler) {
	b.t.Helper()
	register(b.t, b.Node(i), handlers...)
}

// call makes a request from node 0 to node 1 in the background.
func (b *bed) call(ctx context.Context, h grid.HandlerID, req []byte) <-chan error {
	errs := make(chan error, 1)
	go func() {
		_, err := b.Connection(0, 1).Request(ctx, h, req)
		errs <- err
	}()
	return errs
}

// jam makes calls from node 0 over a link that holds everything back until
// nothing more goes out: what is called next stays in the queue.
func (b *bed) jam(ctx context.Context, h grid.HandlerID) (calls []<-chan error) {
	b.t.Helper()
	const size, batch = 15_000, 100 // below a chunk: larger ones wait for the session window instead
	written, stood := uint64(0), 0
	b.until("the link is full", func() bool {
		st := b.Connection(0, 1).Stats()
		if st.BytesOut != written || st.QueuedBytes < 10*size {
			written, stood = st.BytesOut, 0
			for range batch {
				calls = append(calls, b.call(ctx, h, make([]byte, size)))
			}
		}
		stood++
		b.settle()
		return stood == 4
	})
	return calls
}

// inMemory runs f on gridtest: a call that hangs deadlocks the bubble and
// fails, a goroutine that is left behind too.
func inMemory(t *testing.T, n int, change func(int, *grid.ManagerOptions), f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		f(&bed{network: gridtest.New(t, n, change), t: t, ctx: ctx, virtual: true})
	})
}

// mesh is inMemory for tests that want no more than the mesh, connected.
func mesh(t *testing.T, n int, change func(int, *grid.ManagerOptions), f func(ctx context.Context, m *gridtest.Mesh)) {
	t.Helper()
	inMemory(t, n, change, func(b *bed) {
		if err := b.WaitConnected(b.ctx); err != nil {
			t.Fatal(err)
		}
		f(b.ctx, b.network.(*gridtest.Mesh))
	})
}

// onTCP runs f on loopback sockets, with TLS and certificates instead of a
// secret if ca is not nil.
func onTCP(t *testing.T, n int, ca *authority, change func(int, *grid.ManagerOptions), f func(b *bed)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	net := newTCPNet(t, n, ca, change)
	defer net.close()
	f(&bed{network: net, t: t, ctx: ctx, tcp: net})
}

// tcpNet is nodes on loopback TCP, each link through a proxy of its own.
type tcpNet struct {
	t         *testing.T
	ca        *authority
	change    func(int, *grid.ManagerOptions)
	listeners []net.Listener
	names     []string
	nodes     []atomic.Pointer[grid.Manager]
	servers   []*http.Server
	wg        sync.WaitGroup

	mu      sync.Mutex
	proxies map[[2]int]*proxy
}

func newTCPNet(t *testing.T, n int, ca *authority, change func(int, *grid.ManagerOptions)) *tcpNet {
	t.Helper()
	m := &tcpNet{t: t, ca: ca, change: change, nodes: make([]atomic.Pointer[grid.Manager], n), proxies: make(map[[2]int]*proxy)}
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		name := "http://" + ln.Addr().String()
		m.listeners = append(m.listeners, ln)
		if ca != nil {
			name = "https://" + ln.Addr().String()
			ln = tls.NewListener(ln, &tls.Config{
				Certificates: []tls.Certificate{ca.own()}, ClientCAs: ca.pool, ClientAuth: tls.RequireAndVerifyClientCert,
			})
		}
		m.names = append(m.names, name)
		server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if node := m.nodes[i].Load(); node != nil {
				node.Handler().ServeHTTP(w, r)
			}
		})}
		m.servers = append(m.servers, server)
		m.wg.Go(func() { _ = server.Serve(ln) })
	}
	for i := range n {
		m.start(i)
	}
	return m
}

func (m *tcpNet) start(i int) {
	m.t.Helper()
	o := grid.ManagerOptions{
		Local: m.names[i], Hosts: m.names,
		BackoffMin: 2 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			p, err := m.proxyTo(i, addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", p.ln.Addr().String())
		},
	}
	if m.ca != nil {
		o.TLS = &tls.Config{RootCAs: m.ca.pool, Certificates: []tls.Certificate{m.ca.own()}}
	} else {
		o.Secrets = func() [][]byte { return [][]byte{[]byte(gridtest.Secret)} }
	}
	if m.change != nil {
		m.change(i, &o)
	}
	node, err := grid.NewManager(context.Background(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.nodes[i].Store(node)
}

func (m *tcpNet) proxyTo(from int, addr string) (*proxy, error) {
	for j, ln := range m.listeners {
		if ln.Addr().String() == addr {
			return m.linkTo(from, j), nil
		}
	}
	return nil, fmt.Errorf("nobody is at %s", addr)
}

// link is the proxy between two nodes, of which only one ever dials.
func (m *tcpNet) link(i, j int) *proxy {
	if !m.Connection(i, j).Stats().Dialler {
		i, j = j, i
	}
	return m.linkTo(i, j)
}

func (m *tcpNet) linkTo(dialler, acceptor int) *proxy {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]int{min(dialler, acceptor), max(dialler, acceptor)}
	if m.proxies[key] == nil {
		p, err := newProxy(m.listeners[acceptor].Addr().String())
		if err != nil {
			m.t.Error(err)
			return nil
		}
		m.proxies[key] = p
	}
	return m.proxies[key]
}

func (m *tcpNet) Node(i int) *grid.Manager             { return m.nodes[i].Load() }
func (m *tcpNet) Name(i int) string                    { return m.names[i] }
func (m *tcpNet) Connection(i, j int) *grid.Connection { return m.Node(i).Connection(m.names[j]) }
func (m *tcpNet) Reset(i, j int)                       { m.link(i, j).reset() }

func (m *tcpNet) WaitConnected(ctx context.Context) error {
	for i := range m.nodes {
		for j := range m.nodes {
			if err := m.Connection(i, j).WaitConnected(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *tcpNet) Cut(i, j int) {
	p := m.link(i, j)
	p.set(func() { p.cut = true })
	p.reset()
}

func (m *tcpNet) Blackhole(i, j int) {
	p := m.link(i, j)
	p.set(func() { p.held = true })
}

func (m *tcpNet) Heal(i, j int) {
	p := m.link(i, j)
	p.set(func() {
		p.cut, p.held, p.delay, p.slow = false, false, 0, 0
		for pair := range p.pairs {
			pair.held = false
		}
	})
}

func (m *tcpNet) Stop(i int) {
	m.t.Helper()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Node(i).Close(ended); err != nil {
		m.t.Errorf("close node %d: %v", i, err)
	}
}

func (m *tcpNet) Restart(i int) {
	m.t.Helper()
	m.Stop(i)
	m.start(i)
}

func (m *tcpNet) close() {
	for i := range m.nodes {
		if m.Node(i) != nil {
			m.Stop(i)
		}
	}
	for _, server := range m.servers {
		server.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.proxies {
		p.close()
	}
	m.wg.Wait()
}
