package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/door/lean"
)

// getter asks a node for one object again and again, over one connection, and
// allocates nothing.
type getter struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	size    int64
}

func newGetter(t testing.TB, r *running, path string, size int) *getter {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addrs().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &getter{
		conn: conn, in: bufio.NewReaderSize(conn, 64<<10), size: int64(size),
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer %s\r\n\r\n", path, testKey.String()),
	}
}

// get gets the object, whose length is known.
func (g *getter) get(t testing.TB) {
	if _, err := g.conn.Write(g.request); err != nil {
		t.Fatal(err)
	}
	for first := true; ; first = false {
		line, err := g.in.ReadSlice('\n')
		if err != nil || first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			t.Fatalf("%q, %v", line, err)
		}
		if len(line) == 2 {
			break
		}
	}
	for left := g.size; left > 0; {
		n, err := g.in.Discard(int(min(left, 32<<10)))
		if left -= int64(n); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
}

// unmeasured is an answer that nobody measures.
type unmeasured struct{ lean.Answer }

func (unmeasured) About(bucket, key, user string) {}
func (unmeasured) End(bool)                       {}
func (unmeasured) Forget()                        {}

// withAndWithout starts two nodes that are alike, but that the requests of the
// second are not measured, and puts an object of that size into both. What the
// parts of a node count for themselves is the same in both: reads meet atomics.
func withAndWithout(t testing.TB, size int) (on, off *getter) {
	t.Helper()
	start := func(measured bool) *getter {
		cfg := meshConfigs(t, t.TempDir(), 1)[0]
		n, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if !measured {
			n.httpServer.Handler = n.limits.http.Handler(trailers(lingering(strict(n.front))))
			n.direct.measure = func(_ context.Context, w http.ResponseWriter, _ time.Time) answer { return unmeasured{w.(lean.Answer)} }
		}
		r := run(t, n)
		r.await(t)
		makeBucket(t, r, "photos")
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(randomBytes(size)))
		return newGetter(t, r, "/data/photos/a", size)
	}
	return start(true), start(false)
}

// BenchmarkTelemetry measures GETs with and without telemetry, in turn, by the
// CPU time of the process: clients, servers, and what the nodes do besides.
// 4 KiB are in the record, 256 KiB leave by sendfile.
func BenchmarkTelemetry(b *testing.B) {
	for _, size := range []int{4 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			const turn = 100
			var cpu [2]time.Duration
			var allocs [2]uint64
			turns := 0
			on, off := withAndWithout(b, size)
			for b.Loop() {
				for k := range 2 {
					i := (turns + k) % 2 // who goes first finds other caches
					g := []*getter{on, off}[i]
					began, before := cpuTime(b), mallocs()
					for range turn {
						g.get(b)
					}
					cpu[i] += cpuTime(b) - began
					allocs[i] += mallocs() - before
				}
				turns++
			}
			gets := float64(turns * turn)
			b.ReportMetric(float64(cpu[0].Nanoseconds())/gets, "cpu-ns/get-on")
			b.ReportMetric(float64(cpu[1].Nanoseconds())/gets, "cpu-ns/get-off")
			b.ReportMetric(100*(float64(cpu[0])/float64(cpu[1])-1), "%cost")
			b.ReportMetric(float64(allocs[0])/gets, "allocs/get-on")
			b.ReportMetric(float64(allocs[1])/gets, "allocs/get-off")
		})
	}
}

// cpuTime is what the process has used so far.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mallocs counts the allocations of the process so far.
func mallocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// BenchmarkScrape measures what a scraper waits for all three nodes of a mesh: by
// asking each for its own metrics, one after the other, and by asking one for the
// resources of all.
func BenchmarkScrape(b *testing.B) {
	nodes := startMesh(b, b.TempDir(), 3)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
	b.Cleanup(client.CloseIdleConnections)
	fetch := func(url string) (n int64) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testKey.String())
		res, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		if n, err = io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("%s: %s, %v", url, res.Status, err)
		}
		return n
	}
	for _, path := range []string{"/metrics", "/v3/metrics/grid"} {
		b.Run("each"+path, func(b *testing.B) {
			n, rounds, began := int64(0), 0, cpuTime(b)
			for b.Loop() {
				n = 0
				for _, r := range nodes {
					n += fetch(r.url(path))
				}
				rounds++
			}
			b.ReportMetric(float64(n), "bytes")
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(rounds), "cpu-ns/op")
		})
	}
	b.Run("all/v2/metrics/resource", func(b *testing.B) {
		for b.Loop() {
			fetch(nodes[0].url("/v2/metrics/resource"))
		}
	})
}
