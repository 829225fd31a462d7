package observability

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// pushed pushes all signals to one receiver.
func pushed(p Protocol, endpoint string) OTLP {
	to := Push{Protocol: p, Endpoint: endpoint}
	return OTLP{Metrics: to, Traces: to, Logs: to}
}

// collector is a real OTLP receiver.
type collector struct {
	mu      sync.Mutex
	metrics []*metricspb.ResourceMetrics
	spans   []*tracepb.ResourceSpans
	logs    []*logspb.ResourceLogs
	headers []http.Header // by HTTP
}

type metricsReceiver struct {
	colmetrics.UnimplementedMetricsServiceServer
	*collector
}

func (r metricsReceiver) Export(_ context.Context, e *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metrics = append(r.metrics, e.ResourceMetrics...)
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

type traceReceiver struct {
	coltraces.UnimplementedTraceServiceServer
	*collector
}

func (r traceReceiver) Export(_ context.Context, e *coltraces.ExportTraceServiceRequest) (*coltraces.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, e.ResourceSpans...)
	return &coltraces.ExportTraceServiceResponse{}, nil
}

type logReceiver struct {
	collogs.UnimplementedLogsServiceServer
	*collector
}

func (r logReceiver) Export(_ context.Context, e *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, e.ResourceLogs...)
	return &collogs.ExportLogsServiceResponse{}, nil
}

// serveGRPC receives until the test ends, and returns the address.
func (c *collector) serveGRPC(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	colmetrics.RegisterMetricsServiceServer(server, metricsReceiver{collector: c})
	coltraces.RegisterTraceServiceServer(server, traceReceiver{collector: c})
	collogs.RegisterLogsServiceServer(server, logReceiver{collector: c})
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// ServeHTTP receives by HTTP.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		var unzip *gzip.Reader
		if unzip, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(unzip)
		}
	}
	if err == nil {
		switch r.URL.Path {
		case "/v1/metrics", "/below/v1/metrics":
			e := &colmetrics.ExportMetricsServiceRequest{}
			if err = proto.Unmarshal(body, e); err == nil {
				_, err = metricsReceiver{collector: c}.Export(r.Context(), e)
			}
		case "/v1/traces", "/below/v1/traces":
			e := &coltraces.ExportTraceServiceRequest{}
			if err = proto.Unmarshal(body, e); err == nil {
				_, err = traceReceiver{collector: c}.Export(r.Context(), e)
			}
		case "/v1/logs", "/below/v1/logs":
			e := &collogs.ExportLogsServiceRequest{}
			if err = proto.Unmarshal(body, e); err == nil {
				_, err = logReceiver{collector: c}.Export(r.Context(), e)
			}
		default:
			err = errors.New("no such path: " + r.URL.Path)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, r.Header)
}

// spanCount and logCount are what came so far.
func (c *collector) spanCount() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.spans {
		for _, s := range r.ScopeSpans {
			n += int64(len(s.Spans))
		}
	}
	return n
}

func (c *collector) logCount() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.logs {
		for _, s := range r.ScopeLogs {
			n += int64(len(s.LogRecords))
		}
	}
	return n
}

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, kv := range kvs {
		m[kv.Key] = kv.Value.GetStringValue()
	}
	return m
}

const (
	parent   = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	parentID = "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
)

// TestPush sends metrics, spans and logs to a real receiver by both protocols
// and looks at what came.
func TestPush(t *testing.T) {
	t.Run("grpc", func(t *testing.T) {
		c := &collector{}
		testPush(t, c, pushed(GRPC, "http://"+c.serveGRPC(t)))
	})
	t.Run("http", func(t *testing.T) {
		c := &collector{}
		server := httptest.NewServer(c)
		defer server.Close()
		to := pushed(HTTPProtobuf, server.URL)
		to.Traces.Endpoint = server.URL + "/below/v1/traces"
		testPush(t, c, to)
	})
}

