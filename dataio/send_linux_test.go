//go:build amd64 || arm64

package dataio_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// What the process may write to a socket itself: the heads of its messages,
// with the first 512 bytes of a body, which net/http sends along with the head.
const headBytes, sniffedBytes = 512, 512

// TestSendUsesSendfile shows by what the kernel was asked that a payload, and
// a range of one, leave through net/http by sendfile, from the file's range to
// the socket, and that nothing else carries them.
func TestSendUsesSendfile(t *testing.T) {
	const size = 64 << 20
	ranges := []struct{ off, n int64 }{{0, size}, {1<<20 + 7, 30<<20 + 1}, {size - 1000, 1000}}
	var dir string
	var id dataio.ID
	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		id, err := dataio.ParseID(l.Hear())
		if err != nil {
			t.Fatal(err)
		}
		d := open(t, l.Hear(), options())
		listener := listen(t)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := serveRange(w, r, d, id); err != nil {
				t.Error(err)
			}
		})}
		go server.Serve(listener)
		l.Say(listener.Addr().String())
		l.Wait()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}, func(t *testing.T, l *datatest.Link) {
		content := random(size, 1)
		dir = t.TempDir()
		d, err := dataio.Open(t.Context(), dir, options())
		if err != nil {
			t.Fatal(err)
		}
		id = put(t, d, content)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		l.Say(id.String())
		l.Say(dir)
		address := l.Hear()
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for _, r := range ranges {
			sum, n := download(t, client, fmt.Sprintf("http://%s/?off=%d&n=%d", address, r.off, r.n))
			if want := sha256.Sum256(content[r.off : r.off+r.n]); n != r.n || sum != hex.EncodeToString(want[:]) {
				t.Errorf("range %+v arrived as %d bytes with SHA-256 %s", r, n, sum)
			}
		}
	})

	t.Logf("system calls of the serving process:\n%s", trace)
	var total int64
	for _, r := range ranges {
		total += r.n
	}
	fromPayload := func(c datatest.Call) bool {
		return datatest.ToSocket(c) && strings.HasPrefix(c.In, dir) && strings.HasSuffix(c.In, id.String())
	}
	sent := trace.Bytes(fromPayload, "sendfile")
	if least := total - int64(len(ranges))*sniffedBytes; sent > total || sent < least {
		t.Errorf("sendfile moved %d bytes, want %d to %d", sent, least, total)
	}
	other := trace.Bytes(datatest.ToSocket, "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg",
		"sendmmsg", "splice", "vmsplice", "io_uring_enter")
	if most := int64(len(ranges)) * (headBytes + sniffedBytes); other+sent < total || other > most {
		t.Errorf("other calls wrote %d bytes to sockets, want at most %d", other, most)
	}
	// The payload isn't read into the process either, but for what is sniffed
	// and the footers.
	read := trace.Bytes(func(c datatest.Call) bool { return strings.HasSuffix(c.In, id.String()) },
		"read", "readv", "pread64", "preadv", "preadv2", "mmap")
	if most := int64(len(ranges)) * (sniffedBytes + footerRead); read > most {
		t.Errorf("the process read %d bytes of the payload, want at most %d", read, most)
	}
	if n := len(trace.Select(nil, "fadvise64")); n < 20 {
		t.Errorf("the kernel was told of %d windows to come, want 22", n)
	}
	for _, c := range trace.Select(fromPayload, "sendfile") {
		if int64(c.Args[3]) > dataio.NextWindowBytes {
			t.Errorf("sendfile was asked for %d bytes at once, more than a window", c.Args[3])
		}
	}
}

// TestSendUsesSplice shows the same for bytes that come from a connection.
func TestSendUsesSplice(t *testing.T) {
	const size = 16 << 20
	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		listener := listen(t)
		l.Say(listener.Addr().String())
		from, to := accept(t, listener), accept(t, listener)
		n, err := dataio.Send(t.Context(), to, &io.LimitedReader{R: from, N: size}, dataio.Windows{})
		if n != size || err != nil {
			t.Errorf("sent %d bytes: %v", n, err)
		}
		l.Wait()
	}, func(t *testing.T, l *datatest.Link) {
		content := random(size, 2)
		address := l.Hear()
		to, from := dial(t, address), dial(t, address)
		written := make(chan error, 1)
		go func() {
			_, err := to.Write(content)
			written <- err
		}()
		hash := sha256.New()
		if n, err := io.CopyN(hash, from, size); err != nil {
			t.Errorf("%d bytes arrived: %v", n, err)
		}
		if want := sha256.Sum256(content); string(want[:]) != string(hash.Sum(nil)) {
			t.Error("other bytes arrived")
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
	t.Logf("system calls of the process between:\n%s", trace)
	if n := trace.Bytes(datatest.ToSocket, "splice"); n != size {
		t.Errorf("splice moved %d bytes to the socket, want %d", n, size)
	}
	if n := trace.Bytes(datatest.FromSocket, "splice"); n != size {
		t.Errorf("splice moved %d bytes from the socket, want %d", n, size)
	}
	if n := trace.Bytes(datatest.ToSocket, "write", "writev", "sendto", "sendmsg", "sendfile"); n != 0 {
		t.Errorf("other calls wrote %d bytes to sockets", n)
	}
	if n := trace.Bytes(datatest.FromSocket, "read", "readv", "recvfrom", "recvmsg"); n != 0 {
		t.Errorf("other calls read %d bytes from sockets", n)
	}
}

// serveRange answers a request for a range of a payload.
func serveRange(w http.ResponseWriter, r *http.Request, d *dataio.Drive, id dataio.ID) error {
	off, err := strconv.ParseInt(r.FormValue("off"), 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil {
		return err
	}
	f, err := d.Open(r.Context(), id)
	if err != nil {
		return err
	}
	defer f.Close()
	section, err := f.Section(off, n)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(http.StatusPartialContent)
	control := http.NewResponseController(w)
	sent, err := dataio.Send(r.Context(), w, section, dataio.Windows{
		Before: func() error { return control.SetWriteDeadline(time.Now().Add(time.Minute)) },
	})
	if err == nil && sent != n {
		err = fmt.Errorf("sent %d bytes of %d", sent, n)
	}
	return err
}

// download returns the SHA-256 and the size of an answer's body.
func download(t *testing.T, client *http.Client, url string) (string, int64) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, response.Body)
	if err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(hash.Sum(nil)), n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
