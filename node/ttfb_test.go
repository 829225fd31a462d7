package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// wire is the client's end of a connection, with a clock of its own: when the
// first byte of a request went out, and when the first came in of which from says
// that it belongs to the answer's body, or is the answer where there is no body.
type wire struct {
	net.Conn
	from func(seen []byte) bool

	mu          sync.Mutex
	sent, first time.Time
	seen        []byte
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.sent.IsZero() {
		w.sent = time.Now()
	}
	w.mu.Unlock()
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first.IsZero() && !w.sent.IsZero() {
		if w.seen = append(w.seen, p[:n]...); w.from(w.seen) {
			w.first = time.Now()
		}
	}
	return n, err
}

// begin has the clock wait for the next request.
func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.first, w.seen = time.Time{}, time.Time{}, nil
}

func (w *wire) times() (sent, first time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.first
}

// afterHead is true of the first byte of an HTTP/1.1 body; wholeHead of an answer
// that has none.
func afterHead(seen []byte) bool {
	_, body, _ := bytes.Cut(seen, []byte("\r\n\r\n"))
	return len(body) > 0
}
func wholeHead(seen []byte) bool { return bytes.Contains(seen, []byte("\r\n\r\n")) }

// inData is true of the first DATA frame of HTTP/2 with something in it.
func inData(seen []byte) bool {
	for len(seen) >= 10 {
		length := int(seen[0])<<16 | int(seen[1])<<8 | int(seen[2])
		if seen[3] == 0 && length > 0 {
			return true
		}
		if len(seen) < 9+length {
			return false
		}
		seen = seen[9+length:]
	}
	return false
}

// measured gives what a node has measured of the requests with some labels, as
// its metrics show it.
func measured(t *testing.T, r *running, labels string) (count, sum float64) {
	t.Helper()
	answer := httptest.NewRecorder()
	r.telemetry.MetricsHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(answer.Body.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		at := map[string]*float64{"gridloom_request_ttfb_seconds_count{" + labels + "}": &count, "gridloom_request_ttfb_seconds_sum{" + labels + "}": &sum}[name]
		if at == nil {
			continue
		}
		var err error
		if *at, err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatal(err)
		}
	}
	return count, sum
}

