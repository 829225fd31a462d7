package observability

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// tellEvery is how often, at most, Failed is told of one signal: a receiver
// that is down would fill the log with what is counted anyway.
const tellEvery = time.Minute

// push is the way out by OTLP. Its exporters swallow errors: the SDK would
// hand them to the process's global handler, which prints them; here they are
// counted and told to Options.Failed.
type push struct {
	metrics *metricExporter // nil: metrics aren't pushed
	spans   *spanExporter   // nil: spans aren't made
	logs    *logExporter    // nil: logs aren't pushed

}

// newPush makes the exporters of those signals that are pushed.
func newPush(ctx context.Context, o Options) (*push, error) {
	p := &push{}
	wrong := func(signal string, err error) (*push, error) {
		p.giveUp(ctx)
		return nil, fmt.Errorf("observability: %s: %w", signal, err)
	}
	if c := o.OTLP.Metrics; c.Protocol != "" {
		e, after, err := newMetricExporter(ctx, c)
		if err != nil {
			return wrong("metrics", err)
		}
		p.metrics = &metricExporter{e, newOut("metrics", 0, after, o.Failed)}
	}
	if c := o.OTLP.Traces; c.Protocol != "" {
		e, after, err := newSpanExporter(ctx, c)
		if err != nil {
			return wrong("traces", err)
		}
		p.spans = &spanExporter{e, newOut("traces", c.queue(), after, o.Failed)}
	}
	if c := o.OTLP.Logs; c.Protocol != "" {
		if o.Logs == nil {
			return wrong("logs", errNoLogs)
		}
		e, after, err := newLogExporter(ctx, c)
		if err != nil {
			return wrong("logs", err)
		}
		p.logs = &logExporter{e, newOut("logs", c.queue(), after, o.Failed)}
	}
	return p, nil
}

// giveUp closes the exporters before a provider has them. Nothing was sent yet.
func (p *push) giveUp(ctx context.Context) {
	if p.metrics != nil {
		_ = p.metrics.Shutdown(ctx)
	}
	if p.spans != nil {
		_ = p.spans.Shutdown(ctx)
	}
}

func (p *push) reader(o OTLP, also sdkmetric.Producer) sdkmetric.Reader {
	return sdkmetric.NewPeriodicReader(p.metrics, append(o.reader(), sdkmetric.WithProducer(also))...)
}

// outs are the ways out that there are.
func (p *push) outs() []*out {
	var all []*out
	if p.metrics != nil {
		all = append(all, p.metrics.out)
	}
	if p.spans != nil {
		all = append(all, p.spans.out)
	}
	if p.logs != nil {
		all = append(all, p.logs.out)
	}
	return all
}

// observe makes the drops a metric, which is seen at least by pulling.
func (p *push) observe(m metric.Meter) error {
	outs := p.outs()
	_, err := m.Int64ObservableCounter("gridloom.telemetry.dropped",
		metric.WithUnit("{item}"),
		metric.WithDescription("Spans, log records and points of metrics that no OTLP receiver got: the export failed, or too many waited (queue)."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for _, out := range outs {
				signal := attribute.String("signal", out.signal)
				o.Observe(out.failed.Load(), metric.WithAttributes(signal, attribute.String("reason", "export")))
				if out.queue > 0 {
					o.Observe(out.overflowed.Load(), metric.WithAttributes(signal, attribute.String("reason", "queue")))
				}
			}
			return nil
		}))
	return err
}

// metricsOut is nil where metrics aren't pushed.
func (p *push) metricsOut() *out {
	if p == nil || p.metrics == nil {
		return nil
	}
	return p.metrics.out
}

// cancel ends the exports under way and all later ones.
func (p *push) cancel() {
	for _, out := range p.outs() {
		out.cancel()
	}
}

// out is what the exporters of all signals have in common: what was lost, how
// much waits, and how they end.
type out struct {
	signal string
	queue  int    // how many may wait; 0: there is no queue
	after  func() // the exporter's Shutdown
	tell   func(signal string, err error)

	// cancel ends the exports under way and all later ones.
	ctx    context.Context
	cancel context.CancelFunc

	waiting            atomic.Int64 // in the SDK's batcher
	failed, overflowed atomic.Int64 // lost items
	told               atomic.Int64 // when tell was called last, Unix nanoseconds
}

