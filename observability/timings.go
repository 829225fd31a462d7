package observability

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Exemplars says which requests leave the id of their trace with the histograms
// of times, in the words of OTEL_METRICS_EXEMPLAR_FILTER. Empty: TraceBased.
type Exemplars string

const (
	TraceBased Exemplars = "trace_based" // those whose trace is sampled
	AlwaysOn   Exemplars = "always_on"
	AlwaysOff  Exemplars = "always_off"
)

// filter is nil where no request does.
func (e Exemplars) filter() exemplar.Filter {
	switch e {
	case AlwaysOn:
		return exemplar.AlwaysOnFilter
	case AlwaysOff:
		return nil
	default:
		return exemplar.TraceBasedFilter
	}
}

// provider is filter for the SDK's instruments.
func (e Exemplars) provider() sdkmetric.Option {
	if filter := e.filter(); filter != nil {
		return sdkmetric.WithExemplarFilter(filter)
	}
	return sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter)
}

// timings are the two histograms that every request is recorded in, and a
// Producer of them for the SDK's readers. The SDK has no histogram that is bound
// to its attributes: its Record takes them apart, sorts and looks them up for
// each measurement, which was half of what telemetry cost a small GET
// (docs/decisions/0011-bound-histograms.md). Each of these is an array of
// counters that its API holds.
//
// They are cumulative and have fixed bounds. Where a reader asks for anything
// else (OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION and
// _TEMPORALITY_PREFERENCE) the SDK's own instruments take their place.
type timings struct {
	since time.Time
	// filter says which measurements are offered as exemplars; nil: none.
	filter exemplar.Filter
	// untraced: filter may take one that is in no trace.
	untraced bool

	ttfb, duration *timing

	mu     sync.Mutex
	series []*series // those that there are; under mu
}

// timing is one of the two.
type timing struct {
	metricdata.Metrics // without Data
	bounds             []float64
	limits             []time.Duration // bounds
	of                 func(*series) *histogram

	sdk metric.Float64Histogram // what records in place of ours; nil: ours do
}

// series are the histograms of an API's requests of one class.
type series struct {
	attributes     attribute.Set
	options        []metric.RecordOption // for the SDK's
	ttfb, duration histogram
}

// newTimings makes them; declare has to follow.
func newTimings(e Exemplars) *timings {
	return &timings{
		since: time.Now(), filter: e.filter(), untraced: e == AlwaysOn,
		ttfb: newTiming("gridloom.request.ttfb",
			"Time from a request's head to the first byte of the response's body, or to its status where it has none.",
			ttfbBounds(), func(s *series) *histogram { return &s.ttfb }),
		duration: newTiming("gridloom.request.duration",
			"Time from a request's head to the end of its handler.",
			durationBounds(), func(s *series) *histogram { return &s.duration }),
	}
}

func newTiming(name, description string, bounds []float64, of func(*series) *histogram) *timing {
	t := &timing{Metrics: metricdata.Metrics{Name: name, Description: description, Unit: "s"}, bounds: bounds, of: of}
	for _, bound := range bounds {
		t.limits = append(t.limits, time.Duration(math.Round(bound*float64(time.Second))))
	}
	return t
}

