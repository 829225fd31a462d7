package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// runLimited starts a node alone with limits.
func runLimited(t *testing.T, l Limits) *running {
	t.Helper()
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Limits = l
	r := runNode(t, cfg)
	r.await(t)
	return r
}

// limitedCount is how often a limit was met, by the node's own count.
func limitedCount(t *testing.T, r *running, listener, limit string) int {
	t.Helper()
	text := expect(t, http.StatusOK, http.MethodGet, r.url("/metrics"), nil)
	m := regexp.MustCompile(`(?m)^gridloom_limited_total\{.*limit="` + limit + `",listener="` + listener + `".*\} (\d+)`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

func dialListener(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// cut waits for the node to end a connection.
func cut(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: the connection is still there", what)
		}
	}
}

// TestTimesOnTheWire: a header, a handshake and an idle connection each have
// their time, on every listener. (An idle connection of gRPC: api.TestConnectionAge.)
func TestTimesOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{HeaderTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond})
	var wg sync.WaitGroup
	for name, c := range map[string]struct{ addr, send string }{
		"http, nothing":         {r.Addrs().HTTP, ""},
		"http, half a header":   {r.Addrs().HTTP, "GET / HTTP/1.1\r\nHost: h\r\nA"},
		"http, idle":            {r.Addrs().HTTP, "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"},
		"peer, nothing":         {r.Addrs().Peer, ""},
		"peer, half a header":   {r.Addrs().Peer, "GET / HTTP/1.1\r\nHost: h\r\nA"},
		"peer, idle":            {r.Addrs().Peer, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		"grpc, nothing":         {r.Addrs().GRPC, ""},
		"grpc, half a preface":  {r.Addrs().GRPC, "PRI * HT"},
		"grpc, no settings yet": {r.Addrs().GRPC, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	} {
		conn := dialListener(t, c.addr)
		if _, err := io.WriteString(conn, c.send); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { cut(t, name, conn) })
	}
	wg.Wait()
}

// TestTLSHandshakeOnTheWire: one that doesn't go on has an end.
func TestTLSHandshakeOnTheWire(t *testing.T) {
	l := newLimited(Limits{HeaderTimeout: 200 * time.Millisecond}, nil)
	server := l.server(http.NotFoundHandler(), l.http)
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{}}}
	listener := openListener(t)
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l.http.Listen(listener), "", "") }()
	for name, send := range map[string]string{"nothing": "", "half a hello": "\x16\x03\x01\x02\x00\x01\x00"} {
		conn := dialListener(t, listener.Addr().String())
		if _, err := io.WriteString(conn, send); err != nil {
			t.Fatal(err)
		}
		cut(t, name, conn)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-done
	tick := time.NewTicker(time.Millisecond) // the server says so after it has closed them
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); l.http.Open() != 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still counted", l.http.Open())
		}
	}
}

// TestConnectionsOnTheWire: where there are too many, the one that has been
// without a request for longest goes, on every listener, and a request under way
// stays.
func TestConnectionsOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{Connections: 2})
	makeBucket(t, r, "limits")
	busy := dialListener(t, r.Addrs().HTTP)
	if _, err := fmt.Fprintf(busy, "PUT /data/limits/k HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", testKey.String()); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(busy)
	if line, err := from.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = from.ReadString('\n')
	for name, addr := range map[string]string{"http": r.Addrs().HTTP, "peer": r.Addrs().Peer, "grpc": r.Addrs().GRPC} {
		quiet := []net.Conn{dialListener(t, addr), dialListener(t, addr), dialListener(t, addr)}
		cut(t, name, quiet[0])
		for _, conn := range quiet[1:] {
			_ = conn.Close()
		}
	}
	if _, err := io.WriteString(busy, "ok"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(from, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("the upload under way: %v, %v", resp, err)
	}
	for _, listener := range []string{"http", "peer", "grpc"} {
		if n := limitedCount(t, r, listener, "connections"); n < 1 {
			t.Errorf("%s: counted %d times", listener, n)
		}
	}
}

// TestHeaderBytesOnTheWire: a header over the limit is refused, on both HTTP
// listeners. (Metadata of gRPC: api.TestMaxHeaderBytes.)
func TestHeaderBytesOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{HeaderBytes: 1024})
	for _, addr := range []string{r.Addrs().HTTP, r.Addrs().Peer} {
		for size, want := range map[int]bool{500: false, 8 << 10: true} {
			resp, err := http.ReadResponse(bufio.NewReader(sendHeader(t, addr, size)), nil)
			if err != nil || (resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge) != want {
				t.Errorf("%d bytes: %v, %v", size, resp, err)
			}
		}
	}
}