func newOut(signal string, queue int, after func(), tell func(string, error)) *out {
	if tell == nil {
		tell = func(string, error) {}
	}
	o := &out{signal: signal, queue: queue, after: after, tell: tell}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// admit reports whether one more item may wait. The batchers have room for as
// many, so that what they would drop silently never comes to them.
func (o *out) admit() bool {
	if o.waiting.Add(1) <= int64(o.queue) {
		return true
	}
	o.waiting.Add(-1)
	o.overflowed.Add(1)
	return false
}

// export does one, of n items, which wait no longer when it returns.
func (o *out) export(ctx context.Context, n int, do func(context.Context) error) {
	if n == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	err := o.ctx.Err()
	if err == nil {
		err = do(ctx)
	}
	if o.queue > 0 {
		o.waiting.Add(-int64(n))
	}
	if err == nil {
		return
	}
	o.failed.Add(int64(n))
	now, told := time.Now().UnixNano(), o.told.Load()
	if (told == 0 || now-told >= int64(tellEvery)) && o.told.CompareAndSwap(told, now) {
		o.tell(o.signal, err)
	}
}

// shutdown is the exporter's: nothing is exported any more.
func (o *out) shutdown(ctx context.Context, do func(context.Context) error) error {
	defer o.cancel()
	defer o.after()
	return do(ctx)
}

// lastExport is the key of what StopMetrics waits for in the context of the
// last export: a func(), called when that begins, as by then all has been read.
type lastExport struct{}

type metricExporter struct {
	sdkmetric.Exporter
	*out
}

func (e *metricExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if begun, ok := ctx.Value(lastExport{}).(func()); ok {
		begun()
		ctx = context.WithoutCancel(ctx) // that of the reading, which is over
	}
	e.export(ctx, points(rm), func(ctx context.Context) error { return e.Exporter.Export(ctx, rm) })
	return nil
}

func (e *metricExporter) Shutdown(ctx context.Context) error {
	return e.shutdown(ctx, e.Exporter.Shutdown)
}

// points counts those in rm.
func points(rm *metricdata.ResourceMetrics) (n int) {
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				n += len(data.DataPoints)
			case metricdata.Gauge[float64]:
				n += len(data.DataPoints)
			case metricdata.Sum[int64]:
				n += len(data.DataPoints)
			case metricdata.Sum[float64]:
				n += len(data.DataPoints)
			case metricdata.Histogram[int64]:
				n += len(data.DataPoints)
			case metricdata.Histogram[float64]:
				n += len(data.DataPoints)
			case metricdata.ExponentialHistogram[int64]:
				n += len(data.DataPoints)
			case metricdata.ExponentialHistogram[float64]:
				n += len(data.DataPoints)
			}
		}
	}
	return n
}

type spanExporter struct {
	sdktrace.SpanExporter
	*out
}

func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.export(ctx, len(spans), func(ctx context.Context) error { return e.SpanExporter.ExportSpans(ctx, spans) })
	return nil
}

func (e *spanExporter) Shutdown(ctx context.Context) error {
	return e.shutdown(ctx, e.SpanExporter.Shutdown)
}

// processor batches spans for e.
func (e *spanExporter) processor(p Push) sdktrace.SpanProcessor {
	return &spanProcessor{sdktrace.NewBatchSpanProcessor(e, p.spans()...), e.out}
}

type spanProcessor struct {
	sdktrace.SpanProcessor
	*out
}

func (p *spanProcessor) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() && p.admit() {
		p.SpanProcessor.OnEnd(s)
	}
}

type logExporter struct {
	sdklog.Exporter
	*out
}

func (e *logExporter) Export(ctx context.Context, records []sdklog.Record) error {
	e.export(ctx, len(records), func(ctx context.Context) error { return e.Exporter.Export(ctx, records) })
	return nil
}

func (e *logExporter) Shutdown(ctx context.Context) error {
	return e.shutdown(ctx, e.Exporter.Shutdown)
}

// processor batches log records for e.
func (e *logExporter) processor(p Push) sdklog.Processor {
	return &logProcessor{sdklog.NewBatchProcessor(e, p.records()...), e.out}
}

type logProcessor struct {
	*sdklog.BatchProcessor
	*out
}

func (p *logProcessor) OnEmit(ctx context.Context, r *sdklog.Record) error {
	if p.admit() {
		return p.BatchProcessor.OnEmit(ctx, r)
	}
	return nil
}
