package grid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
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
	ctx := testContext(t)
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

func TestRequests(t *testing.T) {
	nodes := newTestMesh(t, 3)
	for _, n := range nodes {
		registerAll(t, n.Manager)
	}
	ctx := testContext(t)
	var wg sync.WaitGroup
	for _, a := range nodes {
		for _, b := range nodes {
			wg.Go(func() {
				c := a.Connection(b.Local())
				for _, size := range []int{0, 1, 63, 512, 5000, 16 << 10, 16<<10 + 1, 100_000, 1 << 20, 5 << 20} {
					req := bytes.Repeat([]byte{byte(size), 3, 7}, size/3+1)[:size]
					resp, err := c.Request(ctx, echoID, req)
					if err != nil || !bytes.Equal(resp, req) || resp == nil {
						t.Errorf("%s to %s: %d bytes: got %d, %v", a.Local(), b.Local(), size, len(resp), err)
						return
					}
				}
				if resp, err := c.Request(ctx, echoID, nil); resp != nil || err != nil {
					t.Errorf("nil came back as %v, %v", resp, err)
				}
				_, err := c.Request(ctx, failID, []byte("way"))
				var remote *RemoteError
				if !errors.As(err, &remote) || remote.Code != 42 || remote.Message != "no way" || !IsRemote(err) {
					t.Errorf("error came back as %v", err)
				}
				if _, err := c.Request(ctx, 999, nil); !errors.Is(err, ErrUnknownHandler) || !NotExecuted(err) {
					t.Errorf("unknown handler: %v", err)
				}
				if _, err := c.Request(ctx, panicID, nil); !errors.As(err, &remote) || remote.Code != CodePanic {
					t.Errorf("panic: %v", err)
				}
				if _, err := c.Request(ctx, countID, nil); !errors.Is(err, ErrUnknownHandler) {
					t.Errorf("request of a stream handler: %v", err)
				}
			})
		}
	}
	wg.Wait()
}

func TestStreams(t *testing.T) {
	nodes := newTestMesh(t, 2)
	for _, n := range nodes {
		registerAll(t, n.Manager)
	}
	ctx := testContext(t)
	for _, b := range nodes {
		c := nodes[0].Connection(b.Local())
		st, err := c.NewStream(ctx, countID, []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		const n = 1000
		go func() {
			for i := range n {
				st.Requests <- []byte(fmt.Sprint(i))
			}
			close(st.Requests)
		}()
		got := 0
		for r := range st.Responses {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if want := fmt.Sprint("re: ", got); string(r.Msg) != want {
				t.Fatalf("got %q, want %q", r.Msg, want)
			}
			got++
		}
		if got != n {
			t.Fatalf("got %d messages, want %d", got, n)
		}
	}
}

func TestPipeSizes(t *testing.T) {
	nodes := newTestMesh(t, 2)
	for _, n := range nodes {
		registerAll(t, n.Manager)
	}
	ctx := testContext(t)
	for _, b := range nodes {
		p, err := nodes[0].Connection(b.Local()).OpenPipe(ctx, pullID, nil)
		if err != nil {
			t.Fatal(err)
		}
		sizes := []int{0, 1, 512, 16 << 10, 16<<10 - 16, 16<<10 + 1, 64 << 10, 64<<10 + 1, 300_000, 5 << 20, 3}
		go func() {
			for i, size := range sizes {
				msg := bytes.Repeat([]byte{byte(i), 1, 2}, size/3+1)[:size]
				send := p.Send
				if i%2 == 1 {
					send = p.SendOwned
				}
				if err := send(ctx, msg); err != nil {
					t.Error(err)
				}
			}
			p.CloseSend()
		}()
		for i, size := range sizes {
			msg, err := p.Recv(ctx)
			if err != nil || !bytes.Equal(msg, bytes.Repeat([]byte{byte(i), 1, 2}, size/3+1)[:size]) {
				t.Fatalf("message %d of %d bytes: got %d, %v", i, size, len(msg), err)
			}
		}
		if _, err := p.Recv(ctx); err != io.EOF {
			t.Fatalf("end is %v", err)
		}
	}
}

func TestCancelReachesHandler(t *testing.T) {
	nodes := newTestMesh(t, 2)
	entered, left := make(chan struct{}, 1), make(chan error, 1)
	if err := nodes[1].Register(Handler{ID: blockID, Name: "block", Single: func(ctx context.Context, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}}); err != nil {
		t.Fatal(err)
	}
	c := nodes[0].Connection(nodes[1].Local())
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		<-entered
		cancel()
	}()
	if _, err := c.Request(ctx, blockID, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Fatalf("Request: %v", err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("handler: %v", err)
	}
	ctx, cancel = context.WithTimeout(testContext(t), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Request(ctx, blockID, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Request: %v", err)
	}
	<-entered
	<-left
}

func TestReconnects(t *testing.T) {
	nodes := newTestMesh(t, 2)
	for _, n := range nodes {
		registerAll(t, n.Manager)
	}
	entered := make(chan struct{}, 1)
	if err := nodes[1].Register(Handler{ID: blockID, Single: func(ctx context.Context, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}); err != nil {
		t.Fatal(err)
	}
	c := nodes[0].Connection(nodes[1].Local())
	go func() {
		<-entered
		c.session.Load().conn.Close()
	}()
	if _, err := c.Request(testContext(t), blockID, nil); !errors.Is(err, ErrDisconnected) || NotExecuted(err) {
		t.Fatalf("Request: %v", err)
	}
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Request(testContext(t), echoID, nil); err != nil {
		t.Fatal(err)
	}
}