func sendHeader(t *testing.T, addr string, size int) net.Conn {
	t.Helper()
	conn := dialListener(t, addr)
	_, _ = fmt.Fprintf(conn, "GET /livez HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n", bytes.Repeat([]byte("a"), size))
	return conn
}

// overGRPC is a client of the node with a key.
func overGRPC(t *testing.T, r *running, key string) (*grpc.ClientConn, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
}

// checkExhausted wants RESOURCE_EXHAUSTED with RetryInfo.
func checkExhausted(t *testing.T, what string, err error) {
	t.Helper()
	s := status.Convert(err)
	for _, d := range s.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration() > 0 && s.Code() == codes.ResourceExhausted {
			return
		}
	}
	t.Errorf("%s: %v, %v; want RESOURCE_EXHAUSTED with RetryInfo", what, err, s.Details())
}

// checkTooMany wants a 429 with Retry-After and a problem.
func checkTooMany(t *testing.T, what string, resp *http.Response, body []byte) {
	t.Helper()
	var p fault.Problem
	_ = json.Unmarshal(body, &p)
	if wait, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || wait < 1 ||
		resp.StatusCode != http.StatusTooManyRequests || p.Status != resp.StatusCode || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %s, %v: %s", what, resp.Status, resp.Header, body)
	}
}

// TestRequestsOnTheWire: a key's requests are counted over both doors, and said
// so in the words of each; health is not among them.
func TestRequestsOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{Requests: 1})
	var resp *http.Response
	var body []byte
	for range 10 {
		if resp, body = call(t, http.MethodGet, r.url("/v1/buckets"), nil); resp.StatusCode != http.StatusOK {
			break
		}
	}
	checkTooMany(t, "HTTP", resp, body)
	conn, ctx := overGRPC(t, r, testKey.String())
	var err error
	for range 10 {
		if _, err = pb.NewBucketServiceClient(conn).ListBuckets(ctx, &pb.ListBucketsRequest{}); err != nil {
			break
		}
	}
	checkExhausted(t, "gRPC", err)
	expect(t, http.StatusOK, http.MethodGet, r.url("/livez"), nil)
}

// TestGuessingOnTheWire: who shows wrong keys is soon told to wait, through
// either door, while others at the same address get in, for the first time, too.
func TestGuessingOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{Failures: 3})
	wrong := func() (*http.Response, []byte) {
		return call(t, http.MethodGet, r.url("/v1/buckets"), nil, "Authorization", "Bearer "+iam.Generate("root").String())
	}
	for range 3 {
		if resp, body := wrong(); resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%s %s", resp.Status, body)
		}
	}
	resp, body := wrong()
	checkTooMany(t, "HTTP", resp, body)
	conn, ctx := overGRPC(t, r, iam.Generate("root").String())
	_, err := pb.NewBucketServiceClient(conn).ListBuckets(ctx, &pb.ListBucketsRequest{})
	checkExhausted(t, "gRPC", err)
	expect(t, http.StatusOK, http.MethodGet, r.url("/v1/buckets"), nil)
	ann := someone(t, r, "ann", "readonly:*")
	expect(t, http.StatusOK, http.MethodGet, r.url("/v1/buckets"), nil, "Authorization", "Bearer "+ann.String())
	expect(t, http.StatusUnauthorized, http.MethodGet, r.url("/v1/buckets"), nil, "Authorization", "")
	if n := limitedCount(t, r, "any", "failures"); n != 2 {
		t.Errorf("counted %d times, want 2", n)
	}
}