func testPush(t *testing.T, c *collector, to OTLP) {
	var stderr bytes.Buffer
	logs := NewLogs(slog.NewTextHandler(&stderr, nil))
	log := slog.New(logs.Handler()).With("node", "n1")
	log.Info("too early to be pushed")
	tel := newTelemetry(t, Options{Node: "n1", Version: "1.2.3", OTLP: to, Logs: logs,
		Failed: func(signal string, err error) { t.Errorf("%s: %v", signal, err) }})
	if err := publish(exampleResources("n1")).Register(tel.Meter()); err != nil {
		t.Fatal(err)
	}
	handler := tel.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !trace.SpanContextFromContext(r.Context()).IsSampled() {
			t.Error("no span in the handler's context")
		}
		SetAPI(r.Context(), "GetObject")
		log.WarnContext(r.Context(), "a copy is bad", "drive", "d1")
		w.WriteHeader(503)
	}))
	hr := httptest.NewRequestWithContext(t.Context(), "GET", "/data/secret-bucket/secret-key", nil)
	hr.Header.Set("Traceparent", parent)
	handler.ServeHTTP(httptest.NewRecorder(), hr)
	callHealth(t, tel, parent)

	// The exemplar is in the pull side too, for scrapers that ask.
	openMetrics := scrape(t, tel, "application/openmetrics-text; version=1.0.0")
	if !strings.Contains(openMetrics, `trace_id="0123456789abcdef0123456789abcdef"`) {
		t.Error("no exemplar in OpenMetrics")
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	log.Info("too late to be pushed")

	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.metrics) == 0 || len(c.spans) == 0 || len(c.logs) == 0 {
		t.Fatalf("%d metrics, %d spans and %d logs came", len(c.metrics), len(c.spans), len(c.logs))
	}
	want := map[string]string{"service.name": "gridloom", "service.instance.id": "n1", "service.version": "1.2.3"}
	for _, resource := range []map[string]string{attributes(c.metrics[0].Resource.Attributes), attributes(c.spans[0].Resource.Attributes), attributes(c.logs[0].Resource.Attributes)} {
		for key, value := range want {
			if resource[key] != value {
				t.Errorf("resource %v, want %s=%s", resource, key, value)
			}
		}
	}
	checkPushedMetrics(t, c.metrics)
	span := checkPushedSpans(t, c.spans)
	checkPushedLogs(t, c.logs, span, stderr.String())
}

// checkPushedSpans returns that of the request by HTTP.
func checkPushedSpans(t *testing.T, all []*tracepb.ResourceSpans) *tracepb.Span {
	t.Helper()
	spans := make(map[string]*tracepb.Span)
	for _, r := range all {
		for _, s := range r.ScopeSpans {
			for _, span := range s.Spans {
				spans[span.Name] = span
				if strings.Contains(span.String(), "secret") {
					t.Errorf("a key is in the span: %v", span)
				}
			}
		}
	}
	for _, name := range []string{"GetObject", "Check"} {
		if span := spans[name]; span == nil {
			t.Fatalf("no span %s in %v", name, spans)
		} else if string(span.TraceId) != parentID || span.Kind != tracepb.Span_SPAN_KIND_SERVER {
			t.Errorf("span %v", span)
		}
	}
	if status := spans["GetObject"].Status; status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("status of a 503: %v", status)
	}
	if a := attributes(spans["Check"].Attributes); a["rpc.method"] != "grpc.health.v1.Health/Check" {
		t.Errorf("attributes %v", a)
	}
	return spans["GetObject"]
}

