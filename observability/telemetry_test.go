package observability

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

func newTelemetry(t testing.TB, o Options) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	return tel
}

func scrape(t testing.TB, tel *Telemetry, accept string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// publish returns a collector that has published r without running.
func publish(r *Resources) *Collector {
	c := NewCollector(CollectorOptions{Node: r.Node, Host: newHost(&scripted{})})
	c.published.Store(r)
	return c
}

// TestSameNames: /metrics has every series that /v2/metrics/resource has, but for
// ResourceOnly, with the same name, type, help, labels and value.
func TestSameNames(t *testing.T) {
	r := exampleResources("n1")
	tel := newTelemetry(t, Options{Node: "n1", Version: "1.2.3"})
	if err := publish(r).Register(tel.Meter()); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := WriteResources(&b, nil, []*Resources{r}); err != nil {
		t.Fatal(err)
	}
	want := parseText(t, []byte(b.String()))
	got := parseText(t, []byte(scrape(t, tel, "")))
	for _, only := range ResourceOnly() {
		if want[only.Series] == nil || got[only.Series] != nil {
			t.Errorf("%s is not in the text alone", only.Series)
		}
		delete(want, only.Series)
	}
	for name, family := range want {
		if got[name] == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		if got[name].GetType() != family.GetType() || got[name].GetHelp() != family.GetHelp() {
			t.Errorf("%s: %v %q, want %v %q", name, got[name].GetType(), got[name].GetHelp(), family.GetType(), family.GetHelp())
		}
		have := values(got[name])
		for labels, value := range values(family) {
			if v, ok := have[labels]; !ok || v != value {
				t.Errorf("%s{%s} = %g (there: %v), want %g", name, labels, v, ok, value)
			}
			delete(have, labels)
		}
		if len(have) > 0 {
			t.Errorf("%s has %v besides", name, have)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "gridloom_") && want[name] == nil {
			for _, prefix := range []string{"gridloom_drive_", "gridloom_network_", "gridloom_cpu_", "gridloom_memory_", "gridloom_node_"} {
				if strings.HasPrefix(name, prefix) {
					t.Errorf("%s is in /metrics alone", name)
				}
			}
		}
	}
}

func TestMetricsHandler(t *testing.T) {
	var failed []string
	tel := newTelemetry(t, Options{Node: "n1", Version: "1.2.3", Failed: func(signal string, err error) { failed = append(failed, signal+": "+err.Error()) }})
	handler := tel.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		SetAPI(r.Context(), "GetObject")
		_, _ = io.WriteString(w, "hello")
	}))
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))

	text := scrape(t, tel, "")
	for _, line := range []string{
		`gridloom_request_ttfb_seconds_bucket{api="GetObject",class="2xx",node="n1",proto="http",le="10"} 1`,
		`gridloom_request_ttfb_seconds_count{api="GetObject",class="2xx",node="n1",proto="http"} 1`,
		`gridloom_request_duration_seconds_count{api="GetObject",class="2xx",node="n1",proto="http"} 1`,
		`gridloom_request_in_flight{node="n1",proto="http"} 0`,
		`gridloom_response_bytes_total{api="GetObject",node="n1",proto="http"} 5`,
		`gridloom_request_bytes_total{api="GetObject",node="n1",proto="http"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	families := parseText(t, []byte(text))
	buckets := families["gridloom_request_ttfb_seconds"].GetMetric()[0].GetHistogram().GetBucket()
	if n := len(buckets); n != 15 || buckets[0].GetUpperBound() != 0.0005 || buckets[n-2].GetUpperBound() != 10 {
		t.Errorf("buckets %v, want 0.5 ms to 10 s and one above", buckets)
	}
	for _, name := range []string{"go_goroutine_count", "go_memory_used_bytes", "go_memory_allocated_bytes_total", "go_processor_limit", "target_info"} {
		if families[name] == nil {
			t.Errorf("missing: %s", name)
		}
	}
	info := ""
	for labels := range values(families["target_info"]) {
		info = labels
	}
	for _, label := range []string{"service_name=gridloom", "service_instance_id=n1", "service_version=1.2.3", "node=n1"} {
		if !strings.Contains(info, label) {
			t.Errorf("target_info{%s} lacks %s", info, label)
		}
	}

	// An instrument that takes the label node costs itself alone.
	counter, err := tel.Meter().Int64Counter("gridloom.bad")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1, metric.WithAttributes(attribute.String("node", "n2")))
	text = scrape(t, tel, "")
	if !strings.Contains(text, "gridloom_request_ttfb_seconds_count") || strings.Contains(text, "gridloom_bad_total{") {
		t.Errorf("scrape with a bad instrument:\n%s", text)
	}
	if len(failed) != 1 || !strings.HasPrefix(failed[0], "scrape: ") {
		t.Errorf("failed %q", failed)
	}
}

// TestTwoNodes in one process have nothing in common.
func TestTwoNodes(t *testing.T) {
	a, b := newTelemetry(t, Options{Node: "a"}), newTelemetry(t, Options{Node: "b"})
	a.Requests().HTTP(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if text := scrape(t, a, ""); !strings.Contains(text, `{api="other",class="4xx",node="a",proto="http"} 1`) {
		t.Errorf("a:\n%s", text)
	}
	if text := scrape(t, b, ""); strings.Contains(text, `api="other"`) || strings.Contains(text, `node="a"`) {
		t.Errorf("b:\n%s", text)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=somebody")
	t.Setenv("OTEL_SERVICE_NAME", "renamed")
	text := scrape(t, newTelemetry(t, Options{Node: "n1"}), "")
	for _, label := range []string{`deployment_environment_name="test"`, `service_instance_id="n1"`, `service_name="renamed"`} {
		if !strings.Contains(text, label) {
			t.Errorf("missing: %s", label)
		}
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "no-equals-sign")
	var said error
	text = scrape(t, newTelemetry(t, Options{Node: "n1", Failed: func(_ string, err error) { said = err }}), "")
	if said == nil || !strings.Contains(said.Error(), "OTEL_RESOURCE_ATTRIBUTES") || !strings.Contains(text, `service_name="renamed"`) {
		t.Errorf("bad variable: %v\n%s", said, text)
	}
}

func TestBadOptions(t *testing.T) {
	if _, err := New(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "Node") {
		t.Errorf("no node: %v", err)
	}
	for _, bad := range []string{"collector", ":4317", "host:", "ftp://host:1", "https://host", "http://user@host:1", "http://host:1?x", "a b:c d", "::1:4317"} {
		// The other signals' exporters are there by then, and must be closed.
		o := Options{Node: "n1", OTLP: pushed(GRPC, "http://host:1"), Logs: NewLogs(slog.DiscardHandler)}
		o.OTLP.Logs.Endpoint = bad
		if tel, err := New(t.Context(), o); err == nil || tel != nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "logs") {
			t.Errorf("endpoint %q: %v", bad, err)
		}
		if err := o.OTLP.Validate(); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("endpoint %q: %v", bad, err)
		}
	}
	for _, o := range []OTLP{
		{Traces: Push{Protocol: GRPC, Endpoint: "https://host:1", Insecure: true}},
		{Traces: Push{Protocol: "http/json", Endpoint: "https://host:1"}},
		{Logs: Push{Protocol: GRPC, Endpoint: "https://host:1"}}, // without a log
	} {
		if _, err := New(t.Context(), Options{Node: "n1", OTLP: o}); err == nil {
			t.Errorf("no error: %+v", o)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, seed := range []string{"host:4317", "https://host:4317", "http://host:1/path%20x", "http://[::1]:4317/", "[::1]:4317", "://", "http://:1", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, protocol := range []Protocol{GRPC, HTTPProtobuf} {
			to, err := Push{Protocol: protocol, Endpoint: s}.target("traces")
			if err != nil {
				continue
			}
			host, port, err := net.SplitHostPort(to.hostPort)
			if err != nil || host == "" || port == "" {
				t.Errorf("%q is taken for %q: %v", s, to.hostPort, err)
			}
			if to.plaintext && !strings.HasPrefix(strings.ToLower(s), "http://") {
				t.Errorf("%q is plaintext", s)
			}
			if u, err := url.Parse(to.url); err != nil || u.Host != to.hostPort || u.Path == "" || to.plaintext != (u.Scheme == "http") {
				t.Errorf("%q is taken for %q: %v", s, to.url, err)
			}
		}
	})
}

// TestWithoutEndpoint: no spans are made, a remote parent is passed on.
func TestWithoutEndpoint(t *testing.T) {
	tel := newTelemetry(t, Options{Node: "n1"})
	tel.Requests().HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, span := tel.TracerProvider().Tracer("test").Start(r.Context(), "inner")
		if id := span.SpanContext().TraceID().String(); id != "0123456789abcdef0123456789abcdef" || span.IsRecording() {
			t.Errorf("trace %s, recording %v", id, span.IsRecording())
		}
	})).ServeHTTP(httptest.NewRecorder(), func() *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Header.Set("Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
		return r
	}())
}

// BenchmarkScrape is the cost of /metrics of one node.
func BenchmarkScrape(b *testing.B) {
	tel := newTelemetry(b, Options{Node: "n1"})
	if err := publish(exampleResources("n1")).Register(tel.Meter()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		scrape(b, tel, "")
	}
}
