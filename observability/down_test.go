package observability

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// failures are what Options.Failed was told, by signal.
type failures struct {
	mu   sync.Mutex
	told map[string]int
}

func (f *failures) tell(signal string, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.told == nil {
		f.told = map[string]int{}
	}
	f.told[signal]++
}

// flood ends n spans and logs n records.
func flood(ctx context.Context, tel *Telemetry, log *slog.Logger, n int) {
	tracer := tel.TracerProvider().Tracer("test")
	for range n {
		inner, span := tracer.Start(ctx, "work")
		log.InfoContext(inner, "working")
		span.End()
	}
}

// TestReceiverDown: whatever is wrong with the receiver, nobody waits for it,
// what waits is bounded, what is lost is counted and told once, and Shutdown
// ends and leaves no goroutine (see TestMain).
func TestReceiverDown(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // takes connections and says nothing
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := closed.Addr().String()
	closed.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer failing.Close()

	for name, endpoint := range map[string]string{"silent": silent.Addr().String(), "refuses": refuses, "fails": strings.TrimPrefix(failing.URL, "http://")} {
		for _, protocol := range []Protocol{GRPC, HTTPProtobuf} {
			t.Run(name+" "+string(protocol), func(t *testing.T) {
				const n, queue = 500, 40
				var failed failures
				logs := NewLogs(slog.DiscardHandler)
				o := Options{Node: "n1", OTLP: pushed(protocol, "http://"+endpoint), Logs: logs, Failed: failed.tell}
				o.OTLP.Traces.Queue, o.OTLP.Logs.Queue = queue, queue
				tel := newTelemetry(t, o)
				log := slog.New(enabled{logs.Handler()})
				flood(t.Context(), tel, log, n) // ends only if nobody waits
				for _, out := range []*out{tel.push.spans.out, tel.push.logs.out} {
					if waiting, over, lost := out.waiting.Load(), out.overflowed.Load(), out.failed.Load(); waiting > queue || waiting+over+lost != n {
						t.Errorf("%s: of %d %d wait, %d found no room, %d were lost", out.signal, n, waiting, over, lost)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				first := tel.Shutdown(ctx)
				if again := tel.Shutdown(t.Context()); fmt.Sprint(again) != fmt.Sprint(first) {
					t.Errorf("Shutdown: %v, and again %v", first, again)
				}
				for _, out := range tel.push.outs() {
					if waiting := out.waiting.Load(); waiting != 0 {
						t.Errorf("%s: %d still wait", out.signal, waiting)
					}
					if out.failed.Load() == 0 {
						t.Errorf("%s: nothing is counted as lost", out.signal)
					}
					if failed.told[out.signal] != 1 {
						t.Errorf("%s: Failed was told %d times", out.signal, failed.told[out.signal])
					}
				}
				for _, out := range []*out{tel.push.spans.out, tel.push.logs.out} {
					if all := out.overflowed.Load() + out.failed.Load(); all != n {
						t.Errorf("%s: %d counted as lost of %d", out.signal, all, n)
					}
				}
			})
		}
	}
}

// enabled is for all levels.
type enabled struct{ slog.Handler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }

// TestShutdownBound: without a deadline of the caller's it is its own.
func TestShutdownBound(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() }) // after the parallel tests
	for _, protocol := range []Protocol{GRPC, HTTPProtobuf} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			o := Options{Node: "n1", OTLP: pushed(protocol, "http://"+silent.Addr().String()), Logs: NewLogs(slog.DiscardHandler)}
			for _, p := range []*Push{&o.OTLP.Metrics, &o.OTLP.Traces, &o.OTLP.Logs} {
				p.Timeout = time.Hour
			}
			tel := newTelemetry(t, o)
			flood(t.Context(), tel, slog.New(enabled{o.Logs.Handler()}), 10)
			if err := tel.Shutdown(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}

// TestShutdownTooLate: the SDK leaves its goroutines alone when its Shutdown is
// given a context that has ended.
func TestShutdownTooLate(t *testing.T) {
	o := Options{Node: "n1", OTLP: pushed(GRPC, "http://127.0.0.1:1"), Logs: NewLogs(slog.DiscardHandler)}
	tel := newTelemetry(t, o)
	flood(t.Context(), tel, slog.New(enabled{o.Logs.Handler()}), 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tel.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if spans, logs := tel.push.spans.failed.Load(), tel.push.logs.failed.Load(); spans != 10 || logs != 10 {
		t.Errorf("%d spans and %d records are counted as lost of 10", spans, logs)
	}
}

// TestStopMetrics: no callback is called after it, whatever the receiver does,
// and it doesn't wait for the receiver.
func TestStopMetrics(t *testing.T) {
	turn := make(chan struct{})
	c := &collector{}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-turn // which comes after StopMetrics has returned
		c.ServeHTTP(w, r)
	}))
	defer slow.Close()
	for _, o := range []OTLP{pushed(HTTPProtobuf, slow.URL), {}} {
		tel := newTelemetry(t, Options{Node: "n1", OTLP: o, Logs: NewLogs(slog.DiscardHandler)})
		var calls int
		closed := false
		_, err := tel.Meter().Int64ObservableGauge("gridloom.test", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			if closed {
				t.Error("called after StopMetrics")
			}
			calls++
			o.Observe(1)
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		tel.StopMetrics(t.Context())
		closed = true
		if pushes := o.Metrics.Protocol != ""; pushes != (calls == 1) {
			t.Errorf("pushed %v: called %d times", pushes, calls)
		}
		if o.Metrics.Protocol != "" {
			close(turn)
		}
		tel.StopMetrics(t.Context())
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.metrics) != 1 {
		t.Errorf("%d exports came", len(c.metrics))
	}
}

