package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// network stands between the nodes of a mesh: the URL by which the others know
// a node is a proxy's, and the node listens behind it. A node has one URL for
// all the others, so the proxy reads in the head of a connection's first
// request who has dialled. It can then stop the bytes from any node to any
// other, each direction by itself.
//
// What is stopped isn't lost: it arrives after the cut, as TCP would send it
// again, unless one end has given up. So does the end of a connection, and so
// does an attempt to make one, which takes both directions. Nothing tells an
// end that there is a cut but its own clock.
type network struct {
	ctx   context.Context // ends with the test
	conns sync.WaitGroup

	mu      sync.Mutex // guards the rest
	names   map[string]string
	cuts    map[link]bool
	changed chan struct{}         // closed and replaced when cuts change
	open    map[net.Conn]struct{} // both ends of what is proxied
	over    bool                  // nothing is added to open any more
}

// link is one direction between two nodes.
type link struct{ from, to string }

// The fields of a request's head that say who dials: the grid's has the base
// URL, the bulk port's the name.
const (
	gridFrom = "Gridloom-Grid-From"
	bulkFrom = "Gridloom-Bulk-From"
)

func newNetwork(t *testing.T) *network {
	ctx, cancel := context.WithCancel(context.Background())
	n := &network{ctx: ctx, names: map[string]string{}, cuts: map[link]bool{}, changed: make(chan struct{}), open: map[net.Conn]struct{}{}}
	t.Cleanup(func() {
		cancel()
		n.breakAll(true)
		n.conns.Wait()
	})
	return n
}

// listen opens the proxy of a node, and returns the URL that is to be its name.
func (n *network) listen(t *testing.T, node, behind string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	n.mu.Lock()
	n.names[url] = node
	n.mu.Unlock()
	context.AfterFunc(n.ctx, func() { _ = l.Close() })
	n.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.conns.Go(func() { n.proxy(conn, node, behind) })
		}
	})
	return url
}

// proxy serves one connection to a node.
func (n *network) proxy(conn net.Conn, to, behind string) {
	if !n.add(conn) {
		return
	}
	defer n.remove(conn)
	from, head, err := n.dialler(conn)
	if err != nil {
		return
	}
	there, back := link{from, to}, link{to, from}
	if !n.passes(there) || !n.passes(back) {
		return
	}
	node, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(n.ctx, "tcp", behind)
	if err != nil {
		_ = conn.(*net.TCPConn).SetLinger(0) // refused, as the node itself would
		return
	}
	if !n.add(node) {
		return
	}
	defer n.remove(node)
	if _, err := node.Write(head); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(node, conn, there) })
	both.Go(func() { n.pump(conn, node, back) })
	both.Wait()
}

// dialler reads who dials, and returns the bytes that it has read.
func (n *network) dialler(conn net.Conn) (from string, head []byte, err error) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var read bytes.Buffer
	in := bufio.NewReader(io.TeeReader(io.LimitReader(conn, 64<<10), &read))
	req, err := http.ReadRequest(in)
	if err != nil {
		return "", nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	if from, err = url.QueryUnescape(req.Header.Get(bulkFrom)); err != nil || from == "" {
		from = req.Header.Get(gridFrom)
		n.mu.Lock()
		if name := n.names[from]; name != "" {
			from = name
		}
		n.mu.Unlock()
	}
	return from, read.Bytes(), nil
}

// pump moves one direction's bytes, and then its end.
func (n *network) pump(to, from net.Conn, l link) {
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if !n.passes(l) {
			return
		}
		if k > 0 {
			if _, err := to.Write(buf[:k]); err != nil {
				_ = from.Close()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.(*net.TCPConn).CloseWrite()
			return
		case err != nil:
			_ = to.Close()
			return
		}
	}
}

// passes waits until a link isn't cut; false at the test's end.
func (n *network) passes(l link) bool {
	for {
		n.mu.Lock()
		cut, changed := n.cuts[l], n.changed
		n.mu.Unlock()
		if !cut {
			return n.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return false
		}
	}
}

// add keeps a connection to be closed at the test's end.
func (n *network) add(conn net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		_ = conn.Close()
		return false
	}
	n.open[conn] = struct{}{}
	return true
}

func (n *network) remove(conn net.Conn) {
	_ = conn.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, conn)
}

// breakAll resets every connection between nodes.
func (n *network) breakAll(forGood bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = n.over || forGood
	for conn := range n.open {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

// cut stops what goes from one of the first to one of the second.
func (n *network) cut(from, to []string) {
	n.change(func() {
		for _, f := range from {
			for _, t := range to {
				if f != t {
					n.cuts[link{f, t}] = true
				}
			}
		}
	})
}

// heal ends every cut.
func (n *network) heal() { n.change(func() { clear(n.cuts) }) }

func (n *network) change(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}
