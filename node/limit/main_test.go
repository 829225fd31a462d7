package limit

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/node/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tally counts what a limit refuses.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tally) refused(limit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[limit]++
}

func (c *tally) of(limit string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[limit]
}

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	addr   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return fakeAddr(c.addr) }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (a fakeAddr) String() string { return string(a) }

// checkOverloaded wants an error that says when to try again.
func checkOverloaded(t *testing.T, err error) time.Duration {
	t.Helper()
	var fe *fault.Error
	if !errors.As(err, &fe) || fe.Kind != fault.Overloaded || fe.Retry <= 0 {
		t.Fatalf("got %v, want an overloaded that says when to try again", err)
	}
	return fe.Retry
}
