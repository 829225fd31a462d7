//go:build amd64 || arm64

package object

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestKernelMovesPayload shows by what the kernel was asked that a get through
// a node without the payload is sendfile at its owner and splice at the node
// that was asked, over segments and for ranges, and that nothing else carries
// the bytes.
func TestKernelMovesPayload(t *testing.T) {
	const size, segment = 20 << 20, 8 << 20
	const small = 1000 // the last range's part of its first segment goes over the grid
	ranges := []struct{ off, n int64 }{{0, size}, {1<<20 + 7, 10<<20 + 1}, {segment - small, 1 << 20}}
	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		m := newMesh(t, meshConfig{dir: l.Hear(), drives: []int{1, 0}, options: func(_ int, o *Options) { o.SegmentBytes = segment }})
		m.bucket("kernel")
		m.nodes[0].put(t, "kernel", "k", randomBytes(size), true)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var off, n int64
			if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &off, &n); err != nil {
				t.Error(err)
			}
			reader, err := m.nodes[1].Open(r.Context(), "kernel", "k", Conditions{}, 0)
			if err != nil {
				t.Error(err)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(n))
			if _, err := reader.Send(r.Context(), w, off, n, dataio.Windows{}); err != nil {
				t.Error(err)
			}
		})}
		go server.Serve(listener)
		l.Say(listener.Addr().String())
		l.Wait()
		must(t, server.Shutdown(testContext(t)))
		m.close()
	}, func(t *testing.T, l *datatest.Link) {
		data := randomBytes(size)
		l.Say(t.TempDir())
		address := l.Hear()
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for _, r := range ranges {
			resp, err := client.Get(fmt.Sprintf("http://%s/%d/%d", address, r.off, r.n))
			must(t, err)
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, data[r.off:r.off+r.n]) {
				t.Errorf("%+v: %d bytes, %v", r, len(got), err)
			}
		}
	})

	t.Logf("system calls of the mesh:\n%s", trace)
	var total int64
	for _, r := range ranges {
		total += r.n
	}
	// net/http sends the first 512 bytes of a body along with its head, which
	// happens once at the owner for every segment, and once to the client.
	const parts, sniffed = 3 + 3 + 2, 512
	if sent := trace.Bytes(datatest.ToSocket, "sendfile"); sent > total || sent < total-parts*sniffed-small {
		t.Errorf("sendfile moved %d bytes to sockets, want about %d", sent, total)
	}
	in := trace.Bytes(datatest.FromSocket, "splice")
	out := trace.Bytes(datatest.ToSocket, "splice")
	if least := total - int64(len(ranges))*sniffed - small; in != out || out > total || out < least {
		t.Errorf("splice moved %d bytes from sockets and %d to sockets, want about %d", in, out, total)
	}
	// Heads, sniffed bytes, and what the grid and the index have to say.
	const talk = 256 << 10
	if wrote := trace.Bytes(datatest.ToSocket, "write", "writev", "sendto", "sendmsg"); wrote > talk {
		t.Errorf("other calls wrote %d bytes to sockets, want at most %d", wrote, talk)
	}
	// A footer is read of each file, and a byte of each page of a small range, to
	// see that it is in memory. What is mapped without permissions is there to be
	// asked about, and can't be read.
	const footer = 512
	payload := func(c datatest.Call) bool {
		return strings.Contains(c.In, "/payload/") && (c.Name != "mmap" || c.Args[2] != unix.PROT_NONE)
	}
	if read := trace.Bytes(payload, "read", "readv", "pread64", "preadv", "preadv2", "mmap"); read > parts*(sniffed+footer) {
		t.Errorf("%d bytes of payload were read", read)
	}
}
