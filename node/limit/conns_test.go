package limit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
)

// TestWhoGivesWay: the one that has been quiet for longest, of the address where
// that has too many, and the newest if none is quiet.
func TestWhoGivesWay(t *testing.T) {
	var count tally
	c := NewConns(ConnOptions{Max: 4, MaxPerAddr: 2, Refused: count.refused})
	enter := func(addr string) *fakeConn {
		conn := &fakeConn{addr: addr}
		if c.enter(conn) == conn.closed {
			t.Fatalf("%s: in and closed are both %v", addr, conn.closed)
		}
		return conn
	}
	a1, b1 := enter("192.0.2.1:1"), enter("192.0.2.2:1")
	a2 := enter("192.0.2.1:2")
	c.Busy(a1)
	a3 := enter("192.0.2.1:3")
	if a1.closed || !a2.closed || a3.closed {
		t.Errorf("the address's own quiet one must go: %v %v %v", a1.closed, a2.closed, a3.closed)
	}
	c.Busy(a3)
	if a4 := enter("192.0.2.1:4"); !a4.closed {
		t.Error("a third of an address whose two are busy was let in")
	}
	if n := count.of("connections_per_address"); n != 2 {
		t.Errorf("%d counted for the address, want 2", n)
	}
	d1 := enter("192.0.2.4:1")
	c.Quiet(a1) // after b1 and d1
	e1 := enter("192.0.2.5:1")
	if !b1.closed || d1.closed || a1.closed || e1.closed {
		t.Errorf("the quiet one that was there first must go: %v %v %v", b1.closed, d1.closed, a1.closed)
	}
	for _, conn := range []net.Conn{a1, d1, e1} {
		c.Busy(conn)
	}
	if f1 := enter("192.0.2.6:1"); !f1.closed {
		t.Error("a connection was let in where all are busy")
	}
	if n := count.of("connections"); n != 2 {
		t.Errorf("%d counted, want 2", n)
	}
	for i := range loopbackRoom {
		if l := enter(fmt.Sprintf("127.0.0.1:%d", i+1)); l.closed {
			t.Fatalf("connection %d from loopback was refused", i)
		} else {
			c.Busy(l)
		}
	}
	if l := enter("[::1]:1"); !l.closed {
		t.Error("loopback has no bound")
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::",
		"[fe80::1%eth0]:80": "fe80::", "127.0.0.1:1": "127.0.0.1", "[::1]:1": "::1", "pipe": "invalid IP", "": "invalid IP",
	} {
		if got := source(addr).String(); got != want {
			t.Errorf("%s counts as %s, want %s", addr, got, want)
		}
	}
}

// TestConnsModel compares random sequences with what must hold at any time.
func TestConnsModel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	c := NewConns(ConnOptions{Max: 20, MaxPerAddr: 5})
	requests := map[*fakeConn]int{}
	for step := range 20_000 {
		open := make([]*fakeConn, 0, len(requests))
		for conn := range requests {
			if conn.closed {
				delete(requests, conn)
				continue
			}
			open = append(open, conn)
		}
		pick := func() *fakeConn {
			if len(open) == 0 {
				return nil
			}
			return open[random.IntN(len(open))]
		}
		switch conn := pick(); {
		case random.IntN(3) == 0 || conn == nil:
			conn := &fakeConn{addr: fmt.Sprintf("192.0.2.%d:%d", random.IntN(8), step+1)}
			if c.enter(conn) {
				requests[conn] = 0
			}
		case random.IntN(4) == 0:
			_ = conn.Close()
			c.ConnState(conn, http.StateClosed)
		case requests[conn] > 0 && random.IntN(2) == 0:
			requests[conn]--
			c.Quiet(conn)
		default:
			requests[conn]++
			c.Busy(conn)
		}
		checkConns(t, c, requests, fmt.Sprintf("seed %d, step %d", seed, step))
	}
}

func checkConns(t *testing.T, c *Conns, requests map[*fakeConn]int, where string) {
	t.Helper()
	open, quiet, by := 0, 0, map[string]int{}
	for conn, n := range requests {
		if conn.closed {
			if n > 0 && c.by[conn] != nil {
				t.Fatalf("%s: a closed one stayed", where)
			}
			continue
		}
		open++
		by[source(conn.addr).String()]++
		if n == 0 {
			quiet++
		}
	}
	if c.Open() != open || c.quiet.n != quiet || open > 20 || len(c.addrs) != len(by) {
		t.Fatalf("%s: %d open, %d quiet, %d addresses; want %d, %d, %d", where, c.Open(), c.quiet.n, len(c.addrs), open, quiet, len(by))
	}
	for addr, n := range by {
		if n > 5 {
			t.Fatalf("%s: %d of %s", where, n, addr)
		}
	}
}
