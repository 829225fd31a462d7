package object

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

var bulkTestPeer = control.Node{Name: "b", URL: "http://b"}

// pipeClient is a client whose connections lead nowhere.
func pipeClient(conns int, hooks Hooks) *bulkClient {
	return newBulkClient(&Service{o: Options{
		BulkConns: conns, WaitTimeout: 10 * time.Second, Hooks: hooks,
		Dial: func(context.Context, string) (net.Conn, error) {
			c, _ := net.Pipe()
			return c, nil
		},
	}})
}

// TestBulkWaiter: who waits for a connection gets the first that is done with,
// at once, whether it can be used again or not.
func TestBulkWaiter(t *testing.T) {
	for _, again := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var r recorder
			b := pipeClient(1, r.hooks())
			held, err := b.connect(t.Context(), bulkTestPeer, false)
			must(t, err)
			if _, err := b.connect(t.Context(), bulkTestPeer, false); fault.KindOf(err) != fault.Overloaded {
				t.Errorf("a second connection: %v", err)
			}
			began := time.Now()
			got := make(chan *bulkConn)
			go func() {
				c, err := b.connect(t.Context(), bulkTestPeer, false)
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			synctest.Wait()
			b.release(held, again)
			c := <-got
			if c == nil {
				return
			}
			if (c == held) != again || time.Since(began) != 0 {
				t.Errorf("again %v: the same connection %v, after %v", again, c == held, time.Since(began))
			}
			b.release(c, true)
			b.close()
			if open, _ := r.conns(); open != 0 {
				t.Errorf("%d connections are open", open)
			}
		})
	}
}

// TestBulkFreshMakesWay: idle connections count, so that one more than the
// limit is never open.
func TestBulkFreshMakesWay(t *testing.T) {
	var r recorder
	b := pipeClient(2, r.hooks())
	var conns []*bulkConn
	for range 2 {
		c, err := b.connect(t.Context(), bulkTestPeer, false)
		must(t, err)
		conns = append(conns, c)
	}
	b.release(conns[0], true)
	c, err := b.connect(t.Context(), bulkTestPeer, true)
	must(t, err)
	if open, opened := r.conns(); c == conns[0] || open != 2 || opened != 3 {
		t.Errorf("the old connection %v, %d open of %d", c == conns[0], open, opened)
	}
	b.release(c, false)
	b.release(conns[1], false)
	b.close()
	if open, _ := r.conns(); open != 0 {
		t.Errorf("%d connections are open", open)
	}
}

// TestRequestHead: every field of a bulk request is sent, in one order.
func TestRequestHead(t *testing.T) {
	h := http.Header{}
	want := "PUT /p HTTP/1.1\r\nHost: b\r\n"
	for _, name := range []string{
		"Range", "Expect", "Content-Length", "Transfer-Encoding",
		headerFrom, headerTo, headerMesh, headerExpires, headerProof,
	} {
		h.Set(name, "v")
		want += name + ": v\r\n"
	}
	if got := string(requestHead(bulkTestPeer, http.MethodPut, "/p", h)); got != want+"\r\n" {
		t.Errorf("%q", got)
	}
}