// TestStuckCallback: one that waits for what has stopped holds up StopMetrics
// for as long as its context lives, and that ends.
func TestStuckCallback(t *testing.T) {
	c := &collector{}
	tel := newTelemetry(t, Options{Node: "n1", OTLP: OTLP{Metrics: Push{Protocol: GRPC, Endpoint: "http://" + c.serveGRPC(t)}}})
	_, err := tel.Meter().Int64ObservableGauge("gridloom.test", metric.WithInt64Callback(func(ctx context.Context, _ metric.Int64Observer) error {
		<-ctx.Done()
		return ctx.Err()
	}))
	if err != nil {
		t.Fatal(err)
	}
	tel.StopMetrics(t.Context())
	if err := tel.Shutdown(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
}

// TestSlowReceiver gets everything that there was room for, and all the rest
// is counted.
func TestSlowReceiver(t *testing.T) {
	const n, queue = 3000, 64
	c := &collector{}
	turn := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-turn // of the test
		c.ServeHTTP(w, r)
	}))
	defer slow.Close()
	logs := NewLogs(slog.DiscardHandler)
	o := Options{Node: "n1", OTLP: pushed(HTTPProtobuf, slow.URL), Logs: logs}
	o.OTLP.Traces.Queue, o.OTLP.Logs.Queue = queue, queue
	tel := newTelemetry(t, o)
	flood(t.Context(), tel, slog.New(enabled{logs.Handler()}), n)
	text := scrape(t, tel, "")
	for _, signal := range []string{"logs", "traces"} {
		if none := `gridloom_telemetry_dropped_total{node="n1",reason="queue",signal="` + signal + `"} 0`; !strings.Contains(text, strings.TrimSuffix(none, "0")) || strings.Contains(text, none+"\n") {
			t.Errorf("the %s that found no room are not in /metrics", signal)
		}
	}
	close(turn)
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for signal, came := range map[string]int64{"traces": c.spanCount(), "logs": c.logCount()} {
		out := map[string]*out{"traces": tel.push.spans.out, "logs": tel.push.logs.out}[signal]
		if over := out.overflowed.Load(); came < queue || came+over != n || out.failed.Load() != 0 {
			t.Errorf("%s: of %d %d came, %d found no room, %d were lost", signal, n, came, over, out.failed.Load())
		}
	}
}

