package lean

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// closed waits for the end of a connection, before which nothing comes.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v; want the end", b, err)
	}
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// TestShutdown: what is idle is closed at once, what is under way has its
// answer, and with it the end, and nothing more is taken.
func TestShutdown(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "slow") {
			begun <- true
			<-release
		}
		_, _ = io.WriteString(w, "answer")
	}), nil)
	fresh, used, busy := dialled(t, d.lean), dialled(t, d.lean), dialled(t, d.lean)
	write(t, used, get("GET", "/data/b/k"))
	resp, body := read(t, bufio.NewReader(used), "GET")
	if body != "answer" || resp.Close {
		t.Fatalf("%v %q", resp, body)
	}
	write(t, busy, get("GET", "/data/b/slow")+get("GET", "/data/b/never"))
	<-begun
	served := d.plain.Load()
	ended := make(chan error, 1)
	go func() {
		err := d.server.Shutdown(context.WithoutCancel(t.Context()))
		ended <- errors.Join(err, d.listener.Wait(context.WithoutCancel(t.Context())))
	}()
	closed(t, fresh)
	closed(t, used)
	select {
	case err := <-ended:
		t.Fatalf("ended before its last answer: %v", err)
	default:
	}
	close(release)
	in := bufio.NewReader(busy)
	resp, body = read(t, in, "GET")
	if body != "answer" || !resp.Close {
		t.Errorf("the last answer: %+v %q; it has to say that it is", resp, body)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("something comes behind it")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if d.plain.Load() != served {
		t.Error("a request was served after the end")
	}
	n := 0
	d.ended.Range(func(any, any) bool { n++; return true })
	if n != 3 { // fresh was accepted before used, which has an answer
		t.Errorf("the end of %d connections was told", n)
	}
	if conn, err := net.Dial("tcp", d.lean); err == nil {
		conn.Close()
		t.Error("another connection was taken")
	}
}

// TestHalfAHead: the beginning of a head, be it the first or a later one, keeps
// nobody from stopping.
func TestHalfAHead(t *testing.T) {
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "answer") }), func(s *http.Server) {
		s.ReadHeaderTimeout = time.Hour
	})
	first, later := dialled(t, d.lean), dialled(t, d.lean)
	write(t, first, "GET /data/b")
	write(t, later, get("GET", "/data/b/k"))
	if _, body := read(t, bufio.NewReader(later), "GET"); body != "answer" {
		t.Fatalf("%q", body)
	}
	write(t, later, "GET /data/b")
	_ = d.listener.Close()
	if err := d.listener.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	for _, conn := range []net.Conn{first, later} {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v; want the end", n, err)
		}
	}
}

// TestRequestsAreNew: what a handler notes on a request isn't on the next.
func TestRequestsAreNew(t *testing.T) {
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.FormValue("a")+r.Pattern+r.PathValue("x"))
		r.Pattern = "before"
		r.SetPathValue("x", "y")
	}), nil)
	conn := dialled(t, d.lean)
	in := bufio.NewReader(conn)
	for _, a := range []string{"1", "2"} {
		write(t, conn, get("GET", "/data/b/k?a="+a))
		if _, body := read(t, in, "GET"); body != a {
			t.Errorf("%q, want %q", body, a)
		}
	}
}

// TestWaitEnds: whoever can't wait has what is left closed, and its context
// ended.
func TestWaitEnds(t *testing.T) {
	begun, why := make(chan bool), make(chan error, 1)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-r.Context().Done()
		why <- r.Context().Err()
	}), nil)
	conn := dialled(t, d.lean)
	write(t, conn, get("GET", "/data/b/k"))
	<-begun
	_ = d.listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.listener.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-why; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	closed(t, conn)
}

