package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio/datatest"
)

// copiedMost is how many bytes of a payload may pass through user space: the part
// of it that goes out together with the head.
const copiedMost = 512

// TestSendfileThroughTheWholeDoor shows by the kernel's own account that a
// plaintext GET's payload leaves by sendfile, whole and as a range, through
// every layer that the listener has: telemetry, authentication, door.
func TestSendfileThroughTheWholeDoor(t *testing.T) {
	const size = 24 << 20
	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		r := startMesh(t, t.TempDir(), 1)[0]
		makeBucket(t, r, "traced")
		body := randomBytes(size)
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/traced/big"), bytes.NewReader(body))
		whole, part := sha256.Sum256(body), sha256.Sum256(body[1000:5_000_001])
		l.Say(fmt.Sprintf("%s %s %x %x", r.url("/data/traced/big"), testKey.String(), whole, part))
		l.Wait()
	}, func(t *testing.T, l *datatest.Link) {
		said := strings.Fields(l.Hear())
		fetch(t, said[0], said[1], "", said[2])
		fetch(t, said[0], said[1], "bytes=1000-5000000", said[3])
	})
	const want = size + 4_999_001
	sent := trace.Bytes(datatest.ToSocket, "sendfile")
	t.Logf("%d of %d bytes of payload by sendfile", sent, want)
	if sent > want || sent < want-2*copiedMost {
		t.Errorf("sendfile moved %d bytes, want %d less at most %d", sent, want, 2*copiedMost)
	}
}

// TestSpliceThroughANodeWithoutACopy gets an object through the nodes that do
// not have it: the owner's bulk port sends by sendfile, and the node that was
// asked moves it on by splice, without seeing a byte.
func TestSpliceThroughANodeWithoutACopy(t *testing.T) {
	const size = 16 << 20
	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
		cfgs := meshConfigs(t, t.TempDir(), 3)
		for i := range cfgs { // the first pool has twice as much free
			cfgs[i].Pool = cfgs[i].Name
			cfgs[i].Drives = cfgs[i].Drives[:2-min(i, 1)]
		}
		nodes := startNodes(t, cfgs)
		makeBucket(t, nodes[0], "traced")
		body := randomBytes(size)
		expect(t, http.StatusCreated, http.MethodPut, nodes[0].url("/data/traced/big"), bytes.NewReader(body))
		l.Say(fmt.Sprintf("%s %x %s %s %s", testKey.String(), sha256.Sum256(body),
			nodes[0].url("/data/traced/big"), nodes[1].url("/data/traced/big"), nodes[2].url("/data/traced/big")))
		l.Wait()
	}, func(t *testing.T, l *datatest.Link) {
		said := strings.Fields(l.Hear())
		for _, url := range said[2:] {
			fetch(t, url, said[0], "", said[1])
		}
	})
	// Three gets of one segment on one of three nodes: each leaves its file by
	// sendfile, to the client or to the bulk port; two are spliced on.
	sent := trace.Bytes(datatest.ToSocket, "sendfile")
	if sent > 3*size || sent < 3*size-3*copiedMost {
		t.Errorf("sendfile moved %d bytes, want %d less at most %d", sent, 3*size, 3*copiedMost)
	}
	spliced := trace.Bytes(datatest.ToSocket, "splice")
	if spliced > 2*size || spliced < 2*size-2*copiedMost {
		t.Errorf("splice moved %d bytes to sockets, want %d less at most %d", spliced, 2*size, 2*copiedMost)
	}
	t.Logf("%d bytes by sendfile, %d by splice", sent, spliced)
}

// fetch gets a URL and compares the SHA-256 of its body.
func fetch(t *testing.T, url, key, byteRange, sum string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	want := http.StatusOK
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
		want = http.StatusPartialContent
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); resp.StatusCode != want || got != sum {
		t.Fatalf("GET %s %s: %s, SHA-256 %s, want %s", url, byteRange, resp.Status, got, sum)
	}
}
