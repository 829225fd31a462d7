package grid_test

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// proxy lies on the link between two nodes and forwards real TCP connections.
// It can do to them what networks do.
type proxy struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	closed  bool
	cut     bool          // connections are reset as soon as they are accepted
	held    bool          // nothing passes, and nobody is told
	delay   time.Duration // of every piece, in each direction
	slow    int           // bytes per millisecond that pass, if not 0
	flip    bool          // one bit of the next large piece is wrong
	tapping bool
	tapped  [2]bytes.Buffer // what passed while tapping: from the dialling end, and to it
	pairs   map[*proxyPair]struct{}
	dials   []time.Time
}

// proxyPair is one connection and its other half.
type proxyPair struct {
	near, far *net.TCPConn
	held      bool
}

func newProxy(target string) (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{ln: ln, target: target, changed: make(chan struct{}), pairs: make(map[*proxyPair]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) accept() {
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			return
		}
		near := conn.(*net.TCPConn)
		p.mu.Lock()
		p.dials = append(p.dials, time.Now())
		refuse := p.cut
		p.mu.Unlock()
		if refuse {
			reset(near)
			continue
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			reset(near)
			continue
		}
		pair := &proxyPair{near: near, far: far.(*net.TCPConn)}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			pair.reset()
			return
		}
		p.pairs[pair] = struct{}{}
		p.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { p.forward(pair, pair.near, pair.far, 0) })
		both.Go(func() { p.forward(pair, pair.far, pair.near, 1) })
		p.wg.Go(func() {
			both.Wait()
			p.mu.Lock()
			delete(p.pairs, pair)
			p.mu.Unlock()
		})
	}
}

// forward copies one direction until an end closes or the proxy does.
func (p *proxy) forward(pair *proxyPair, from, to *net.TCPConn, direction int) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass(pair, buf[:n], direction) {
			return
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// pass lets a piece through when its time has come; false when the proxy
// closes first.
func (p *proxy) pass(pair *proxyPair, b []byte, direction int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.delay
	if p.slow > 0 {
		wait += time.Duration(len(b)/p.slow) * time.Millisecond
	}
	if wait > 0 {
		p.mu.Unlock()
		<-time.After(wait)
		p.mu.Lock()
	}
	for (p.held || pair.held) && !p.closed {
		changed := p.changed
		p.mu.Unlock()
		<-changed
		p.mu.Lock()
	}
	if p.flip && len(b) > 1000 {
		b[len(b)/2] ^= 1
		p.flip = false
	}
	if p.tapping {
		p.tapped[direction].Write(b)
	}
	return !p.closed
}

func (p *proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// reset breaks every connection by RST.
func (p *proxy) reset() {
	p.set(func() {
		for pair := range p.pairs {
			pair.reset()
		}
	})
}

// halfOpen resets the dialling ends' halves; the accepting ends are not told
// and keep their sockets open.
func (p *proxy) halfOpen() {
	p.set(func() {
		for pair := range p.pairs {
			pair.held = true // what the far end would be told stays here
			reset(pair.near)
		}
	})
}

func (p *proxy) close() {
	p.ln.Close()
	p.set(func() {
		p.closed = true
		for pair := range p.pairs {
			pair.reset()
		}
	})
	p.wg.Wait()
}

func (p *proxyPair) reset() {
	reset(p.near)
	reset(p.far)
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}
