package door

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// TestOldClients: HTTP/1.0, and a connection that is used again.
func TestOldClients(t *testing.T) {
	s := serve(t, nil)
	data := pattern(100_000)
	s.put(t, "a", data, http.StatusCreated)
	a, err := s.raw(t, "GET", "GET /data/photos/a HTTP/1.0\r\n\r\n")
	if err != nil || a.StatusCode != 200 || string(a.body) != data || !a.Close {
		t.Errorf("HTTP/1.0: %v, %v", a, err)
	}
	a, err = s.raw(t, "GET", "GET /data/photos/a HTTP/1.0\r\nRange: bytes=0-1,5000-5001\r\n\r\n")
	if err != nil || a.StatusCode != 206 || int64(len(a.body)) != a.ContentLength {
		t.Errorf("HTTP/1.0 with ranges: %v, %v", a, err)
	}
	a, err = s.raw(t, "GET", "GET /data/photos/%zz HTTP/1.1\r\nHost: h\r\n\r\n")
	if err != nil || a.StatusCode != 400 {
		t.Errorf("a bad escape: %v, %v", a, err)
	}
}

// TestBrokenFile: an error before the first byte has its own status, and none
// of the object's fields.
func TestBrokenFile(t *testing.T) {
	var log logBuffer
	s := serve(t, func(o *Options) { o.Logger = log.logger() })
	s.put(t, "a", pattern(3<<20), http.StatusCreated, "Gridloom-Meta-Camera", "old")
	truncate(t, s.payload(t), 1<<20)
	for _, field := range []string{"", "bytes=0-9", "bytes=0-9,500-509"} {
		a := s.do(t, "GET", "a", nil, "Range", field)
		checkProblem(t, "a truncated file, "+field, a, fault.Corrupted, problemOf(a).Subject)
		if a.Header.Get("Content-Range") != "" {
			t.Errorf("the problem has the Content-Range %s", a.Header.Get("Content-Range"))
		}
	}
	if !strings.Contains(log.String(), "request failed") {
		t.Errorf("logged: %s", log.String())
	}
}

// large is more than the sockets between client and server hold.
const large = 24 << 20

// TestBrokenOff: an error behind the first byte breaks the connection.
func TestBrokenOff(t *testing.T) {
	var log logBuffer
	s := serve(t, func(o *Options) { o.Logger = log.logger() })
	s.put(t, "a", pattern(large), http.StatusCreated)
	resp, err := s.Client().Get(s.URL + "/data/photos/a")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	truncate(t, s.payload(t), large*2/3)
	n, err := io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != 200 || n >= large || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s, %d of %d bytes, %v", resp.Status, n, large, err)
	}
	if !strings.Contains(log.String(), "download broken off") {
		t.Errorf("logged: %s", log.String())
	}
}

// TestStalledDownload: a client that doesn't take its bytes is cut off.
func TestStalledDownload(t *testing.T) {
	s := serve(t, func(o *Options) { o.Stall, o.MinRate = 50*time.Millisecond, 1<<30 })
	put := object.PutRequest{Bucket: "photos", Key: "a", SizeBytes: large}
	if _, err := s.objects.Put(t.Context(), put, strings.NewReader(pattern(large)), nil); err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Get(s.URL + "/data/photos/a")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.waitEnd("GET /data/photos/a") // without a byte of the body having been read
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= large {
		t.Errorf("%d of %d bytes, %v", n, large, err)
	}
}

// TestGetManyAtOnce reads ranges of one object from many connections.
func TestGetManyAtOnce(t *testing.T) {
	s := serve(t, nil)
	const size = 1 << 20
	data := pattern(size)
	s.put(t, "a", data, http.StatusCreated)
	var wg sync.WaitGroup
	for range 64 {
		from := rand.IntN(size)
		to := from + 1 + rand.IntN(size-from)
		wg.Go(func() {
			a := s.do(t, "GET", "a", nil, "Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
			if a.StatusCode != 206 || string(a.body) != data[from:to] {
				t.Errorf("%d to %d: %s, %d bytes", from, to, a.Status, len(a.body))
			}
		})
	}
	wg.Wait()
}

// TestFilesGoToTheKernel: the payload of a file reaches the connection as the
// file, in windows, and none of it as bytes; with TCP underneath that is
// sendfile. What is in memory leaves in one write with the header.
func TestFilesGoToTheKernel(t *testing.T) {
	s := serve(t, nil)
	const size = 5<<20 + 3
	s.put(t, "file", pattern(size), http.StatusCreated)
	s.put(t, "inline", pattern(1000), http.StatusCreated)
	for _, c := range []struct {
		key, field         string
		byFile, fromMemory int64
	}{
		{"file", "", size, 0},
		{"file", "bytes=7-3000006", 3_000_000, 0},
		{"file", "bytes=0-99999,200000-299999", 200_000, 2_000}, // and the parts' heads
		{"inline", "", 0, 1000},
	} {
		s.conns.count()
		a := s.do(t, "GET", c.key, nil, "Range", c.field)
		if a.err != nil || a.StatusCode >= 300 {
			t.Fatalf("%s, %v", a.Status, a.err)
		}
		byFile, written, writes := s.conns.count()
		const header = 2_000
		if byFile != c.byFile || written > c.fromMemory+header {
			t.Errorf("%s %s: %d bytes as a file, want %d; %d written", c.key, c.field, byFile, c.byFile, written)
		}
		if c.byFile == 0 && writes != 1 {
			t.Errorf("%s: %d writes", c.key, writes)
		}
	}
}

// TestHTTP2 goes the ways that have no ReadFrom.
func TestHTTP2(t *testing.T) {
	plain := serve(t, nil)
	server := httptest.NewUnstartedServer(plain.Config.Handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := &served{Server: server}
	data := pattern(5<<20 + 3)
	if a := s.put(t, "a", data, http.StatusCreated, "Repr-Digest", digestOf(data)); a.ProtoMajor != 2 {
		t.Errorf("%s", a.Proto)
	}
	if a := s.do(t, "GET", "a", nil); a.StatusCode != 200 || string(a.body) != data {
		t.Errorf("GET: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	if a := s.do(t, "GET", "a", nil, "Range", "bytes=5-1000004"); a.StatusCode != 206 || string(a.body) != data[5:1000005] {
		t.Errorf("range: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	if a := s.do(t, "GET", "a", nil, "Range", "bytes=0-1,1000000-1000001"); a.StatusCode != 206 || a.err != nil || int64(len(a.body)) != a.ContentLength {
		t.Errorf("ranges: %s, %d bytes, %v", a.Status, len(a.body), a.err)
	}
	if a := s.do(t, "DELETE", "a", nil); a.StatusCode != 204 {
		t.Errorf("DELETE: %s", a.Status)
	}
}