// TestClientGone: the context of a request ends when its client has gone, as it
// does behind net/http, and not before.
func TestClientGone(t *testing.T) {
	begun, ended := make(chan context.Context), make(chan bool)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(*writer); !ok {
			t.Error("not served here")
		}
		begun <- r.Context()
		<-r.Context().Done()
		ended <- true
	}), nil)
	for _, end := range []func(*net.TCPConn) error{(*net.TCPConn).Close, (*net.TCPConn).CloseWrite, func(c *net.TCPConn) error {
		_ = c.SetLinger(0)
		return c.Close()
	}} {
		conn := dialled(t, d.lean)
		write(t, conn, get("GET", "/data/b/k"))
		ctx := <-begun
		if ctx.Err() != nil {
			t.Error("the context of a request has ended before its client")
		}
		if err := end(conn); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
}

// TestContextEnds: the context of a request ends with its handler, for those that
// it has left behind.
func TestContextEnds(t *testing.T) {
	contexts := make(chan context.Context, 2)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); addr == nil || r.Context().Value(http.ServerContextKey) == nil {
			t.Error("the context hasn't what net/http's has")
		}
		contexts <- r.Context()
	}), nil)
	conn := dialled(t, d.lean)
	in := bufio.NewReader(conn)
	for range 3 {
		write(t, conn, get("GET", "/data/b/k"))
		read(t, in, "GET")
		ctx := <-contexts
		<-ctx.Done()
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// TestSlowHeads: a head has its time, whether it is the first or not, and what is
// idle has another. What is answered then is what net/http answers.
func TestSlowHeads(t *testing.T) {
	t.Parallel()
	d := open(t, answers(t), func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 2*time.Second, time.Second })
	var ends []func()
	begin := func(addr, text string, first bool) *bufio.Reader {
		conn := dialled(t, addr)
		in := bufio.NewReader(conn)
		if !first {
			write(t, conn, get("GET", "/data/b/plain"))
			if resp, _ := read(t, in, "GET"); resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		}
		write(t, conn, text)
		return in
	}
	end := func(in *bufio.Reader) string {
		b, err := io.ReadAll(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection stays")
		}
		return string(b)
	}
	for _, text := range []string{"", "GET /data/b/k", get("GET", "/data/b/k")[:30], "POST /v1/x HTTP/1.1\r\nHo", "x", "GET /"} {
		for _, first := range []bool{true, false} {
			lean, bare := begin(d.lean, text, first), begin(d.bare, text, first)
			ends = append(ends, func() {
				if lean, bare := end(lean), end(bare); lean != bare {
					t.Errorf("after %q (first: %v): %q, net/http %q", text, first, lean, bare)
				}
			})
		}
	}
	for _, end := range ends { // they wait together
		end()
	}
}

// TestIdle: a connection stays for as long as it may be idle, though an earlier
// deadline passes meanwhile.
func TestIdle(t *testing.T) {
	t.Parallel()
	d := open(t, answers(t), func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 2*time.Second, time.Hour })
	conn := dialled(t, d.lean)
	in := bufio.NewReader(conn)
	for i := range 4 {
		write(t, conn, get("GET", "/data/b/plain"))
		if resp, _ := read(t, in, "GET"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		if i == 1 {
			<-time.After(2200 * time.Millisecond) // the deadline of the first head has come
		}
	}
	if n := d.plain.Load(); n != 4 {
		t.Errorf("%d requests were served here", n)
	}
}

// TestHandedDeadline: net/http gives a head that it gets in the middle no more
// time than it had, and every later deadline is its own.
func TestHandedDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far := dialled(t, l.Addr().String())
	near, err := joined{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	h := &handed{Conn: near.(*dataio.Conn), rest: []byte("begun"), until: time.Unix(1, 0)}
	if err := h.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	for _, want := range []string{"beg", "un"} {
		if n, err := h.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	if _, err := h.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading on: %v", err)
	}
	if err := h.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	write(t, far, "end")
	if n, err := h.Read(b); err != nil || string(b[:n]) != "end" {
		t.Errorf("%q, %v", b[:n], err)
	}
	h.rest = []byte("kept ")
	write(t, far, "and read")
	_ = far.CloseWrite()
	var all bytes.Buffer
	if n, err := io.Copy(&all, h); err != nil || n != 13 || all.String() != "kept and read" {
		t.Errorf("%d, %q, %v", n, all.String(), err)
	}
}

