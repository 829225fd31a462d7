package observability

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const (
	// scope names the instruments' and spans' instrumentation scope.
	scope = "github.com/gridloom/gridloom"

	// shutdownTimeout bounds Shutdown: with a collector that is down, the
	// last push is tried for so long.
	shutdownTimeout = 3 * time.Second

	// maxSeries bounds the series of one instrument; what is over it lands
	// in one series with the attribute otel.metric.overflow.
	maxSeries = 2000

	// maxScrapes bounds the scrapes under way; one more gets 503.
	maxScrapes = 8
)

// Options set up a node's telemetry. Node is required; the zero value of the
// rest is the default. Beside them the SDK honours the standard environment:
// OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
// OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _CERTIFICATE and so on.
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

	// Buckets are the names of those whose requests are also measured each by
	// itself, at most MaxBuckets: the metrics gridloom.bucket.request.*, and no
	// others, have the label bucket. Empty: none are.
	Buckets []string

	// Failed is told, for the log, of an export that was given up (signal
	// is "metrics" or "traces"; the data is dropped, and counted in
	// gridloom.telemetry.dropped) and of metrics that a scrape had to leave
	// out ("scrape"). It must not block, and may be called by several
	// goroutines at once. nil: nobody is told.
	Failed func(signal string, err error)
}

// Telemetry is one node's meters, tracers and exporters. Nothing in it is
// global: a process may hold several.
type Telemetry struct {
	registry *prometheus.Registry
	failed   func(signal string, err error)
	meters   *sdkmetric.MeterProvider
	tracers  *sdktrace.TracerProvider // nil: no spans
	push     *push                    // nil: nothing is pushed
	requests *Requests

	shutdown    sync.Once
	shutdownErr error
}

// New sets up telemetry. It doesn't wait for the OTLP endpoint to answer. An
// error names the option or variable that is wrong, and nothing is left
// running.
func New(ctx context.Context, o Options) (t *Telemetry, err error) {
	if o.Node == "" {
		return nil, errors.New("observability: Options.Node is empty")
	}
	res, err := describe(ctx, o)
	if err != nil {
		return nil, err
	}

	t = &Telemetry{registry: prometheus.NewRegistry(), failed: o.Failed}
	defer func() {
		if err != nil {
			_ = t.Shutdown(ctx) // of what was started so far
			t = nil
		}
	}()

	// The label node comes from the registerer, not from attributes: OTLP
	// has it in the resource, and series there should not say it twice.
	pull, err := otelprom.New(
		otelprom.WithRegisterer(prometheus.WrapRegistererWith(prometheus.Labels{"node": o.Node}, t.registry)),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		otelprom.WithoutScopeInfo(),
	)
	if err != nil {
		return t, fmt.Errorf("observability: Prometheus exporter: %w", err)
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(pull),
		sdkmetric.WithCardinalityLimit(maxSeries),
	}
	if o.OTLPEndpoint != "" {
		if t.push, err = newPush(ctx, o); err != nil {
			return t, err
		}
		options = append(options, sdkmetric.WithReader(t.push.reader(o.OTLPInterval)))
		t.tracers = sdktrace.NewTracerProvider(
			sdktrace.WithResource(res),
			sdktrace.WithBatcher(t.push.spans),
		)
	}
	t.meters = sdkmetric.NewMeterProvider(options...)

	if t.requests, err = newRequests(t.Meter(), t.tracer(), o.Buckets...); err != nil {
		return t, err
	}
	if err = observeRuntime(t.Meter()); err != nil {
		return t, err
	}
	if t.push != nil {
		err = t.push.observe(t.Meter())
	}
	return t, err
}

// describe returns the attributes of the node. The environment may add some
// and rename the service, but not take another node's name.
func describe(ctx context.Context, o Options) (*resource.Resource, error) {
	own := []attribute.KeyValue{attribute.String("service.instance.id", o.Node)}
	if o.Version != "" {
		own = append(own, attribute.String("service.version", o.Version))
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "gridloom")),
		resource.WithFromEnv(),
		resource.WithAttributes(own...),
	)
	if err != nil {
		return nil, fmt.Errorf("observability: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// MeterProvider gives meters whose instruments are served by MetricsHandler
// and, with an endpoint, pushed.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Meter is the meter of the product's own instruments.
func (t *Telemetry) Meter() metric.Meter { return t.meters.Meter(scope) }

// TracerProvider gives tracers. Without an endpoint their spans do nothing,
// but still pass on a remote parent.
func (t *Telemetry) TracerProvider() trace.TracerProvider {
	if t.tracers == nil {
		return noop.NewTracerProvider()
	}
	return t.tracers
}

// tracer is that of the requests' spans; nil: none are made.
func (t *Telemetry) tracer() trace.Tracer {
	if t.tracers == nil {
		return nil
	}
	return t.tracers.Tracer(scope)
}

// MetricsHandler serves all metrics as Prometheus text, or as OpenMetrics
// (with exemplars) to scrapers that ask for it. Every series has the label
// node, so no instrument may have an attribute of that name: its series would
// be left out.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxScrapes,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            scrapeLog(t.failed),
	})
}

// scrapeLog hands promhttp's errors to Options.Failed.
type scrapeLog func(signal string, err error)

func (l scrapeLog) Println(v ...any) {
	if l != nil {
		l("scrape", errors.New(strings.TrimSpace(fmt.Sprintln(v...))))
	}
}

// Requests measures the requests of this node's listeners.
func (t *Telemetry) Requests() *Requests { return t.requests }

// Shutdown pushes what is left and ends every goroutine of t. It takes at
// most 3 s, and less when ctx ends sooner. It may be called again, and then
// returns the same error. Instruments may be used afterwards; they do nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.shutdown.Do(func() { t.shutdownErr = t.stop(ctx) })
	return t.shutdownErr
}

func (t *Telemetry) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()

	// Both at once: each has the whole time when the collector is down.
	var meters, tracers error
	var wg sync.WaitGroup
	if t.meters != nil {
		wg.Go(func() { meters = t.meters.Shutdown(ctx) })
	}
	if t.tracers != nil {
		wg.Go(func() { tracers = t.tracers.Shutdown(ctx) })
	}
	if t.push != nil {
		t.push.stop(ctx, &wg)
	}
	wg.Wait()
	if err := errors.Join(meters, tracers); err != nil {
		return fmt.Errorf("observability: shutdown: %w", err)
	}
	return nil
}

// endpoint splits OTLPEndpoint into host:port and whether it is plaintext.
func endpoint(o Options) (hostPort string, plaintext bool, err error) {
	bad := func(why string) (string, bool, error) {
		return "", false, fmt.Errorf("observability: OTLP endpoint %q: %s", o.OTLPEndpoint, why)
	}
	u, err := url.Parse(o.OTLPEndpoint)
	if err == nil && u.Host != "" {
		switch {
		case u.Scheme != "http" && u.Scheme != "https":
			return bad("the scheme must be http or https")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/"):
			return bad("want no more than scheme://host:port")
		case u.Scheme == "https" && o.OTLPInsecure:
			return bad("https and insecure contradict each other")
		}
		hostPort, plaintext = u.Host, u.Scheme == "http"
	} else {
		hostPort, plaintext = o.OTLPEndpoint, o.OTLPInsecure
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || strings.ContainsAny(host, " \t\r\n/@?#") {
		return bad("want host:port or http(s)://host:port")
	}
	return hostPort, plaintext, nil
}
