package observability

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
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

	// lastReading bounds the last reading of the instruments: a callback that
	// waits for a part that has stopped already should not hold up the rest.
	lastReading = time.Second

	// maxSeries bounds the series of one instrument; what is over it lands
	// in one series with the attribute otel.metric.overflow.
	maxSeries = 2000
)

// Options set up a node's telemetry. Node is required; the zero value of the
// rest is the default.
type Options struct {
	// Node is the node's name: resource attribute service.instance.id, and
	// label node of every metric that MetricsHandler serves.
	Node string
	// Version is the program's: resource attribute service.version.
	Version string

	// OTLP says what is pushed. Without traces in it no spans are made.
	OTLP OTLP
	// Logs is the node's log, for OTLP.Logs.
	Logs *Logs

	// Buckets are the names of those whose requests are also measured each by
	// itself, at most MaxBuckets: the metrics gridloom.bucket.request.*, and no
	// others, have the label bucket. Empty: none are.
	Buckets []string

	// Propagators are the forms in which clients name their spans, which then are
	// the parents of their requests': of those that Propagators lists. Empty:
	// tracecontext and baggage.
	Propagators []string

	// Failed is told, for the log, of exports that were given up (signal is
	// "metrics", "traces" or "logs"; at most once a minute of each, while
	// gridloom.telemetry.dropped counts all that is lost), of metrics that a
	// scrape had to leave out ("scrape"), and of attributes of the environment
	// that can't be read ("resource"). It must not block, and may be called
	// by several goroutines at once. What it logs should not be pushed. nil:
	// nobody is told.
	Failed func(signal string, err error)
}

// Telemetry is one node's meters, tracers and exporters. Nothing in it is
// global: a process may hold several.
type Telemetry struct {
	scrapes   *scrapes
	meters    *sdkmetric.MeterProvider
	catalogue *catalogue
	tracers   *sdktrace.TracerProvider // nil: no spans
	loggers   *sdklog.LoggerProvider   // nil: logs aren't pushed
	logs      *Logs                    // nil: there are none
	push      *push
	requests  *Requests

	metersOnce sync.Once
	metersDone chan struct{} // closed when the meters have been shut down
	metersErr  error         // of that

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

	callers, err := callersBy(o.Propagators)
	if err != nil {
		return nil, fmt.Errorf("observability: %w", err)
	}

	registry := prometheus.NewRegistry()
	t = &Telemetry{scrapes: newScrapes(registry, o.Failed), metersDone: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = t.Shutdown(ctx) // of what was started so far
			t = nil
		}
	}()

	times := newTimings(o.OTLP.Exemplars)
	// The label node comes from the registerer, not from attributes: OTLP
	// has it in the resource, and series there should not say it twice.
	pull, err := otelprom.New(
		otelprom.WithRegisterer(prometheus.WrapRegistererWith(prometheus.Labels{"node": o.Node}, registry)),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		otelprom.WithoutScopeInfo(),
		otelprom.WithProducer(times),
	)
	if err != nil {
		return t, fmt.Errorf("observability: Prometheus exporter: %w", err)
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(pull),
		sdkmetric.WithCardinalityLimit(maxSeries),
		o.OTLP.Exemplars.provider(),
	}
	if t.push, err = newPush(ctx, o); err != nil {
		return t, err
	}
	if t.push.metrics != nil {
		options = append(options, sdkmetric.WithReader(t.push.reader(o.OTLP, times)))
	}
	if t.push.spans != nil {
		// The sampler is the SDK's: parent-based, and always on where there is
		// no parent, unless OTEL_TRACES_SAMPLER says otherwise.
		t.tracers = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(t.push.spans.processor(o.OTLP.Traces)))
	}
	if t.push.logs != nil {
		t.loggers = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(t.push.logs.processor(o.OTLP.Logs)))
		t.logs = o.Logs
		t.logs.to.set(t.loggers.Logger(scope))
	}
	t.meters = sdkmetric.NewMeterProvider(options...)
	t.catalogue = newCatalogue(t.meters.Meter(scope))

	if err = times.declare(t.catalogue, t.push.metrics != nil && onlySDK(t.push.metrics)); err != nil {
		return t, err
	}
	if t.requests, err = newRequests(t.Meter(), times, t.tracer(), o.Buckets...); err != nil {
		return t, err
	}
	t.requests.callers = callers
	if err = observeRuntime(t.Meter()); err != nil {
		return t, err
	}
	if err = observeProcess(t.Meter()); err != nil {
		return t, err
	}
	return t, t.push.observe(t.Meter())
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
	if err != nil && res == nil {
		return nil, fmt.Errorf("observability: resource: %w", err)
	}
	if err != nil && o.Failed != nil {
		// As the specification has it: the variable is left out, and it is said.
		o.Failed("resource", fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err))
	}
	return res, nil
}

// MeterProvider gives meters whose instruments are served by MetricsHandler
// and, as Options say, pushed.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Meter is the meter of the product's own instruments.
func (t *Telemetry) Meter() metric.Meter { return t.catalogue }

// TracerProvider gives tracers. Where traces aren't pushed their spans do nothing,
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

// Requests measures the requests of this node's listeners.
func (t *Telemetry) Requests() *Requests { return t.requests }

// StopMetrics reads all instruments for the last time. When it returns no
// callback is called any more, so that what they look at may be closed. The
// push of what it has read goes on, for at most 3 s; Shutdown waits for it.
func (t *Telemetry) StopMetrics(ctx context.Context) {
	t.metersOnce.Do(func() {
		begun := make(chan struct{})
		ctx := context.WithValue(context.WithoutCancel(ctx), lastExport{}, sync.OnceFunc(func() { close(begun) }))
		ctx, cancel := context.WithTimeout(ctx, lastReading)
		go func() {
			defer close(t.metersDone)
			defer cancel()
			if t.meters == nil {
				return
			}
			var cut *time.Timer
			if out := t.push.metricsOut(); out != nil {
				cut = time.AfterFunc(shutdownTimeout, out.cancel)
			}
			t.metersErr = t.meters.Shutdown(ctx)
			if cut != nil && !cut.Stop() {
				t.metersErr = context.DeadlineExceeded
			}
		}()
		select {
		case <-begun:
		case <-t.metersDone: // nothing is pushed
		}
	})
}

// Shutdown pushes what is left and ends every goroutine of t. It takes at
// most 3 s, and less when ctx ends sooner. It may be called again, and then
// returns the same error. Instruments may be used afterwards; they do nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.shutdown.Do(func() { t.shutdownErr = t.stop(ctx) })
	return t.shutdownErr
}

// stop has the providers wait for their goroutines without a bound: one whose
// context has ended returns before they have. When time is up the exports are
// cut off, those under way and all that would follow, and then there is nothing
// left to wait for.
func (t *Telemetry) stop(ctx context.Context) error {
	if t.logs != nil {
		t.logs.to.set(nil)
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	inTime := func() bool { return true }
	if t.push != nil {
		inTime = context.AfterFunc(ctx, t.push.cancel)
	}
	unbounded := context.WithoutCancel(ctx)
	var tracers, loggers error
	var wg sync.WaitGroup
	if t.tracers != nil {
		wg.Go(func() { tracers = t.tracers.Shutdown(unbounded) })
	}
	if t.loggers != nil {
		wg.Go(func() { loggers = t.loggers.Shutdown(unbounded) })
	}
	t.StopMetrics(ctx)
	<-t.metersDone
	wg.Wait()
	err := errors.Join(t.metersErr, tracers, loggers)
	if !inTime() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return fmt.Errorf("observability: shutdown: %w", err)
	}
	return nil
}