// TestWriteDeadlines: an answer that nobody reads ends at the handler's deadline,
// or when somebody else cuts it off, and the next request has none of it.
func TestWriteDeadlines(t *testing.T) {
	failed, begun := make(chan error, 1), make(chan *http.ResponseController, 1)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		w.Header().Set("Content-Length", "1000000000000")
		switch _, way, _ := strings.Cut(r.URL.Path[len(prefix):], "/"); way {
		case "late":
			_ = control.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		case "cut":
			_ = control.SetWriteDeadline(time.Now().Add(time.Hour))
			begun <- control
		case "before":
			_ = control.SetWriteDeadline(time.Unix(1, 0))
		default:
			_ = control.SetWriteDeadline(time.Now().Add(time.Hour))
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "ok")
			return
		}
		var err error
		for piece := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(piece)
		}
		failed <- err
	}), nil)
	for _, way := range []string{"late", "cut", "before"} {
		conn := dialled(t, d.lean)
		in := bufio.NewReader(conn)
		for range 2 {
			write(t, conn, get("GET", "/data/b/short"))
			if _, body := read(t, in, "GET"); body != "ok" {
				t.Fatal(body)
			}
		}
		write(t, conn, get("GET", "/data/b/"+way))
		if way == "cut" {
			control := <-begun
			<-time.After(20 * time.Millisecond) // most often it writes by then; either way it has to end
			_ = control.SetWriteDeadline(time.Unix(1, 0))
		}
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", way, err)
		}
		if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", way)
		}
	}
}

// TestPanics: a handler that panics is written down, unless it means to break
// the answer off; the connection ends, and others go on.
func TestPanics(t *testing.T) {
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "abort") {
			panic(http.ErrAbortHandler)
		}
		panic("by accident")
	}), nil)
	for _, way := range []string{"abort", "panic"} {
		conn := dialled(t, d.lean)
		write(t, conn, get("GET", "/data/b/"+way))
		closed(t, conn)
		if said := strings.Contains(d.log.String(), "by accident"); said != (way == "panic") {
			t.Errorf("%s: it is written down: %v", way, said)
		}
	}
}

// TestManyAtOnce: connections don't get each other's answers, files or deadlines.
func TestManyAtOnce(t *testing.T) {
	d := open(t, answers(t), nil)
	for c := range 16 {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			conn := dialled(t, d.lean)
			in := bufio.NewReader(conn)
			for i := range 40 {
				way := []string{"plain", "file", "error"}[(c+i)%3]
				target := "/data/b/" + way + "/" + strings.Repeat("x", c+1) + strings.Repeat("y", i)
				write(t, conn, get("GET", target))
				resp, body := read(t, in, "GET")
				if way != "file" && !strings.HasPrefix(body, `GET "`+target+`" `) || way == "file" && len(body) != 32000 {
					t.Fatalf("%s: %v, %d bytes", target, resp.Status, len(body))
				}
			}
		})
	}
}

// failing is a listener that fails before it accepts.
type failing struct {
	net.Listener
	times int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.times--; f.times >= 0 {
		return nil, errors.New("no more files")
	}
	return f.Listener.Accept()
}

// TestAcceptErrors: the server hears of them, and what comes after is accepted.
func TestAcceptErrors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(&failing{joined{inner}, 2}, &http.Server{Handler: answers(t)})
	for range 2 {
		if _, err := l.Accept(); err == nil || err.Error() != "no more files" {
			t.Fatal(err)
		}
	}
	other := dialled(t, inner.Addr().String())
	write(t, other, "PUT / HTTP/1.1\r\n\r\n")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "PUT " {
		t.Errorf("%q, %v", b, err)
	}
	waiting := dialled(t, inner.Addr().String())
	write(t, waiting, "PUT / HTTP/1.1\r\n\r\n")
	conn.Close()
	if err := errors.Join(l.Close(), l.Wait(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	closed(t, waiting)
}
