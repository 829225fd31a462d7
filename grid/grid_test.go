package grid

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNode is a manager with its listener.
type testNode struct {
	*Manager
	server *http.Server
}

// newTestMesh starts n nodes that know each other, on loopback TCP.
func newTestMesh(t testing.TB, n int, change ...func(*ManagerOptions)) []*testNode {
	t.Helper()
	listeners := make([]net.Listener, n)
	hosts := make([]string, n)
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i], hosts[i] = ln, "http://"+ln.Addr().String()
	}
	nodes := make([]*testNode, n)
	for i := range n {
		o := ManagerOptions{Local: hosts[i], Hosts: hosts, Secrets: func() [][]byte { return [][]byte{[]byte("a secret of 32 bytes, or about it")} }}
		for _, f := range change {
			f(&o)
		}
		m, err := NewManager(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(RoutePath, m.Handler())
		nodes[i] = &testNode{m, &http.Server{Handler: mux}}
		go nodes[i].server.Serve(listeners[i])
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, node := range nodes {
			if err := node.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
			node.server.Close()
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second+time.Duration(n*n)*10*time.Millisecond)
	defer stop()
	for _, a := range nodes {
		for _, b := range nodes {
			if err := a.Connection(b.Local()).WaitConnected(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	return nodes
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const (
	echoID HandlerID = 1000 + iota
	failID
	blockID
	countID
	pullID
	panicID
)

func registerAll(t testing.TB, m *Manager) {
	t.Helper()
	for _, h := range []Handler{
		{ID: echoID, Name: "echo", Single: func(_ context.Context, req []byte) ([]byte, error) { return req, nil }},
		{ID: failID, Name: "fail", Single: func(_ context.Context, req []byte) ([]byte, error) {
			return nil, &RemoteError{Code: 42, Message: "no " + string(req)}
		}},
		{ID: panicID, Name: "panic", Single: func(context.Context, []byte) ([]byte, error) { panic("at the disco") }},
		{ID: countID, Name: "count", Stream: &StreamHandler{InCapacity: 8, OutCapacity: 8, Handle: func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				out <- append([]byte("re: "), msg...)
			}
			return ctx.Err()
		}}},
		{ID: pullID, Name: "pull", Stream: &StreamHandler{InCapacity: 64, OutCapacity: 64, Pull: func(ctx context.Context, payload []byte, p *Pipe) error {
			for {
				msg, err := p.Recv(ctx)
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if err := p.Send(ctx, msg); err != nil {
					return err
				}
			}
		}}},
	} {
		if err := m.Register(h); err != nil {
			t.Fatal(err)
		}
	}
}