// TestSampling: parent-based, and always on where there is no parent, but for
// what the environment says.
func TestSampling(t *testing.T) {
	const unsampled = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
	for _, c := range []struct {
		sampler, argument     string
		alone, with, withheld bool // sampled: without a parent, with one that is sampled, with one that isn't
	}{
		{"", "", true, true, false},
		{"parentbased_always_off", "", false, true, false},
		{"parentbased_traceidratio", "0", false, true, false},
		{"always_on", "", true, true, true},
		{"always_off", "", false, false, false},
	} {
		t.Setenv("OTEL_TRACES_SAMPLER", c.sampler)
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", c.argument)
		receiver := &collector{}
		server := httptest.NewServer(receiver)
		tel := newTelemetry(t, Options{Node: "n1", OTLP: OTLP{Traces: Push{Protocol: HTTPProtobuf, Endpoint: server.URL}}})
		want := int64(0)
		for traceparent, sampled := range map[string]bool{"": c.alone, parent: c.with, unsampled: c.withheld} {
			handler := tel.Requests().HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if got := trace.SpanContextFromContext(r.Context()).IsSampled(); got != sampled {
					t.Errorf("%q: parent %q: sampled %v", c.sampler, traceparent, got)
				}
			}))
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Traceparent", traceparent)
			handler.ServeHTTP(httptest.NewRecorder(), r)
			if sampled {
				want++
			}
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		server.Close()
		if came := receiver.spanCount(); came != want {
			t.Errorf("%q: %d spans came, want %d", c.sampler, came, want)
		}
	}
}

// TestSDKVariables: those that the SDK reads have their effect, on what is
// pushed alone.
func TestSDKVariables(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
	// What Options say counts before these.
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://192.0.2.1:1")
	https := httptest.NewTLSServer(nil)
	defer https.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: https.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)
	t.Run("grpc", func(t *testing.T) {
		c := &collector{}
		testSDKVariables(t, c, pushed(GRPC, "http://"+c.serveGRPC(t)))
	})
	t.Run("http", func(t *testing.T) {
		c := &collector{}
		server := httptest.NewServer(c)
		defer server.Close()
		testSDKVariables(t, c, pushed(HTTPProtobuf, server.URL))
		for _, h := range c.headers {
			if h.Get("Api-Key") != "a b" || h.Get("Content-Encoding") != "gzip" {
				t.Errorf("headers %v", h)
			}
		}
		if len(c.headers) != 3 {
			t.Errorf("%d exports", len(c.headers))
		}
	})
}

func testSDKVariables(t *testing.T, c *collector, to OTLP) {
	logs := NewLogs(slog.DiscardHandler)
	to.Interval = time.Hour
	tel := newTelemetry(t, Options{Node: "n1", OTLP: to, Logs: logs})
	tel.Requests().HTTP(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	slog.New(enabled{logs.Handler()}).Info("hello")
	if text := scrape(t, tel, ""); !strings.Contains(text, `gridloom_request_ttfb_seconds_bucket{`) {
		t.Error("/metrics has no buckets")
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.metrics) != 1 || len(c.spans) != 1 || len(c.logs) != 1 {
		t.Fatalf("%d metrics, %d spans, %d logs", len(c.metrics), len(c.spans), len(c.logs))
	}
	exponential := false
	for _, s := range c.metrics[0].ScopeMetrics {
		for _, m := range s.Metrics {
			exponential = exponential || m.Name == "gridloom.request.ttfb" && m.GetExponentialHistogram() != nil
		}
	}
	if !exponential {
		t.Error("the time to first byte came with buckets")
	}
}
