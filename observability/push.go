package observability

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
)

// push is the way out by OTLP. Its exporters swallow errors: the SDK would
// hand them to the process's global handler, which prints them; here they are
// counted and told to Options.Failed.
type push struct {
	metrics *metricExporter
	spans   *spanExporter

	// cancel ends the exports under way and all later ones.
	ctx    context.Context
	cancel context.CancelFunc

	droppedMetrics, droppedTraces atomic.Int64
	failed                        func(signal string, err error)
}

func newPush(ctx context.Context, o Options) (*push, error) {
	hostPort, plaintext, err := endpoint(o)
	if err != nil {
		return nil, err
	}
	metricOptions := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(hostPort)}
	traceOptions := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(hostPort)}
	switch {
	case plaintext:
		metricOptions = append(metricOptions, otlpmetricgrpc.WithInsecure())
		traceOptions = append(traceOptions, otlptracegrpc.WithInsecure())
	case o.OTLPTLS != nil:
		creds := credentials.NewTLS(o.OTLPTLS)
		metricOptions = append(metricOptions, otlpmetricgrpc.WithTLSCredentials(creds))
		traceOptions = append(traceOptions, otlptracegrpc.WithTLSCredentials(creds))
	}

	metrics, err := otlpmetricgrpc.New(ctx, metricOptions...)
	if err != nil {
		return nil, fmt.Errorf("observability: OTLP metrics to %s: %w", hostPort, err)
	}
	spans, err := otlptracegrpc.New(ctx, traceOptions...)
	if err != nil {
		_ = metrics.Shutdown(ctx) // nothing was sent yet
		return nil, fmt.Errorf("observability: OTLP traces to %s: %w", hostPort, err)
	}

	p := &push{failed: o.Failed}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.metrics = &metricExporter{Exporter: metrics, push: p}
	p.spans = &spanExporter{SpanExporter: spans, push: p, done: make(chan struct{})}
	return p, nil
}

func (p *push) reader(interval time.Duration) sdkmetric.Reader {
	return sdkmetric.NewPeriodicReader(p.metrics, sdkmetric.WithInterval(interval))
}

// observe makes the drops a metric, which is seen at least by pulling.
func (p *push) observe(m metric.Meter) error {
	_, err := m.Int64ObservableCounter("gridloom.telemetry.dropped",
		metric.WithUnit("{export}"),
		metric.WithDescription("Exports to the OTLP endpoint that were given up, with what was in them."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(p.droppedMetrics.Load(), metric.WithAttributes(attribute.String("signal", "metrics")))
			o.Observe(p.droppedTraces.Load(), metric.WithAttributes(attribute.String("signal", "traces")))
			return nil
		}))
	return err
}

// stop adds to wg what must be waited for beside the providers' Shutdown:
// the batcher's goroutine, which outlives its Shutdown when ctx ends first.
// From then on exports fail at once, so that the wait is short.
func (p *push) stop(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() {
		select {
		case <-p.spans.done:
		case <-ctx.Done():
			p.cancel()
			<-p.spans.done
		}
		// The metrics' reader exports within its Shutdown's ctx alone.
	})
}

func (p *push) drop(count *atomic.Int64, signal string, err error) {
	count.Add(1)
	if p.failed != nil {
		p.failed(signal, err)
	}
}

// within returns ctx cut off by p.cancel.
func (p *push) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

type metricExporter struct {
	sdkmetric.Exporter
	push *push
}

func (e *metricExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	ctx, end := e.push.within(ctx)
	defer end()
	if err := e.Exporter.Export(ctx, rm); err != nil {
		e.push.drop(&e.push.droppedMetrics, "metrics", err)
	}
	return nil
}

type spanExporter struct {
	sdktrace.SpanExporter
	push *push
	once sync.Once
	done chan struct{} // closed when Shutdown has returned
}

func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, end := e.push.within(ctx)
	defer end()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.push.drop(&e.push.droppedTraces, "traces", err)
	}
	return nil
}

func (e *spanExporter) Shutdown(ctx context.Context) error {
	defer e.once.Do(func() { close(e.done) })
	return e.SpanExporter.Shutdown(ctx)
}
