package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/metric/noop"
)

// getter asks a node for one object again and again, over one connection, and
// allocates nothing.
type getter struct {
	node    *running
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
		node: r, conn: conn, in: bufio.NewReaderSize(conn, 64<<10), size: int64(size),
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

// withAndWithout starts two nodes that are alike, but that the requests of the
// second are not measured and what its parts report goes nowhere, and puts an
// object of that size into both.
func withAndWithout(t testing.TB, size int) (on, off *getter) {
	t.Helper()
	start := func(measured bool) *getter {
		cfg := meshConfigs(t, t.TempDir(), 1)[0]
		n, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if !measured {
			nowhere, err := newInstruments(noop.Meter{})
			if err != nil {
				t.Fatal(err)
			}
			*n.instruments = *nowhere
			n.httpServer.Handler = n.limits.http.Handler(trailers(lingering(strict(n.front))))
		}
		r := run(t, n)
		r.await(t)
		makeBucket(t, r, "photos")
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(randomBytes(size)))
		return newGetter(t, r, "/data/photos/a", size)
	}
	return start(true), start(false)
}

// TestTelemetryAllocatesNothing: a GET that leaves by sendfile costs as many
// allocations with telemetry as without. The least of some runs counts: the
// nodes have other things to do meanwhile.
func TestTelemetryAllocatesNothing(t *testing.T) {
	on, off := withAndWithout(t, 256<<10)
	with, without := math.Inf(1), math.Inf(1)
	for run := 0; run < 3 || with > without && run < 30; run++ {
		with = min(with, testing.AllocsPerRun(100, func() { on.get(t) }))
		without = min(without, testing.AllocsPerRun(100, func() { off.get(t) }))
	}
	if with > without {
		t.Errorf("a GET has %v allocations with telemetry, %v without", with, without)
	}
	sent, _ := sum([]map[string]*dto.MetricFamily{scraped(t, on.node, "/metrics")}, "gridloom_payload_sent_bytes_total", "path", "sendfile")
	if runtime.GOOS == "linux" && sent < 300*256<<10 {
		t.Errorf("%v bytes left by sendfile: something else was measured", sent)
	}
	if counted, _ := sum([]map[string]*dto.MetricFamily{scraped(t, off.node, "/metrics")}, "gridloom_request_duration_seconds", "api", "GetObject"); counted > 0 {
		t.Errorf("%v requests were measured of the node that should measure none", counted)
	}
}

// BenchmarkTelemetry measures GETs of 4 KiB with and without telemetry, in turn.
func BenchmarkTelemetry(b *testing.B) {
	on, off := withAndWithout(b, 4<<10)
	var took [2]time.Duration
	const turn = 200
	turns := 0
	for b.Loop() {
		for i, g := range []*getter{on, off} {
			began := time.Now()
			for range turn {
				g.get(b)
			}
			took[i] += time.Since(began)
		}
		turns++
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(turns*turn) }
	b.ReportMetric(each(took[0]), "ns/get-on")
	b.ReportMetric(each(took[1]), "ns/get-off")
	b.ReportMetric(100*(float64(took[0])/float64(took[1])-1), "%cost")
}
