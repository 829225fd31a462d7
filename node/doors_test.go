package node

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/iam"
)

// bareDoor serves a node's HTTP listener once more, by net/http alone, and gives
// its address. It ends with the node.
func bareDoor(t *testing.T, r *running) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.httpServer.Serve(joining{l})
	}()
	t.Cleanup(func() {
		r.stop(t)
		<-ended
	})
	return l.Addr().String()
}

// unlike is what differs between two answers to the same request: its time, and
// the boundary of several ranges.
var unlike = regexp.MustCompile(`Date: [^\r]*|[A-Z2-7]{26}`)

// answered sends text on a connection of its own, and gives all that comes back
// till it ends.
func answered(t *testing.T, addr, text string) string {
	t.Helper()
	conn := dialListener(t, addr)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	// net/http ends the context of a request whose client ends its half.
	const end = "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
	go func() { _, _ = io.WriteString(conn, text+end) }() // an error is one of reading, too
	all, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%.60q: %v", text, err)
	}
	return unlike.ReplaceAllString(string(all), "-")
}

// plainRequests are requests of all kinds that the lean door serves, for an
// object "small" with that entity tag, "none", "file" and "large".
func plainRequests(etag string) (all [][2]string) { // targets, and lines of the header
	small := func(lines ...string) {
		for _, l := range lines {
			all = append(all, [2]string{"small", l})
		}
	}
	small("", "Range: bytes=0-9", "Range: bytes=0-9,100-109,-1", "Range: bytes=5000-", "Range: lines=1",
		"If-None-Match: "+etag, "If-None-Match: *", "If-Match: \"x\"", "If-Match: x",
		"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT",
		"Range: bytes=0-9\r\nIf-Range: "+etag, "Range: bytes=0-9\r\nIf-Range: \"x\"", "Want-Repr-Digest: crc32c=1",
		"Origin: https://page.example", "Origin: https://other.example",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	for _, target := range []string{
		"none", "file", "large", "%C3%A9%20%2Fx", "missing", "sm%61ll", "small?stale=5s", "small?stale=x", "file?verify=always",
		"small?verify=always", "small?x=y", "small?", "../doors/small", "a//b", "%00", "", strings.Repeat("k", 1024),
		strings.Repeat("k", 1025), "small?gl-key=x", "small?gl-signature=x&gl-key=root",
	} {
		all = append(all, [2]string{target, ""})
	}
	return append(all, [2]string{"file", "Range: bytes=60000-"}, [2]string{"file", "Range: bytes=0-0,65000-69999"},
		[2]string{"large", "Range: bytes=-70000"}, [2]string{"file", "Want-Content-Digest: crc64nvme=2, sha-256=1"})
}

// TestBothDoors: a node answers the requests of its lean door byte by byte as
// net/http does, and writes down and counts the same of them.
func TestBothDoors(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Audit.Level, cfg.Audit.File = audit.All, filepath.Join(t.TempDir(), "audit.log")
	cfg.CORS.Origins, cfg.Limits.Failures = []string{"https://page.example"}, 1_000_000
	r := startNodes(t, []Config{cfg})[0]
	bare := bareDoor(t, r)
	makeBucket(t, r, "doors")
	for key, size := range map[string]int{"small": 4 << 10, "none": 0, "file": 70_000, "large": 200_000, "%C3%A9%20%2Fx": 1} {
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/doors/"+key), strings.NewReader(string(randomBytes(size))),
			"Content-Type", "text/x", "Cache-Control", "max-age=5", "Content-Disposition", "inline", "Gridloom-Meta-A", "b", "Gridloom-Meta-Z", "z")
	}
	few := someone(t, r, "few", "readonly:doors/small")
	resp, _ := call(t, http.MethodPut, r.url("/data/doors/small"), strings.NewReader(string(randomBytes(4<<10))), "Gridloom-Meta-A", "b")
	auth := "Authorization: Bearer "
	callers := []string{
		auth + testKey.String(), "Gridloom-Authorization: Bearer " + testKey.String() + "\r\nAuthorization: Basic eA==",
		auth + few.String(), auth + iam.Generate("nobody").String(), "Authorization: x", "User-Agent: nobody",
	}
	var all strings.Builder
	for _, c := range plainRequests(resp.Header.Get("Etag")) {
		for _, method := range []string{"GET", "HEAD"} {
			for i, caller := range callers {
				lines := caller + "\r\n"
				if c[1] != "" {
					lines += c[1] + "\r\n"
				}
				one := method + " /data/doors/" + c[0] + " HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n"
				all.WriteString(one)
				if i > 0 {
					continue
				}
				lean, bare := answered(t, r.Addrs().HTTP, one), answered(t, bare, one)
				if lean != bare || !strings.HasPrefix(lean, "HTTP/1.1 ") {
					t.Errorf("%q: the lean door answers\n%.2000q\nnet/http\n%.2000q", one, lean, bare)
				}
			}
		}
	}
	counts := []map[string]float64{countsOf(t, r)}
	lean := answered(t, r.Addrs().HTTP, all.String())
	counts = append(counts, countsOf(t, r))
	if bare := answered(t, bare, all.String()); lean != bare {
		t.Errorf("many requests on one connection are answered in %d bytes, by net/http in %d", len(lean), len(bare))
	}
	counts = append(counts, countsOf(t, r))
	for name, now := range counts[2] {
		if first, second := counts[1][name]-counts[0][name], now-counts[1][name]; first != second {
			t.Errorf("%s: %v, by net/http %v", name, first, second)
		}
	}
	if len(counts[2]) < 10 {
		t.Errorf("only %v is counted", counts[2])
	}
	r.stop(t)
	sameRecords(t, cfg.Audit.File)
}

// countsOf are a node's counts of requests for bytes, once none is under way.
func countsOf(t *testing.T, r *running) map[string]float64 {
	t.Helper()
	for {
		_, text := call(t, http.MethodGet, r.url("/metrics"), nil)
		counts := map[string]float64{}
		busy := false
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
			n, err := strconv.ParseFloat(value, 64)
			switch {
			case err != nil:
			case strings.HasPrefix(name, "gridloom_request_in_flight") && strings.Contains(name, `proto="http"`):
				busy = n != 1 // that which asks
			case strings.Contains(name, "Object\"") || strings.Contains(name, `"Unauthenticated"`):
				if strings.Contains(name, "request_ttfb_seconds_count") || strings.Contains(name, "request_duration_seconds_count") || strings.Contains(name, "response_bytes") {
					counts[name] = n
				}
			}
		}
		if !busy {
			return counts
		}
		awaitTick()
	}
}

// sameRecords checks that half of the records of reads are of one door and half,
// the same ones, of the other.
func sameRecords(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"time", "seconds", "address", "trace_id", "unlisted"} {
			delete(m, name)
		}
		if m["api"] != nil && m["api"] != "GetMetrics" && (m["method"] == "GET" || m["method"] == "HEAD") { // countsOf asks as often as it has to
			b, _ := json.Marshal(m)
			counts[string(b)]++
		}
	}
	for _, record := range slices.Sorted(maps.Keys(counts)) {
		if counts[record]%2 != 0 {
			t.Errorf("%d times: %s", counts[record], record)
		}
	}
}
