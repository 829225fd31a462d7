package lean

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/dataio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// joined makes its connections those that the door wants.
type joined struct{ net.Listener }

func (l joined) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		conn = dataio.NewConn(conn.(*net.TCPConn))
	}
	return conn, err
}

// doors are two servers with one handler: net/http behind the lean door, and
// net/http alone.
type doors struct {
	lean, bare string // addresses
	server     *http.Server
	listener   *Listener
	plain      atomic.Int64 // requests that the lean door has served
	ended      sync.Map     // connections whose end the lean server was told of
	log        lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func open(t testing.TB, h http.Handler, change func(*http.Server)) *doors {
	t.Helper()
	return openDirect(t, h, change, nil)
}

// openDirect is open with something in front of the lean door's handler.
func openDirect(t testing.TB, h http.Handler, change func(*http.Server), direct func(net.Conn) Direct) *doors {
	t.Helper()
	d := new(doors)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(*writer); ok {
			d.plain.Add(1)
		}
		h.ServeHTTP(w, r)
	})
	server := func() (*http.Server, net.Listener) {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: counted, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(&d.log, "", 0)}
		if change != nil {
			change(s)
		}
		return s, joined{inner}
	}
	bare, bareListener := server()
	d.server, d.listener = nil, nil
	s, inner := server()
	state := s.ConnState
	s.ConnState = func(c net.Conn, to http.ConnState) {
		if to == http.StateClosed {
			if _, again := d.ended.LoadOrStore(c, true); again {
				t.Error("the end of a connection was told twice")
			}
		}
		if state != nil {
			state(c, to)
		}
	}
	d.server, d.listener = s, NewListener(inner, s)
	d.listener.Direct = direct
	d.lean, d.bare = inner.Addr().String(), bareListener.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.server.Serve(d.listener) })
	wg.Go(func() { _ = bare.Serve(bareListener) })
	t.Cleanup(func() {
		_ = d.server.Close()
		_ = bare.Close()
		wg.Wait()
		if err := d.listener.Wait(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return d
}

// dialled is a connection with a limit to everything.
func dialled(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// exchange sends bytes in pieces, and ends there; it gives all that comes back.
func exchange(t testing.TB, addr string, pieces ...[]byte) []byte {
	t.Helper()
	conn := dialled(t, addr)
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range pieces {
			if _, err := conn.Write(p); err != nil {
				return // the server has had enough
			}
		}
		_ = conn.CloseWrite()
	}()
	all, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after %q: %v", all, err)
	}
	conn.Close()
	<-done
	return all
}

var date = regexp.MustCompile(`(?m)^Date: [A-Za-z0-9:, ]+ GMT\r\n`)

// undated is an answer without its time.
func undated(b []byte) string { return string(date.ReplaceAll(b, []byte("Date: now\r\n"))) }

// same sends the same bytes to both doors, and compares what they answer, and
// what becomes of the connection.
func (d *doors) same(t testing.TB, pieces ...[]byte) string {
	t.Helper()
	lean, bare := undated(exchange(t, d.lean, pieces...)), undated(exchange(t, d.bare, pieces...))
	if lean != bare {
		t.Fatalf("%q: the lean door answers\n%q\nnet/http\n%q", pieces, lean, bare)
	}
	return lean
}

// said writes down a request as a handler sees it.
func said(r *http.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q %q %q %q %v %d host=%q path=%q raw=%q query=%q close=%v te=%v trailer=%v\n",
		r.Method, r.RequestURI, r.Proto, r.URL.Opaque, r.URL.Host, r.URL.User, r.ContentLength,
		r.Host, r.URL.Path, r.URL.EscapedPath(), r.URL.RawQuery, r.Close, r.TransferEncoding, r.Trailer)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&b, "%q: %q\n", name, r.Header[name])
	}
	return b.String()
}

// answers is a handler that tells what it was asked, in as many ways as there are
// to answer.
func answers(t testing.TB) http.Handler {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, body := w.Header(), said(r)
		length := func(n int) { h.Set("Content-Length", fmt.Sprint(n)) }
		_, way, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, prefix), "/")
		way, _, _ = strings.Cut(way, "/")
		switch way {
		case "silent":
		case "guess":
			_, _ = io.WriteString(w, body)
		case "typed":
			h.Set("Content-Type", "text/x")
			h.Add("X-Two", "b ")
			h.Add("X-Two", "\ta\r\nb")
			h.Set("bad name", "x")
			h["a-Small"] = []string{"x"}
			_, _ = io.WriteString(w, body)
		case "none":
			w.WriteHeader(http.StatusNoContent)
			_, _ = io.WriteString(w, body)
		case "unchanged":
			h.Set("Content-Type", "text/x")
			h.Set("Etag", `"x"`)
			length(7)
			w.WriteHeader(http.StatusNotModified)
		case "short":
			length(len(body) + 10)
			_, _ = io.WriteString(w, body)
		case "long":
			length(3)
			_, err := io.WriteString(w, body)
			if !errors.Is(err, http.ErrContentLength) {
				t.Errorf("too many bytes: %v", err)
			}
		case "abort":
			panic(http.ErrAbortHandler)
		case "late":
			length(len(body) + 10)
			_, _ = io.WriteString(w, body)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "last":
			h.Set("Connection", "close")
			length(len(body))
			_, _ = io.WriteString(w, body)
		case "file":
			f, err := os.Open(file)
			if err != nil {
				t.Error(err)
			}
			defer f.Close()
			length(len(content))
			h.Set("Content-Type", "text/x")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(w, &io.LimitedReader{R: f, N: int64(len(content))})
		case "large":
			h.Set("Content-Type", "text/x")
			length(2 * len(content))
			_, _ = w.Write(content)
			_, _ = w.Write(content)
		case "error":
			http.Error(w, body, http.StatusTeapot)
		default:
			h.Set("Content-Type", "text/x")
			length(len(body))
			_, _ = io.WriteString(w, body)
		}
	})
}

// get is a plain request, with further lines of its header.
func get(method, target string, lines ...string) string {
	text := method + " " + target + " HTTP/1.1\r\nHost: node\r\n"
	for _, line := range lines {
		text += line + "\r\n"
	}
	return text + "\r\n"
}

// read reads one answer.
func read(t testing.TB, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}
