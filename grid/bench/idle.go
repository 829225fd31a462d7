package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// Idle connections: one node with thousands of peers. The hub is a manager in
// this process; the peers are managers in the peer process, behind one
// listener that tells them apart by the name they are called by. Both ends
// are read after a garbage collection, before and after they connect, so that
// what is left over is the connections: about half dialled, half accepted.

// leavesStack is the far end of this measurement.
const leavesStack = "leaves"

// settle is how long connections are left alone before they are looked at:
// several times what the grid needs to return what it has borrowed.
const settle = 5 * time.Second

// leaves are many managers behind one listener.
type leaves struct {
	s      setup
	ln     net.Listener
	http   *http.Server
	served chan struct{}

	mu       sync.Mutex
	managers map[string]*grid.Manager // by host and port
}

func serveLeaves(s setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	l := &leaves{s: s, ln: ln, served: make(chan struct{}), managers: make(map[string]*grid.Manager)}
	mux := http.NewServeMux()
	mux.HandleFunc(grid.RoutePath, func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		m := l.managers[r.Host]
		l.mu.Unlock()
		if m == nil {
			http.NotFound(w, r)
			return
		}
		m.Handler().ServeHTTP(w, r)
	})
	mux.HandleFunc("/make", l.make)
	mux.HandleFunc("/join", l.join)
	l.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(l.served)
		l.http.Serve(ln)
	}()
	return l, nil
}

func leafName(i int) string { return fmt.Sprintf("leaf-%d:80", i) }

// make makes managers that know nobody yet.
func (l *leaves) make(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		m, err := grid.NewManager(context.Background(), grid.ManagerOptions{
			Local:   "http://" + leafName(i),
			Secrets: func() [][]byte { return [][]byte{l.s.Secret} },
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		l.managers[leafName(i)] = m
	}
}

// join makes the hub known to all.
func (l *leaves) join(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.managers {
		if err := m.AddHost(r.URL.Query().Get("host")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
}

func (l *leaves) addr() string { return l.ln.Addr().String() }

// close leaves the managers to the end of the process, which is about to come.
func (l *leaves) close() error {
	err := l.http.Close()
	<-l.served
	return err
}

// get asks the leaves for something.
func (l *idleRun) get(path string, query url.Values) error {
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, "http://"+l.far.addr()+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return nil
}

type idleRun struct {
	ctx context.Context
	far far
	hub *gridNode
}

// idleConnections measures b.idle connections of one manager.
func (b *bench) idleConnections(ctx context.Context) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s := b.base
	s.Stack = leavesStack
	f, err := startFar(ctx, s, false)
	if err != nil {
		return nil, err
	}
	defer f.close() // thousands of managers may take longer to end than they are given
	s.Stack = "grid"
	hub, err := newGridNodeDial(s, func(ctx context.Context, _ string) (net.Conn, error) { return dialTCP(ctx, f.addr()) })
	if err != nil {
		return nil, err
	}
	defer hub.close()
	run := &idleRun{ctx, f, hub}
	return run.measure(b.idle)
}

func (l *idleRun) measure(n int) (sample, error) {
	if err := l.get("/make", url.Values{"n": {strconv.Itoa(n)}}); err != nil {
		return nil, err
	}
	nearBefore := readUsage(true)
	farBefore, err := l.far.usage(true)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for i := range n {
		if err := l.hub.m.AddHost("http://" + leafName(i)); err != nil {
			return nil, err
		}
	}
	if err := l.get("/join", url.Values{"host": {l.hub.m.Local()}}); err != nil {
		return nil, err
	}
	for i := range n {
		if err := l.hub.m.Connection("http://" + leafName(i)).WaitConnected(l.ctx); err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	took := time.Since(start)
	if err := pause(l.ctx, settle, nil); err != nil {
		return nil, err
	}
	near := readUsage(true)
	far, err := l.far.usage(true)
	if err != nil {
		return nil, err
	}
	up := 0
	for _, st := range l.hub.m.Stats() {
		if st.State == grid.StateConnected && st.Sessions == 1 && st.Host != l.hub.m.Local() {
			up++
		}
	}
	if up != n {
		return nil, fmt.Errorf("%d of %d connections stayed up", up, n)
	}
	each := func(after, before uint64) float64 { return (float64(after) - float64(before)) / float64(n) }
	return sample{
		nearHeap: each(near.HeapBytes, nearBefore.HeapBytes), farHeap: each(far.HeapBytes, farBefore.HeapBytes),
		nearStack: each(near.StackBytes, nearBefore.StackBytes), farStack: each(far.StackBytes, farBefore.StackBytes),
		nearGo:  float64(near.Goroutines-nearBefore.Goroutines) / float64(n),
		farGo:   float64(far.Goroutines-farBefore.Goroutines) / float64(n),
		seconds: took.Seconds(),
	}, nil
}
