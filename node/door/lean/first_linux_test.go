package lean

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type firstSent chan struct{}

func (f firstSent) FirstSent() { close(f) }

// TestOnFirst: of a file that the client takes only later it is told when its first
// bytes have left, once, and of one that leaves at once not at all.
func TestOnFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	const large, small = 256 << 20, 1000
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, large); err != nil {
		t.Fatal(err)
	}
	told := make(chan firstSent, 2)
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.URL.Path[len("/data/b/"):], 10, 64)
		if err != nil {
			t.Error(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		first := make(firstSent)
		told <- first
		w.(*writer).OnFirst(first)
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		if n, err := w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: f, N: size}); n != size || err != nil {
			t.Errorf("sent %d bytes: %v", n, err)
		}
	}), nil)
	for _, size := range []int{small, large, small} {
		conn := dialled(t, d.lean)
		write(t, conn, get("GET", "/data/b/"+strconv.Itoa(size)))
		first := <-told
		if size == large {
			select {
			case <-first: // before anything is read here
			case <-time.After(10 * time.Second):
				t.Error("it isn't told while the client reads nothing")
			}
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, conn); n < int64(size) || err != nil {
			t.Errorf("received %d bytes: %v", n, err)
		}
		if size == small {
			select {
			case <-first:
				t.Error("it is told of what has left at once")
			default:
			}
		}
	}
}

// corked says whether the kernel keeps what doesn't fill a packet.
func corked(t *testing.T, w http.ResponseWriter) bool {
	t.Helper()
	raw, err := w.(*writer).c.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var on int
	var failed error
	err = raw.Control(func(fd uintptr) {
		on, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK)
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return on != 0
}

// TestCork: of a body in several windows the first leaves whole, those behind it in
// full packets, and the end at once. The next answer has nothing of that.
func TestCork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Length", "1000")
		if corked(t, w) {
			t.Error("corked before the first window")
		}
		for i, n := range []int64{500, 300, 200} {
			if _, err := w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: f, N: n}); err != nil {
				t.Error(err)
			}
			if got, want := corked(t, w), i > 0; got != want {
				t.Errorf("after window %d: corked is %v", i, got)
			}
		}
	}), nil)
	conn := dialled(t, d.lean)
	in := bufio.NewReader(conn)
	for range 3 {
		write(t, conn, get("GET", "/data/b/k"))
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 1000 || err != nil {
			t.Fatalf("received %d bytes: %v", n, err)
		}
	}
}
