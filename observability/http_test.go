package observability

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener makes net/http serve over net.Pipe, so that real servers and
// clients run on a synctest bubble's clock.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// exchange serves one request by handler on a real server in virtual time,
// reads the response to its end, and returns when the server is gone. It gives
// what the client's own clock has measured.
func exchange(t *testing.T, p *probe, handler http.HandlerFunc, hr *http.Request) *clock {
	t.Helper()
	l := newPipeListener()
	server := &http.Server{Handler: p.HTTP(handler), ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { _ = server.Serve(l); close(served) }()
	mine := &clock{split: splitHTTP1}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		inner, err := l.dial(ctx)
		mine.Conn = inner
		return mine, err
	}}
	response, err := transport.RoundTrip(hr)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	transport.CloseIdleConnections()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
	synctest.Wait()
	return mine
}

// TestFirstByte is the definition, case by case, by the virtual clock; and what
// is measured is what the client has waited for by a clock of its own.
func TestFirstByte(t *testing.T) {
	const ms = time.Millisecond
	payload := strings.Repeat("x", 100_000)
	payloadFile := func(t *testing.T) *os.File {
		path := filepath.Join(t.TempDir(), "payload")
		if err := os.WriteFile(path, []byte(payload), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	readFrom := func(w http.ResponseWriter, src io.Reader) { _, _ = w.(io.ReaderFrom).ReadFrom(src) }

	for _, test := range []struct {
		name     string
		method   string
		handler  func(t *testing.T, w http.ResponseWriter, r *http.Request)
		labels   string
		ttfb     time.Duration
		duration time.Duration
		sent     int
	}{
		{"stall before the first byte", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(200 * ms)
			_, _ = w.Write([]byte("hello"))
		}, "GetObject http 2xx", 200 * ms, 200 * ms, 5},
		{"stall after the first byte", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(10 * ms)
			_, _ = w.Write([]byte("hello"))
			w.(http.Flusher).Flush()
			time.Sleep(200 * ms)
			_, _ = io.WriteString(w, " world")
		}, "GetObject http 2xx", 10 * ms, 210 * ms, 11},
		{"headers flushed long before the body", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			time.Sleep(200 * ms)
			_, _ = w.Write([]byte("hello"))
		}, "GetObject http 2xx", 200 * ms, 200 * ms, 5},
		{"empty writes", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(nil)
			readFrom(w, strings.NewReader(""))
			time.Sleep(30 * ms)
			_, _ = w.Write([]byte("hello"))
		}, "GetObject http 2xx", 30 * ms, 30 * ms, 5},
		{"windows of a file", "GET", func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			f := payloadFile(t)
			w.Header().Set("Content-Length", "100000")
			time.Sleep(20 * ms)
			readFrom(w, io.LimitReader(f, 64<<10))
			time.Sleep(200 * ms)
			readFrom(w, f)
		}, "GetObject http 2xx", 20 * ms, 220 * ms, len(payload)},
		{"a source that is slow", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			readFrom(w, slowReader{strings.NewReader("hello"), 40 * ms})
		}, "GetObject http 2xx", 80 * ms, 80 * ms, 5}, // its data and its EOF
		{"HEAD", "HEAD", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			time.Sleep(50 * ms)
			w.WriteHeader(200)
		}, "GetObject http 2xx", 50 * ms, 50 * ms, 0},
		{"HEAD, flushed", "HEAD", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			w.(http.Flusher).Flush()
			time.Sleep(200 * ms)
		}, "GetObject http 2xx", 50 * ms, 250 * ms, 0},
		{"HEAD with a body that net/http drops", "HEAD", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("hello"))
			readFrom(w, strings.NewReader("hello"))
			time.Sleep(50 * ms)
		}, "GetObject http 2xx", 50 * ms, 50 * ms, 0},
		{"204", "DELETE", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			w.WriteHeader(204)
		}, "GetObject http 2xx", 50 * ms, 50 * ms, 0},
		{"304, flushed", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			w.WriteHeader(304)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(200 * ms)
		}, "GetObject http 3xx", 50 * ms, 250 * ms, 0},
		{"304 with a body that net/http refuses", "GET", func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(304)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("Write after 304: %v", err)
			}
			time.Sleep(50 * ms)
		}, "GetObject http 3xx", 50 * ms, 50 * ms, 0},
		{"empty, of known length", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			time.Sleep(200 * ms)
		}, "GetObject http 2xx", 0, 200 * ms, 0},
		{"headers flushed and no body after all", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			w.(http.Flusher).Flush()
			time.Sleep(200 * ms)
		}, "GetObject http 2xx", 50 * ms, 250 * ms, 0},
		{"nothing written", "PUT", func(*testing.T, http.ResponseWriter, *http.Request) {
			time.Sleep(50 * ms)
		}, "GetObject http 2xx", 50 * ms, 50 * ms, 0},
		{"1xx first", "PUT", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			time.Sleep(50 * ms)
			w.WriteHeader(http.StatusCreated)
		}, "GetObject http 2xx", 50 * ms, 50 * ms, 0},
		{"error with a body", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			http.Error(w, "no", 404)
		}, "GetObject http 4xx", 50 * ms, 50 * ms, 3},
		{"error without a body", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			time.Sleep(50 * ms)
			w.WriteHeader(503)
		}, "GetObject http 5xx", 50 * ms, 50 * ms, 0},
		{"a second status", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			w.WriteHeader(500)
		}, "GetObject http 4xx", 0, 0, 0},
		{"abort before a status", "GET", func(*testing.T, http.ResponseWriter, *http.Request) {
			time.Sleep(50 * ms)
			panic(http.ErrAbortHandler)
		}, "GetObject http 5xx", 50 * ms, 50 * ms, 0},
		{"abort in the body", "GET", func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("hello"))
			time.Sleep(50 * ms)
			panic(http.ErrAbortHandler)
		}, "GetObject http 2xx", 0, 50 * ms, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProbe(t)
				hr := httptest.NewRequestWithContext(t.Context(), test.method, "http://node/", nil)
				mine := exchange(t, p, func(w http.ResponseWriter, r *http.Request) {
					SetAPI(r.Context(), "GetObject")
					test.handler(t, w, r)
				}, hr)
				if mine.inBody { // else the client has had no answer
					p.wantOne(t, mine.ttfb())
				}
				p.want(t, "gridloom.request.ttfb", map[string]point{test.labels: {1, test.ttfb.Seconds()}})
				p.want(t, "gridloom.request.duration", map[string]point{test.labels: {1, test.duration.Seconds()}})
				sent := map[string]point{}
				if test.sent > 0 {
					sent["GetObject http"] = point{sum: float64(test.sent)}
				}
				p.want(t, "gridloom.response.bytes", sent)
				p.want(t, "gridloom.request.in_flight", map[string]point{})
			})
		})
	}
}

