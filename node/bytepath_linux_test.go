package node

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// What one GET may allocate, through the whole front: what was measured (28, 65
// and 1), and some room. The bytes have more of it: the race detector has
// sync.Pool drop some of the buffers it is given.
const (
	inlineAllocsMost   = 3  // of 4 KiB that the index has, or a file of one window
	sendfileAllocsMost = 40 // of a file of 2 MiB
	allocsPerMiBMost   = 4  // of a larger one, beyond that
	getBytesMost       = 96 << 10
	bytesPerMiBMost    = 16 << 10
)

// keptAlive asks for the same bytes again and again on one connection, without
// allocating anything.
type keptAlive struct {
	conn    net.Conn
	request []byte
	answer  []byte // of the last request, head and body
}

func keepAlive(t *testing.T, r *running, path string) *keptAlive {
	t.Helper()
	addr := r.Addrs().HTTP
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	k := &keptAlive{conn: conn, request: []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAuthorization: Bearer " + testKey.String() + "\r\n\r\n")}
	// The first answer tells how long all of them are.
	if _, err := conn.Write(k.request); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 0, 4<<10)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		head = head[:len(head)+1]
		if _, err := io.ReadFull(conn, head[len(head)-1:]); err != nil {
			t.Fatal(err)
		}
	}
	found := regexp.MustCompile(`(?s)^HTTP/1.1 200 OK\r\n.*Content-Length: (\d+)\r\n`).FindSubmatch(head)
	if found == nil {
		t.Fatalf("%s", head)
	}
	length, _ := strconv.Atoi(string(found[1]))
	k.answer = make([]byte, len(head)+length)
	copy(k.answer, head)
	if _, err := io.ReadFull(conn, k.answer[len(head):]); err != nil {
		t.Fatal(err)
	}
	return k
}

// get asks once more.
func (k *keptAlive) get(t *testing.T) {
	if _, err := k.conn.Write(k.request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(k.conn, k.answer); err != nil {
		t.Fatal(err)
	}
}

// cost is what a GET allocates, on the average of so many. The node allocates
// beside, some hundred times a second: of several tries the least counts.
func (k *keptAlive) cost(t *testing.T, times int) (allocs, size float64) {
	t.Helper()
	return costOf(times, func() { k.get(t) })
}

// costOf is what so many calls of get allocate, each on the average.
func costOf(times int, get func()) (allocs, size float64) {
	allocs, size = math.Inf(1), math.Inf(1)
	for range 20 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			get()
		}
		runtime.ReadMemStats(&after)
		allocs = min(allocs, float64(after.Mallocs-before.Mallocs)/float64(times))
		size = min(size, float64(after.TotalAlloc-before.TotalAlloc)/float64(times))
	}
	return allocs, size
}

// TestWhatAGetAllocates is a guard: a copy, a closure or a context that somebody
// adds for every request, or every window of one, shows here.
func TestWhatAGetAllocates(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	makeBucket(t, r, "bytes")
	const large, larger = 2 << 20, 9 << 20 // of several windows; whole is of one
	for name, size := range map[string]int{"inline": 4 << 10, "whole": 1 << 20, "large": large, "larger": larger} {
		body := randomBytes(size)
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/bytes/"+name), bytes.NewReader(body))
		if k := keepAlive(t, r, "/data/bytes/"+name); !bytes.HasSuffix(k.answer, body) {
			t.Fatalf("%s: other bytes came back", name)
		}
	}
	inline, inlineBytes := keepAlive(t, r, "/data/bytes/inline").cost(t, 20)
	whole, wholeBytes := keepAlive(t, r, "/data/bytes/whole").cost(t, 5)
	file, fileBytes := keepAlive(t, r, "/data/bytes/large").cost(t, 5)
	more, moreBytes := keepAlive(t, r, "/data/bytes/larger").cost(t, 1)
	const further = (larger - large) >> 20
	t.Logf("4 KiB: %.0f allocations, %.0f bytes; 1 MiB: %.0f, %.0f; 2 MiB: %.0f, %.0f; a further MiB: %.1f, %.0f",
		inline, inlineBytes, whole, wholeBytes, file, fileBytes, (more-file)/further, (moreBytes-fileBytes)/further)
	switch {
	case inline > inlineAllocsMost, inlineBytes > getBytesMost:
		t.Errorf("a GET of 4 KiB takes %.0f allocations of %.0f bytes", inline, inlineBytes)
	case whole > inlineAllocsMost, wholeBytes > getBytesMost:
		t.Errorf("a GET of 1 MiB takes %.0f allocations of %.0f bytes", whole, wholeBytes)
	case file > sendfileAllocsMost, fileBytes > getBytesMost:
		t.Errorf("a GET of 2 MiB takes %.0f allocations of %.0f bytes", file, fileBytes)
	case (more-file)/further > allocsPerMiBMost, (moreBytes-fileBytes)/further > bytesPerMiBMost:
		t.Errorf("a further MiB takes %.0f allocations of %.0f bytes", (more-file)/further, (moreBytes-fileBytes)/further)
	}
}