// declare has the catalogue know them. With sdk they are its own.
func (t *timings) declare(c *catalogue, sdk bool) error {
	for _, h := range []*timing{t.ttfb, t.duration} {
		options := []metric.Float64HistogramOption{
			metric.WithUnit(h.Unit), metric.WithDescription(h.Description), metric.WithExplicitBucketBoundaries(h.bounds...),
		}
		var err error
		if sdk {
			h.sdk, err = c.Float64Histogram(h.Name, options...)
		} else {
			_, err = note(c, kindHistogram, h.Name, metric.NewFloat64HistogramConfig(options...), h, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onlySDK says that a reader wants histograms that timings don't make.
func onlySDK(e sdkmetric.Exporter) bool {
	const kind = sdkmetric.InstrumentKindHistogram
	switch e.Aggregation(kind).(type) {
	case sdkmetric.AggregationDefault, sdkmetric.AggregationExplicitBucketHistogram:
	default:
		return true
	}
	return e.Temporality(kind) != metricdata.CumulativeTemporality
}

// add makes the histograms of one set of attributes.
func (t *timings) add(attributes ...attribute.KeyValue) *series {
	set := attribute.NewSet(attributes...)
	s := &series{attributes: set, options: []metric.RecordOption{metric.WithAttributeSet(set)}}
	for _, h := range []*timing{t.ttfb, t.duration} {
		h.of(s).counts = make([]atomic.Uint64, len(h.bounds)+1)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.series = append(t.series, s)
	return s
}

// record counts one measurement. traced says that ctx is in a trace.
func (t *timings) record(ctx context.Context, h *timing, s *series, d time.Duration, traced bool) {
	if h.sdk != nil {
		h.sdk.Record(ctx, d.Seconds(), s.options...)
		return
	}
	to := h.of(s)
	to.record(h.limits, d)
	if (traced || t.untraced) && t.filter != nil && t.filter(ctx) {
		to.reservoir(h.bounds).Offer(ctx, time.Now(), exemplar.NewValue(d.Seconds()), nil)
	}
}

// Produce gives what was recorded since the start, to one of the SDK's readers
// (go.opentelemetry.io/otel/sdk/metric.Producer). It may be called by several
// at once.
func (t *timings) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	t.mu.Lock()
	all := slices.Clone(t.series)
	t.mu.Unlock()
	now := time.Now()
	var metrics []metricdata.Metrics
	for _, h := range []*timing{t.ttfb, t.duration} {
		data := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
		for _, s := range all {
			if point, ok := h.of(s).point(); ok {
				point.Attributes, point.Bounds, point.StartTime, point.Time = s.attributes, slices.Clone(h.bounds), t.since, now
				data.DataPoints = append(data.DataPoints, point)
			}
		}
		if len(data.DataPoints) > 0 {
			m := h.Metrics
			m.Data = data
			metrics = append(metrics, m)
		}
	}
	if len(metrics) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: scope}, Metrics: metrics}}, nil
}

// histogram counts durations. A reader may find a measurement in its bucket and
// not yet in the sum: what is missing is there the next time.
type histogram struct {
	counts    []atomic.Uint64 // of timing.limits, and of what is over the last
	sum       atomic.Uint64   // in seconds, as math.Float64bits: nanoseconds would overflow after three months of 1,000 streams
	least     atomic.Int64    // the shortest, and one ns; 0: there was none
	most      atomic.Int64    // the longest, in ns
	exemplars atomic.Pointer[exemplar.HistogramReservoir]
}

func (h *histogram) record(limits []time.Duration, d time.Duration) {
	bucket := 0
	for bucket < len(limits) && d > limits[bucket] { // most are in the first few
		bucket++
	}
	h.counts[bucket].Add(1)
	for seconds := d.Seconds(); ; {
		before := h.sum.Load()
		if h.sum.CompareAndSwap(before, math.Float64bits(math.Float64frombits(before)+seconds)) {
			break
		}
	}
	for {
		least := h.least.Load()
		if least != 0 && int64(d)+1 >= least || h.least.CompareAndSwap(least, int64(d)+1) {
			break
		}
	}
	for {
		most := h.most.Load()
		if int64(d) <= most || h.most.CompareAndSwap(most, int64(d)) {
			break
		}
	}
}

// reservoir holds one exemplar for each bucket. It is made for the first.
func (h *histogram) reservoir(bounds []float64) *exemplar.HistogramReservoir {
	if r := h.exemplars.Load(); r != nil {
		return r
	}
	h.exemplars.CompareAndSwap(nil, exemplar.NewHistogramReservoir(bounds))
	return h.exemplars.Load()
}

// point is false where nothing was recorded.
func (h *histogram) point() (p metricdata.HistogramDataPoint[float64], ok bool) {
	p.BucketCounts = make([]uint64, len(h.counts))
	for i := range h.counts {
		p.BucketCounts[i] = h.counts[i].Load()
		p.Count += p.BucketCounts[i]
	}
	if p.Count == 0 {
		return p, false
	}
	p.Sum = math.Float64frombits(h.sum.Load())
	if least := h.least.Load(); least != 0 {
		p.Min = metricdata.NewExtrema(time.Duration(least - 1).Seconds())
		p.Max = metricdata.NewExtrema(time.Duration(h.most.Load()).Seconds())
	}
	if r := h.exemplars.Load(); r != nil {
		var held []exemplar.Exemplar
		r.Collect(&held)
		for _, e := range held {
			p.Exemplars = append(p.Exemplars, metricdata.Exemplar[float64]{
				FilteredAttributes: e.FilteredAttributes, Time: e.Time, Value: e.Value.Float64(), SpanID: e.SpanID, TraceID: e.TraceID,
			})
		}
	}
	return p, true
}
