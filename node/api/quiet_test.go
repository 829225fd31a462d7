package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// pipes is a listener whose connections lie within the process, so that the time of
// a bubble goes on while they are quiet.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lineTimeout is that of the gateway of watchOverTLS.
const lineTimeout = 30 * time.Second

// watchOverTLS begins a JSON stream of what mesh has to be watched, within a
// bubble. ended is closed when its handler has returned.
func watchOverTLS(t *testing.T, mesh *stubMesh, http2 bool) (resp *http.Response, ended chan struct{}) {
	t.Helper()
	conn := newInProcess(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return next(ctx, req)
		},
		func(ctx context.Context, _ any, _ string, serve func(context.Context) error) error { return serve(ctx) })
	register(conn, &Options{Resources: mesh})
	var routes []route
	for _, desc := range services() {
		routes = append(routes, must(routesOf(desc))...)
	}
	g := must(newGateway(conn, routes, lineTimeout))
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ended = make(chan struct{})
	s := &httptest.Server{Listener: l, EnableHTTP2: http2, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			g.ServeHTTP(w, r)
		}),
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	transport := s.Client().Transport.(*http.Transport)
	transport.DialContext = l.dial
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	resp, err := s.Client().Get(s.URL + "/v1/metrics/watch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || (resp.ProtoMajor == 2) != http2 {
		t.Fatalf("%s %s", resp.Proto, resp.Status)
	}
	return resp, ended
}

// overBoth runs test for each version of HTTP.
func overBoth(t *testing.T, test func(t *testing.T, http2 bool)) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, http2) })
		})
	}
}

// TestQuietStream: a stream that has nothing to say for long goes on.
func TestQuietStream(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		mesh := &stubMesh{watched: make(chan observability.Watched, 1)}
		mesh.watched <- observability.Watched{Resources: watchedSample("a")}
		resp, ended := watchOverTLS(t, mesh, http2)
		watchLines(t, resp.Body, 1)
		for _, node := range []string{"b", "c"} {
			time.Sleep(3 * lineTimeout)
			mesh.watched <- observability.Watched{Resources: watchedSample(node)}
			if got := watchLines(t, resp.Body, 1)[0].GetNode().GetNode(); got != node {
				t.Errorf("got %q, want %q", got, node)
			}
		}
		time.Sleep(3 * lineTimeout)
		close(mesh.watched)
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
		<-ended
	})
}

// TestUnreadStream: a client that does not read is given up.
func TestUnreadStream(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		mesh := &stubMesh{watched: make(chan observability.Watched, 1)}
		mesh.watched <- observability.Watched{Resources: watchedSample("a")}
		_, ended := watchOverTLS(t, mesh, http2)
		begun, sent := time.Now(), 0
		for open := true; open; {
			select {
			case mesh.watched <- observability.Watched{Resources: watchedSample("a")}:
				sent++
			case <-ended:
				open = false
			case <-time.After(10 * lineTimeout):
				t.Fatal("a client that doesn't read is waited for")
			}
		}
		if took := time.Since(begun); sent == 0 || took != lineTimeout {
			t.Errorf("given up after %v and %d samples, want %v", took, sent, lineTimeout)
		}
	})
}

// TestStreamErrorCounted: an error behind a stream's first line is one to the metrics
// too.
func TestStreamErrorCounted(t *testing.T) {
	telemetry, err := observability.New(t.Context(), observability.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = telemetry.Shutdown(context.Background()) })
	s := serve(t, nil)
	front := newServer(t, telemetry.Requests().HTTP(s.http.Config.Handler))
	s.mesh.watched = make(chan observability.Watched, 1)
	s.mesh.watched <- observability.Watched{Resources: watchedSample("a")}
	resp := must(front.Client().Get(front.URL + "/v1/metrics/watch"))
	defer resp.Body.Close()
	watchLines(t, resp.Body, 1)
	s.api.EndWatches()
	if last, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(last), fault.Unavailable.Reason()) {
		t.Fatalf("the last line: %q, %v", last, err)
	}
	front.Close() // the count comes behind the answer
	w := httptest.NewRecorder()
	telemetry.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if want := `gridloom_request_errors_total{api="WatchMetrics",kind="unavailable",node="a",proto="http"} 1`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("no %s", want)
	}
}