// TestRangesOfOneFile: 64 at once, of one file whose descriptors are used again,
// byte for byte.
func TestRangesOfOneFile(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	makeBucket(t, r, "bytes")
	body := randomBytes(4 << 20)
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/bytes/one"), bytes.NewReader(body))
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			buf := make([]byte, 96<<10)
			for range 4 {
				n := 1 + rand.IntN(len(buf))
				from := rand.IntN(len(body) - n)
				req, err := http.NewRequest(http.MethodGet, r.url("/data/bytes/one"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+testKey.String())
				req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+n-1))
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.ReadFull(resp.Body, buf[:n])
				if _, end := resp.Body.Read(make([]byte, 1)); err != nil || end != io.EOF || resp.StatusCode != http.StatusPartialContent {
					t.Errorf("%s: %v, and then %v", resp.Status, err, end)
				}
				_ = resp.Body.Close()
				if !bytes.Equal(buf[:n], body[from:from+n]) {
					t.Errorf("the %d bytes at %d are others", n, from)
				}
			}
		})
	}
	all.Wait()
}

// TestWaysOfPayload: the counters tell which way the bytes went.
func TestWaysOfPayload(t *testing.T) {
	cfgs := meshConfigs(t, t.TempDir(), 3)
	for i := range cfgs { // the first pool has twice as much free
		cfgs[i].Pool = cfgs[i].Name
		cfgs[i].Drives = cfgs[i].Drives[:2-min(i, 1)]
	}
	nodes := startNodes(t, cfgs)
	makeBucket(t, nodes[0], "bytes")
	const small, large = 4 << 10, 1 << 20
	for name, size := range map[string]int{"small": small, "large": large} {
		expect(t, http.StatusCreated, http.MethodPut, nodes[0].url("/data/bytes/"+name), bytes.NewReader(randomBytes(size)))
	}
	ways := map[string]int{}
	for _, r := range nodes {
		before := sentBy(t, r)
		for _, name := range []string{"small", "large"} {
			expect(t, http.StatusOK, http.MethodGet, r.url("/data/bytes/"+name), nil)
		}
		for way, n := range sentBy(t, r) {
			if n -= before[way]; n > 0 {
				ways[fmt.Sprint(way, " ", n)]++
			}
		}
	}
	if ways[fmt.Sprint("inline ", small)] != 3 || ways[fmt.Sprint("sendfile ", large)] != 1 || ways[fmt.Sprint("splice ", large)] != 2 || len(ways) != 3 {
		t.Errorf("the payload went by %v", ways)
	}
}

// TestWaysThatCopy: what is encrypted, or cut into frames and messages, is copied, and
// the counters say so.
func TestWaysThatCopy(t *testing.T) {
	const size = 1 << 20
	plain := startMesh(t, t.TempDir(), 1)[0]
	secure, second := runSecured(t) // HTTP/2
	first := &http.Transport{TLSClientConfig: second.Transport.(*http.Transport).TLSClientConfig.Clone()}
	first.TLSClientConfig.NextProtos, first.TLSNextProto = []string{"http/1.1"}, map[string]func(string, *tls.Conn) http.RoundTripper{}
	defer first.CloseIdleConnections()
	for _, c := range []struct {
		what   string
		node   *running
		client *http.Client
		creds  credentials.TransportCredentials // of gRPC; nil: by HTTP
		want   string
	}{
		{"HTTP/1.1", plain, http.DefaultClient, nil, "sendfile"},
		{"HTTP/1.1 on TLS", secure, &http.Client{Transport: first}, nil, "copy"},
		{"HTTP/2", secure, second, nil, "copy"},
		{"gRPC", plain, http.DefaultClient, insecure.NewCredentials(), "copy"},
		{"gRPC on TLS", secure, second, credentials.NewTLS(&tls.Config{RootCAs: first.TLSClientConfig.RootCAs}), "copy"},
	} {
		t.Run(c.what, func(t *testing.T) {
			url := c.node.url("/data/ways/large")
			if status, text, err := request(c.client, http.MethodPost, c.node.url("/v1/buckets"), []byte(`{"bucket":"ways"}`)); err != nil || status != 200 && status != 409 {
				t.Fatalf("%d %s %v", status, text, err)
			}
			if status, text, err := request(c.client, http.MethodPut, url, randomBytes(size)); err != nil || status/100 != 2 {
				t.Fatalf("%d %s %v", status, text, err)
			}
			metrics := func() map[string]int {
				return sentIn(t, string(mustRequest(t, c.client, http.StatusOK, http.MethodGet, c.node.url("/metrics"), nil)))
			}
			before := metrics()
			if c.creds == nil {
				mustRequest(t, c.client, http.StatusOK, http.MethodGet, url, nil)
			} else {
				getByGRPC(t, c.node, c.creds, "ways", "large")
			}
			for way, n := range metrics() {
				want := 0
				if way == c.want {
					want = size
				}
				if n -= before[way]; n != want {
					t.Errorf("%d bytes by %s, want %d", n, way, want)
				}
			}
		})
	}
}

// getByGRPC reads an object to its end.
func getByGRPC(t *testing.T, r *running, creds credentials.TransportCredentials, bucket, key string) {
	t.Helper()
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+testKey.String())
	stream, err := pb.NewObjectServiceClient(conn).GetObject(ctx, &pb.GetObjectRequest{Bucket: bucket, Key: key})
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
}

// sentBy reads how many bytes of payload a node has sent which way.
func sentBy(t *testing.T, r *running) map[string]int {
	t.Helper()
	return sentIn(t, string(expect(t, http.StatusOK, http.MethodGet, r.url("/metrics"), nil)))
}

// sentIn reads that in the text of /metrics.
func sentIn(t *testing.T, text string) map[string]int {
	t.Helper()
	sent := map[string]int{}
	for line := range strings.Lines(text) {
		if m := regexp.MustCompile(`^gridloom_payload_sent_bytes_total\{.*path="(\w+)".*\} (\S+)`).FindStringSubmatch(line); m != nil {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			sent[m[1]] = int(n)
		}
	}
	return sent
}
