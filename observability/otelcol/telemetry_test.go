//go:build real

package otelcol

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// TestMesh: metrics, traces, logs and exemplars of a mesh of three nodes come
// out of the Collector, whichever protocol a node speaks to it. Then the
// Collector goes away, and nobody but a counter notices.
func TestMesh(t *testing.T) {
	came := newSink()
	receiver := httptest.NewServer(came)
	defer receiver.Close()
	collector := startCollector(t, receiver.URL)

	fast := []string{"OTEL_METRIC_EXPORT_INTERVAL=500", "OTEL_BSP_SCHEDULE_DELAY=200", "OTEL_BLRP_SCHEDULE_DELAY=200", "OTEL_EXPORTER_OTLP_TIMEOUT=1000",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test"}
	m := startMesh(t, [3][]string{
		append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.grpc}, fast...),
		append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.http, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, fast...),
		append([]string{"GRIDLOOM_OTLP_ENDPOINT=" + collector.grpc, "GRIDLOOM_OTLP_INSECURE=true", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
			"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram"}, fast...),
	})

	m.run("mb", "--endpoint", m.grpc[0], "photos")
	body := bytes.Repeat([]byte("gridloom"), 64<<10/8)
	for i := range 3 {
		m.must(i, http.MethodPut, "/data/photos/"+name(i), traceparent(i), body)
	}
	for i := range 3 { // what one node has taken another gives
		if got := m.must((i+1)%3, http.MethodGet, "/data/photos/"+name(i), traceparent((i+1)%3), nil); !bytes.Equal(got, body) {
			t.Fatalf("got %d bytes", len(got))
		}
	}
	if n := m.truncatePayload(); n < 3 {
		t.Fatalf("%d copies on the drives", n)
	}
	for i := range 3 {
		if status, got, err := m.do(i, http.MethodGet, "/data/photos/"+name(i), traceparent(i), nil); err == nil && status == http.StatusOK {
			t.Fatalf("an object without a copy: %d bytes", len(got))
		}
	}
	for i := range 3 {
		checkMetrics(t, came, i)
		checkSpans(t, came, i)
		checkLogs(t, came, i, m)
	}

	collector.stop()
	for i := range 3 {
		m.must(i, http.MethodPut, "/data/photos/later-"+name(i), traceparent(i), body)
		m.must((i+1)%3, http.MethodGet, "/data/photos/later-"+name(i), "", nil)
	}
	m.stop() // well, without the Collector
}

// traceID is the trace that requests of a node are in.
func traceID(i int) string { return fmt.Sprintf("0123456789abcdef0123456789abcde%d", i+1) }

func traceparent(i int) string { return "00-" + traceID(i) + "-0123456789abcdef-01" }

// checkMetrics: the time to first byte of puts and gets, with an exemplar that
// leads to the trace, and what each node has of itself.
func checkMetrics(t *testing.T, came *sink, i int) {
	t.Helper()
	came.wait(t, "time to first byte of "+name(i)+" with an exemplar", func() bool {
		put, get := false, false
		for metric := range came.eachMetric(name(i)) {
			if metric.Name() != "gridloom.request.ttfb" || metric.Unit() != "s" {
				continue
			}
			for _, api := range exemplars(metric, traceID(i)) {
				put, get = put || api == "PutObject", get || api == "GetObject"
			}
		}
		return put && get
	})
	for _, want := range []string{"gridloom.node.up", "gridloom.cpu.busy.ratio", "gridloom.drive.total.bytes", "go.goroutine.count", "gridloom.telemetry.dropped"} {
		came.wait(t, want+" of "+name(i), func() bool {
			for metric := range came.eachMetric(name(i)) {
				if metric.Name() == want {
					return true
				}
			}
			return false
		})
	}
	came.mu.Lock()
	defer came.mu.Unlock()
	for metric := range came.eachMetric(name(i)) {
		if exponential := metric.Type() == pmetric.MetricTypeExponentialHistogram; metric.Name() == "gridloom.request.ttfb" && exponential != (i == 2) {
			t.Errorf("%s: the time to first byte came as %s", name(i), metric.Type())
		}
	}
}

// exemplars are the APIs of the points that have one of the trace.
func exemplars(metric pmetric.Metric, trace string) (apis []string) {
	switch metric.Type() {
	case pmetric.MetricTypeHistogram:
		for _, p := range metric.Histogram().DataPoints().All() {
			for _, e := range p.Exemplars().All() {
				if e.TraceID().String() == trace && p.Count() > 0 {
					apis = append(apis, text(p.Attributes(), "api"))
				}
			}
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range metric.ExponentialHistogram().DataPoints().All() {
			for _, e := range p.Exemplars().All() {
				if e.TraceID().String() == trace && p.Count() > 0 {
					apis = append(apis, text(p.Attributes(), "api"))
				}
			}
		}
	}
	return apis
}

// checkSpans: the requests' spans are the caller's children, and have neither
// bucket nor key in them.
func checkSpans(t *testing.T, came *sink, i int) {
	t.Helper()
	for _, api := range []string{"PutObject", "GetObject"} {
		came.wait(t, "span "+api+" of "+name(i), func() bool {
			for span := range came.eachSpan(name(i)) {
				if span.Name() == api && span.TraceID().String() == traceID(i) && span.ParentSpanID().String() == "0123456789abcdef" {
					return true
				}
			}
			return false
		})
	}
	came.mu.Lock()
	defer came.mu.Unlock()
	for span := range came.eachSpan(name(i)) {
		for key, value := range span.Attributes().All() {
			if strings.Contains(value.AsString(), "photos") {
				t.Errorf("%s, span %s: %s=%s", name(i), span.Name(), key, value.AsString())
			}
		}
	}
}

// checkLogs: what a node says of itself came, and what it says of a request is
// in the request's trace, here and on standard error.
func checkLogs(t *testing.T, came *sink, i int, m *mesh) {
	t.Helper()
	var message, span string
	came.wait(t, "log of "+name(i)+" in the trace", func() bool {
		ready := false
		for record := range came.eachLog(name(i)) {
			ready = ready || record.Body().AsString() == "ready"
			if record.TraceID().String() == traceID(i) {
				message, span = record.Body().AsString(), record.SpanID().String()
			}
		}
		return ready && message != ""
	})
	found := false
	for line := range strings.Lines(m.all[i].log.String()) {
		found = found || strings.Contains(line, message) && strings.Contains(line, "trace_id="+traceID(i)+" span_id="+span)
	}
	if !found {
		t.Errorf("%s: %q isn't on standard error with trace %s and span %s", name(i), message, traceID(i), span)
	}
}

// TestSamples: the Collector takes the configurations in deploy/otelcol, with
// the variables that they say they need.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "deploy", "otelcol", "*.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d sample configurations: %v", len(files), err)
	}
	t.Setenv("GATEWAY", "https://gateway.example.com:4318")
	t.Setenv("BACKEND", "https://telemetry.example.com")
	for _, file := range files {
		if err := newCollector(t, "file:"+file).DryRun(t.Context()); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	// What is wrong is seen: the check checks.
	for _, wrong := range []string{
		"receivers: {otlp: {protocols: {grpc: {}}}}\nexporters: {debug: {}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [nowhere]}}}",
		"receivers: {otlp: {protocol: {grpc: {}}}}\nexporters: {debug: {}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
	} {
		if err := newCollector(t, "yaml:"+wrong).DryRun(t.Context()); err == nil {
			t.Errorf("no error:\n%s", wrong)
		}
	}
}