type slowReader struct {
	io.Reader
	each time.Duration
}

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.each)
	return r.Reader.Read(p)
}

func TestClientIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Millisecond)
		defer cancel()
		hr := httptest.NewRequestWithContext(ctx, "GET", "http://node/", nil)
		l := newPipeListener()
		server := &http.Server{Handler: p.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))}
		go func() { _ = server.Serve(l) }()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx) }}
		if _, err := transport.RoundTrip(hr); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		p.want(t, "gridloom.request.ttfb", map[string]point{"other http 4xx": {1, 0.07}})
		p.want(t, "gridloom.request.in_flight", map[string]point{})
	})
}

// TestUpload counts the body as it comes, and an unnamed route as "other".
func TestUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		const size = 5<<20 + 17
		half := make(chan struct{})
		body, writer := io.Pipe()
		go func() {
			_, _ = writer.Write(make([]byte, size/2))
			<-half
			_, _ = writer.Write(make([]byte, size-size/2))
			_ = writer.Close()
		}()
		hr := httptest.NewRequestWithContext(t.Context(), "PUT", "http://node/", body)
		exchange(t, p, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.CopyN(io.Discard, r.Body, size/2)
			if err != nil {
				t.Errorf("%d bytes read: %v", n, err)
			}
			if got := p.points(t, "gridloom.request.bytes")["other http"].sum; got < size/2-bytesStep || got > size/2 {
				t.Errorf("%g bytes counted after %d", got, size/2)
			}
			p.want(t, "gridloom.request.in_flight", map[string]point{"http": {sum: 1}})
			close(half)
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(201)
		}, hr)
		p.want(t, "gridloom.request.bytes", map[string]point{"other http": {sum: size}})
		p.want(t, "gridloom.request.duration", map[string]point{"other http 2xx": {1, 0}})
	})
}