// TestTTFBByTheClientsClock asks a mesh in every way there is, with a clock on the
// client's end of the connection. What a node has measured lies within what the
// client has seen go by: it is counted once, it can't have begun before the
// request was sent, nor ended after it was found in the metrics; and it is near
// what the client has waited for the first byte, by far more room than a busy
// machine takes. To the nanosecond it is compared in virtual time, in package
// observability.
func TestTTFBByTheClientsClock(t *testing.T) {
	cfgs := meshConfigs(t, t.TempDir(), 2)
	for i := range cfgs { // the first pool has twice as much free
		cfgs[i].Pool = cfgs[i].Name
		cfgs[i].Drives = cfgs[i].Drives[:2-i]
	}
	nodes := startNodes(t, cfgs)
	owner, other := nodes[0], nodes[1]
	makeBucket(t, owner, "timed")
	large := randomBytes(1 << 20)
	expect(t, http.StatusCreated, http.MethodPut, owner.url("/data/timed/large"), bytes.NewReader(large))
	etag := func() string {
		resp, _ := call(t, http.MethodHead, owner.url("/data/timed/large"), nil)
		return resp.Header.Get("ETag")
	}()

	for _, row := range []struct {
		name, method, path string
		at                 *running
		header             []string
		body               []byte
		status             int
		from               func([]byte) bool
		labels             string // api and class
	}{
		{"GET by sendfile", http.MethodGet, "/data/timed/large", owner, nil, nil, 200, afterHead, "GetObject 2xx"},
		{"GET through a node that has no copy", http.MethodGet, "/data/timed/large", other, nil, nil, 200, afterHead, "GetObject 2xx"},
		{"range", http.MethodGet, "/data/timed/large", owner, []string{"Range", "bytes=100-200000"}, nil, 206, afterHead, "GetObject 2xx"},
		{"HEAD", http.MethodHead, "/data/timed/large", owner, nil, nil, 200, wholeHead, "StatObject 2xx"},
		{"304", http.MethodGet, "/data/timed/large", owner, []string{"If-None-Match", etag}, nil, 304, wholeHead, "GetObject 3xx"},
		{"404", http.MethodGet, "/data/timed/none", owner, nil, nil, 404, afterHead, "GetObject 4xx"},
		{"PUT", http.MethodPut, "/data/timed/put", other, nil, large, 201, wholeHead, "PutObject 2xx"},
		{"PUT again", http.MethodPut, "/data/timed/put", owner, nil, large[:100], 204, wholeHead, "PutObject 2xx"},
		{"DELETE", http.MethodDelete, "/data/timed/put", owner, nil, nil, 204, wholeHead, "DeleteObject 2xx"},
		{"list", http.MethodGet, "/v1/buckets/timed/objects", owner, nil, nil, 200, afterHead, "ListObjects 2xx"},
		{"streaming list", http.MethodGet, "/v1/buckets/timed/objects:stream", owner, nil, nil, 200, afterHead, "StreamObjects 2xx"},
	} {
		t.Run(row.name, func(t *testing.T) {
			api, class, _ := strings.Cut(row.labels, " ")
			row.labels = `api="` + api + `",class="` + class + `",node="` + row.at.cfg.Name + `",proto="http"`
			w := &wire{from: row.from}
			transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
				w.Conn, err = new(net.Dialer).DialContext(ctx, network, addr)
				return w, err
			}}
			defer transport.CloseIdleConnections()
			compare(t, row.at, w, row.labels, func() {
				req, err := http.NewRequestWithContext(t.Context(), row.method, row.at.url(row.path), bytes.NewReader(row.body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+testKey.String())
				for i := 0; i < len(row.header); i += 2 {
					req.Header.Set(row.header[i], row.header[i+1])
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != row.status {
					t.Errorf("%s, want %d", resp.Status, row.status)
				}
			})
		})
	}

	w := &wire{from: inData}
	conn, err := grpc.NewClient(other.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (_ net.Conn, err error) {
			w.Conn, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
			return w, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+testKey.String())
	objects := pb.NewObjectServiceClient(conn)
	if _, err := objects.ListObjects(ctx, &pb.ListObjectsRequest{Bucket: "timed"}); err != nil { // dialling is over, and the settings are told
		t.Fatal(err)
	}
	t.Run("gRPC unary", func(t *testing.T) {
		compare(t, other, w, `api="StatObject",class="2xx",node="`+other.cfg.Name+`",proto="grpc"`, func() {
			if _, err := objects.StatObject(ctx, &pb.StatObjectRequest{Bucket: "timed", Key: "large"}); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("gRPC streaming list", func(t *testing.T) {
		for i := range 1001 { // a page is 1,000
			expect(t, http.StatusCreated, http.MethodPut, owner.url(fmt.Sprintf("/data/timed/of-many/%d", i)), nil)
		}
		compare(t, other, w, `api="StreamObjects",class="2xx",node="`+other.cfg.Name+`",proto="grpc"`, func() {
			stream, err := objects.StreamObjects(ctx, &pb.StreamObjectsRequest{Bucket: "timed", Prefix: "of-many/"})
			pages := 0
			for ; err == nil; pages++ {
				_, err = stream.Recv()
			}
			if err != io.EOF || pages != 3 {
				t.Errorf("%d messages, %v", pages-1, err)
			}
		})
	})
	t.Run("gRPC stream", func(t *testing.T) {
		compare(t, other, w, `api="GetObject",class="2xx",node="`+other.cfg.Name+`",proto="grpc"`, func() {
			stream, err := objects.GetObject(ctx, &pb.GetObjectRequest{Bucket: "timed", Key: "large"})
			for err == nil {
				_, err = stream.Recv()
			}
			if err != io.EOF {
				t.Error(err)
			}
		})
	})
}

// compare has one request made, and compares what the client's clock and the
// node's metrics say of it.
func compare(t *testing.T, r *running, w *wire, labels string, ask func()) {
	t.Helper()
	before, sumBefore := measured(t, r, labels)
	w.begin()
	ask()
	count, sum := measured(t, r, labels)
	for limit := time.Now().Add(20 * time.Second); count == before; count, sum = measured(t, r, labels) { // it is counted when its handler has returned
		if time.Now().After(limit) {
			t.Fatalf("it is not counted: %s", labels)
		}
	}
	sent, first := w.times()
	outer := time.Since(sent)
	if sent.IsZero() || first.IsZero() {
		t.Fatalf("the client's clock has seen no answer: sent %v, first byte %v", sent, first)
	}
	theirs, own := time.Duration((sum-sumBefore)*float64(time.Second)), first.Sub(sent)
	t.Logf("the client has waited %v, measured are %v", own, theirs)
	if count != before+1 {
		t.Errorf("it is counted %g times", count-before)
	}
	if theirs <= 0 || theirs > outer {
		t.Errorf("measured are %v; all was over within %v", theirs, outer)
	}
	if d := (theirs - own).Abs(); d > 2*time.Second {
		t.Errorf("measured are %v, and the client has waited for %v", theirs, own)
	}
}
