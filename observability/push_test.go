package observability

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
)

// collector is a real OTLP receiver.
type collector struct {
	mu      sync.Mutex
	metrics []*metricspb.ResourceMetrics
	spans   []*tracepb.ResourceSpans
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

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, kv := range kvs {
		m[kv.Key] = kv.Value.GetStringValue()
	}
	return m
}

// TestPush sends metrics and spans to a real receiver and looks at what came.
func TestPush(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{}
	server := grpc.NewServer()
	colmetrics.RegisterMetricsServiceServer(server, metricsReceiver{collector: c})
	coltraces.RegisterTraceServiceServer(server, traceReceiver{collector: c})
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	tel := newTelemetry(t, Options{Node: "n1", Version: "1.2.3", OTLPEndpoint: "http://" + l.Addr().String(),
		Failed: func(signal string, err error) { t.Errorf("%s: %v", signal, err) }})
	if err := publish(exampleResources("n1")).Register(tel.Meter()); err != nil {
		t.Fatal(err)
	}

	const parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	handler := tel.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !trace.SpanContextFromContext(r.Context()).IsSampled() {
			t.Error("no span in the handler's context")
		}
		SetAPI(r.Context(), "GetObject")
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

	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.metrics) == 0 || len(c.spans) == 0 {
		t.Fatalf("%d metrics and %d spans came", len(c.metrics), len(c.spans))
	}
	want := map[string]string{"service.name": "gridloom", "service.instance.id": "n1", "service.version": "1.2.3"}
	for _, resource := range []map[string]string{attributes(c.metrics[0].Resource.Attributes), attributes(c.spans[0].Resource.Attributes)} {
		for key, value := range want {
			if resource[key] != value {
				t.Errorf("resource %v, want %s=%s", resource, key, value)
			}
		}
	}
	checkPushedMetrics(t, c.metrics)

	spans := make(map[string]*tracepb.Span)
	for _, r := range c.spans {
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
		span := spans[name]
		if span == nil {
			t.Errorf("no span %s in %v", name, spans)
			continue
		}
		if id := string(span.TraceId); id != "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef" || span.Kind != tracepb.Span_SPAN_KIND_SERVER {
			t.Errorf("span %v", span)
		}
	}
	if span := spans["GetObject"]; span != nil && span.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("status of a 503: %v", span.Status)
	}
	if span := spans["Check"]; span != nil && attributes(span.Attributes)["rpc.method"] != "grpc.health.v1.Health/Check" {
		t.Errorf("attributes %v", span.Attributes)
	}
}

// TestPushByTLS trusts the receiver's certificate, and drops what a receiver
// would get whose certificate it doesn't trust.
func TestPushByTLS(t *testing.T) {
	https := httptest.NewTLSServer(nil) // for its certificate
	defer https.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&https.TLS.Certificates[0])))
	colmetrics.RegisterMetricsServiceServer(server, metricsReceiver{collector: c})
	served := make(chan error)
	go func() { served <- server.Serve(l) }()

	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	for _, trusted := range []bool{true, false} {
		o := Options{Node: "n1", OTLPEndpoint: l.Addr().String(), OTLPTLS: &tls.Config{}}
		if trusted {
			o.OTLPTLS.RootCAs = roots
		}
		tel := newTelemetry(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := tel.Shutdown(ctx); (err == nil) != trusted {
			t.Errorf("trusted %v: %v", trusted, err)
		}
		cancel()
		c.mu.Lock()
		if came := len(c.metrics) > 0; came != trusted {
			t.Errorf("trusted %v: came %v", trusted, came)
		}
		c.metrics = nil
		c.mu.Unlock()
	}
	server.Stop()
	if err := <-served; err != nil {
		t.Error(err)
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
		"go.memory.used": "By", "gridloom.telemetry.dropped": "{export}",
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

// TestPushToNobody: a collector that is down costs a counted drop; Shutdown
// is bounded and leaves no goroutine (see TestMain).
func TestPushToNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // takes connections and says nothing
	failed := make(chan string, 10)
	tel := newTelemetry(t, Options{Node: "n1", OTLPEndpoint: l.Addr().String(), OTLPInsecure: true,
		Failed: func(signal string, err error) { failed <- signal + ": " + err.Error() }})
	tel.Requests().HTTP(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	before := time.Now()
	if err := tel.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if took := time.Since(before); took > 2*time.Second {
		t.Errorf("Shutdown took %v", took)
	}
	got := (<-failed)[:7] + " " + (<-failed)[:7]
	if got != "metrics traces:" && got != "traces: metrics" {
		t.Errorf("failed %q", got)
	}
	if tel.push.droppedMetrics.Load() != 1 || tel.push.droppedTraces.Load() != 1 {
		t.Errorf("dropped %d and %d", tel.push.droppedMetrics.Load(), tel.push.droppedTraces.Load())
	}
	if again := tel.Shutdown(t.Context()); !errors.Is(again, context.DeadlineExceeded) {
		t.Errorf("Shutdown again: %v", again)
	}
}