// TestNested: two doors of one request count it once.
func TestNested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		inner := p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			SetAPI(r.Context(), "Inner")
			_, _ = w.Write([]byte("hello"))
		}))
		exchange(t, p, inner.ServeHTTP, httptest.NewRequestWithContext(t.Context(), "GET", "http://node/", nil))
		p.want(t, "gridloom.request.duration", map[string]point{"Inner http 2xx": {1, 0}})
		p.want(t, "gridloom.response.bytes", map[string]point{"Inner http": {sum: 5}})
	})
}

// sourceRecorder stands between the server and the wrapper and notes what
// ReadFrom was given.
type sourceRecorder struct {
	http.ResponseWriter
	sources *[]io.Reader
}

func (w sourceRecorder) ReadFrom(src io.Reader) (int64, error) {
	*w.sources = append(*w.sources, src)
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

func (w sourceRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestReadFromKeepsTheSource over a real socket: what the handler hands to
// ReadFrom is what net/http gets, or it could not use sendfile.
func TestReadFromKeepsTheSource(t *testing.T) {
	p := newProbe(t)
	path := filepath.Join(t.TempDir(), "payload")
	payload := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	if err := os.WriteFile(path, payload, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	window := &io.LimitedReader{R: f, N: 64 << 10}

	var sources []io.Reader
	measured := p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetAPI(r.Context(), "GetObject")
		w.Header().Set("Content-Length", "320000")
		for _, src := range []io.Reader{window, f} {
			if _, err := w.(io.ReaderFrom).ReadFrom(src); err != nil {
				t.Error(err)
			}
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Errorf("deadline: %v", err)
			}
		}
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		measured.ServeHTTP(sourceRecorder{w, &sources}, r)
	}))
	response, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	server.Close()
	if err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if len(sources) != 2 || sources[0] != io.Reader(window) || sources[1] != io.Reader(f) {
		t.Errorf("net/http was given %v", sources)
	}
	p.want(t, "gridloom.response.bytes", map[string]point{"GetObject http": {sum: 320_000}})
	if n := p.points(t, "gridloom.request.ttfb")["GetObject http 2xx"].count; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// TestHTTP2 has no ReadFrom inside; the wrapper's still works.
func TestHTTP2(t *testing.T) {
	p := newProbe(t)
	server := httptest.NewUnstartedServer(p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello")); err != nil {
			t.Error(err)
		}
	})))
	server.EnableHTTP2 = true
	server.StartTLS()
	response, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	server.Close()
	if err != nil || string(got) != "hello" || response.ProtoMajor != 2 {
		t.Errorf("%q by HTTP/%d, %v", got, response.ProtoMajor, err)
	}
	p.want(t, "gridloom.response.bytes", map[string]point{"other http": {sum: 5}})
}

func TestHijack(t *testing.T) {
	p := newProbe(t)
	server := httptest.NewServer(p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nhello")
		_ = conn.Close()
	})))
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n")
	got, err := io.ReadAll(bufio.NewReader(conn))
	_ = conn.Close()
	server.Close()
	if err != nil || !strings.HasSuffix(string(got), "hello") {
		t.Errorf("%q, %v", got, err)
	}
	if n := p.points(t, "gridloom.request.ttfb")["other http 1xx"].count; n != 1 {
		t.Errorf("counted %d times as 1xx", n)
	}
}

// TestUnsupportedFlush: over a writer that can't flush or hijack, the wrapper
// says so and is no worse.
func TestUnsupportedFlush(t *testing.T) {
	p := newProbe(t)
	p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Flush: %v", err)
		}
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		w.WriteHeader(404)
	})).ServeHTTP(plainWriter{http.Header{}}, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if n := p.points(t, "gridloom.request.duration")["other http 4xx"].count; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

type plainWriter struct{ header http.Header }

func (w plainWriter) Header() http.Header       { return w.header }
func (plainWriter) Write(p []byte) (int, error) { return len(p), nil }
func (plainWriter) WriteHeader(int)             {}

func BenchmarkHTTP(b *testing.B) {
	p := newProbe(b)
	body := make([]byte, 4096)
	handler := p.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetAPI(r.Context(), "GetObject")
		_, _ = w.Write(body)
	}))
	hr := httptest.NewRequestWithContext(b.Context(), "GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(plainWriter{http.Header{}}, hr)
	}
}