// TestLentOnTheWire: what a key is lent out as uses up its own requests, and none
// of the key's; the audit log says who it was that made too many.
func TestLentOnTheWire(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Limits.Requests = 1
	r := runNode(t, cfg)
	r.await(t)
	ann := someone(t, r, "ann", "readonly:photos")
	link := "/data/photos/a" + shareLink(t, r, ann, "GET", "photos", "a")
	token := tokenOf(t, r.gate, ann, time.Minute, time.Now())
	for _, lent := range [][2]string{{link, ""}, {"/v1/iam/whoami", "Bearer " + token}} {
		var resp *http.Response
		var body []byte
		for range 10 {
			if resp, body = call(t, http.MethodGet, r.url(lent[0]), nil, "Authorization", lent[1]); resp.StatusCode == http.StatusTooManyRequests {
				break
			}
		}
		checkTooMany(t, lent[0], resp, body)
	}
	if resp, body := call(t, http.MethodGet, r.url("/v1/buckets"), nil, "Authorization", "Bearer "+ann.String()); resp.StatusCode != http.StatusOK {
		t.Errorf("the key that lent them: %s %s", resp.Status, body)
	}
	conn, ctx := overGRPC(t, r, token)
	var err error
	for range 10 {
		if _, err = pb.NewIAMServiceClient(conn).WhoAmI(ctx, &pb.WhoAmIRequest{}); err != nil {
			break
		}
	}
	checkExhausted(t, "the token by gRPC", err)
	r.stop(t)
	text, err := os.ReadFile(filepath.Join(cfg.DataDir, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"door":"http","address":"[^"]+","user":"ann","access_key":"` + ann.ID + `","via":"link","api":"Limited","method":"GET","outcome":"overloaded"`,
		`"door":"grpc","address":"[^"]+","user":"ann","access_key":"` + ann.ID + `","via":"token","api":"WhoAmI","outcome":"overloaded"`,
	} {
		if !regexp.MustCompile(want).Match(text) {
			t.Errorf("no line has %s:\n%s", want, text)
		}
	}
}

// shareLink signs a link that is good for an hour, and gives its query.
func shareLink(t *testing.T, r *running, c iam.Credential, method, bucket, key string) string {
	t.Helper()
	now := time.Now()
	link, err := iam.SignLink(c, r.control.Deployment(), iam.LinkRequest{Method: method, Bucket: bucket, Key: key, Expires: now.Add(time.Hour)}, now)
	if err != nil {
		t.Fatal(err)
	}
	return link[strings.IndexByte(link, '?'):]
}

// TestUploadsOnTheWire: uploads that are open count over both doors, and so do
// their bytes; what is refused leaves nothing, and what ends makes room.
func TestUploadsOnTheWire(t *testing.T) {
	r := runLimited(t, Limits{UploadsPerKey: 1, UploadBytesPerKey: 2 << 20})
	makeBucket(t, r, "limits")
	body, more := io.Pipe()
	first := make(chan int, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPut, r.url("/data/limits/first"), body)
		req.Header.Set("Authorization", "Bearer "+testKey.String())
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			first <- 0
			return
		}
		_ = resp.Body.Close()
		first <- resp.StatusCode
	}()
	if _, err := more.Write(randomBytes(1 << 20)); err != nil { // it has begun
		t.Fatal(err)
	}
	resp, text := call(t, http.MethodPut, r.url("/data/limits/second"), bytes.NewReader(randomBytes(10)))
	checkTooMany(t, "a second upload", resp, text)
	conn, ctx := overGRPC(t, r, testKey.String())
	put := func() error {
		stream, err := pb.NewObjectServiceClient(conn).PutObject(ctx)
		if err != nil {
			return err
		}
		_ = stream.Send(&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "limits", Key: "third"}}})
		for range 3 {
			_ = stream.Send(&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Chunk{Chunk: randomBytes(1 << 20)}})
		}
		_ = stream.Send(&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Trailer{Trailer: &pb.PutObjectTrailer{}}})
		_, err = stream.CloseAndRecv()
		return err
	}
	checkExhausted(t, "a third", put())
	_ = more.Close()
	if got := <-first; got != http.StatusCreated {
		t.Fatalf("the first: %d", got)
	}
	checkExhausted(t, "too many bytes, gRPC", put())
	resp, text = call(t, http.MethodPut, r.url("/data/limits/large"), bytes.NewReader(randomBytes(3<<20)))
	checkTooMany(t, "too many bytes, HTTP", resp, text)
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/limits/after"), bytes.NewReader(randomBytes(1<<20)))
	if keys := keysOf(t, r, "limits"); len(keys) != 2 {
		t.Errorf("the index has %q", keys)
	}
	if n := limitedCount(t, r, "any", "uploads_per_identity") + limitedCount(t, r, "any", "upload_bytes_per_identity"); n != 4 {
		t.Errorf("counted %d times, want 4", n)
	}
}

// TestAnswerBeforeTheBody: a client that writes all of its body before it reads
// hears why it was refused, also where the connection ends with the answer.
func TestAnswerBeforeTheBody(t *testing.T) {
	r := runLimited(t, Limits{})
	body := randomBytes(8 << 20)
	for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(""), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = fmt.Fprintf(conn, "PUT /data/nowhere/x %s\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", version, len(body))
		if err == nil {
			_, err = conn.Write(body)
		}
		if err != nil {
			t.Fatalf("%s: the body: %v", version, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: the answer: %v", version, err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || !json.Valid(text) {
			t.Errorf("%s: %s %q, %v", version, resp.Status, text, err)
		}
	}
}