// checkPushedLogs: the one record that was logged while there was somewhere to
// push it, with the ids of the span on both ways.
func checkPushedLogs(t *testing.T, all []*logspb.ResourceLogs, span *tracepb.Span, stderr string) {
	t.Helper()
	if len(all) != 1 || len(all[0].ScopeLogs) != 1 || len(all[0].ScopeLogs[0].LogRecords) != 1 {
		t.Fatalf("logs %v", all)
	}
	r := all[0].ScopeLogs[0].LogRecords[0]
	if r.Body.GetStringValue() != "a copy is bad" || r.SeverityNumber != logspb.SeverityNumber_SEVERITY_NUMBER_WARN || r.TimeUnixNano == 0 {
		t.Errorf("record %v", r)
	}
	if string(r.TraceId) != parentID || !bytes.Equal(r.SpanId, span.SpanId) {
		t.Errorf("record of trace %x, span %x; want %x", r.TraceId, r.SpanId, span.SpanId)
	}
	if a := attributes(r.Attributes); len(a) != 2 || a["drive"] != "d1" || a["node"] != "n1" {
		t.Errorf("attributes %v", a)
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	ids := " trace_id=0123456789abcdef0123456789abcdef span_id=" + hexID(span.SpanId)
	if len(lines) != 3 || !strings.HasSuffix(lines[1], `msg="a copy is bad" node=n1 drive=d1`+ids) || strings.Contains(lines[0]+lines[2], "trace_id") {
		t.Errorf("standard error:\n%s", stderr)
	}
}

func hexID(id []byte) string { return trace.SpanID(id).String() }

// TestPushByTLS trusts the receiver's certificate, and drops what a receiver
// would get whose certificate it doesn't trust.
func TestPushByTLS(t *testing.T) {
	c := &collector{}
	https := httptest.NewUnstartedServer(c)
	https.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	https.StartTLS()
	defer https.Close()
	byGRPC := c.serveGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(&https.TLS.Certificates[0])))
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	for _, to := range []Push{{Protocol: GRPC, Endpoint: byGRPC}, {Protocol: HTTPProtobuf, Endpoint: https.URL}} {
		for _, trusted := range []bool{true, false} {
			to.TLS = &tls.Config{}
			if trusted {
				to.TLS.RootCAs = roots
			}
			tel := newTelemetry(t, Options{Node: "n1", OTLP: OTLP{Metrics: to}})
			ctx, cancel := context.WithTimeout(t.Context(), shutdownTimeout)
			if !trusted { // gRPC tries again and again
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			}
			_ = tel.Shutdown(ctx)
			cancel()
			c.mu.Lock()
			if came := len(c.metrics) > 0; came != trusted {
				t.Errorf("%s, trusted %v: came %v", to.Protocol, trusted, came)
			}
			c.metrics = nil
			c.mu.Unlock()
			if lost := tel.push.metrics.failed.Load(); (lost == 0) != trusted {
				t.Errorf("%s, trusted %v: %d lost", to.Protocol, trusted, lost)
			}
		}
	}
}

func checkPushedMetrics(t *testing.T, all []*metricspb.ResourceMetrics) {
	t.Helper()
	units := make(map[string]string)
	exemplar := false
	for _, s := range all[len(all)-1].ScopeMetrics {
		for _, m := range s.Metrics {
			units[m.Name] = m.Unit
			for _, d := range m.GetHistogram().GetDataPoints() {
				for _, e := range d.Exemplars {
					exemplar = exemplar || len(e.TraceId) == 16
				}
			}
			for _, d := range m.GetGauge().GetDataPoints() {
				if node := attributes(d.Attributes)["node"]; node != "" {
					t.Errorf("%s says the node again: %s", m.Name, node)
				}
			}
		}
	}
	for name, unit := range map[string]string{
		"gridloom.request.ttfb": "s", "gridloom.request.in_flight": "{request}", "gridloom.response.bytes": "By",
		"gridloom.memory.used.bytes.avg": "By", "gridloom.drive.errors": "{error}", "gridloom.node.up": "",
		"go.memory.used": "By", "gridloom.telemetry.dropped": "{item}",
	} {
		if got, ok := units[name]; !ok || got != unit {
			t.Errorf("%s: unit %q (there: %v), want %q", name, got, ok, unit)
		}
	}
	if !exemplar {
		t.Error("no exemplar with a trace id came")
	}
}

// callHealth makes one measured gRPC call as a child of parent.
func callHealth(t *testing.T, tel *Telemetry, parent string) {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(grpc.StatsHandler(tel.Requests().StatsHandler()))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	server.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
