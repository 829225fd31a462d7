package observability

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

func sampledTrace() trace.TraceID { return trace.TraceID{1} }

// TestTimingsAreTheSDKs: the same measurements give what the SDK makes of them,
// but for the scope's version and the order of the points.
func TestTimingsAreTheSDKs(t *testing.T) {
	sampled := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: sampledTrace(), SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
	unsampled := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{3}, SpanID: trace.SpanID{4},
	}))
	for _, e := range []Exemplars{"", TraceBased, AlwaysOn, AlwaysOff} {
		t.Run(cmp.Or(string(e), "default"), func(t *testing.T) {
			random := rand.New(rand.NewPCG(8, 1))
			durations := []time.Duration{0, 1, time.Hour}
			for _, bound := range durationBounds() {
				at := time.Duration(bound * float64(time.Second))
				durations = append(durations, at-1, at, at+1)
			}
			for range 1000 {
				durations = append(durations, time.Duration(math.Exp(random.Float64()*math.Log(float64(time.Hour)))))
			}

			collect := func(sdk bool) []metricdata.Metrics {
				times := newTimings(e)
				reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(times))
				provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), e.provider())
				defer func() { _ = provider.Shutdown(t.Context()) }()
				if err := times.declare(newCatalogue(provider.Meter(scope)), sdk); err != nil {
					t.Fatal(err)
				}
				all := []*series{times.add(attribute.String("api", "A")), times.add(attribute.String("api", "B"), attribute.String("class", "2xx"))}
				times.add(attribute.String("api", "unused"))
				for i, d := range durations {
					ctx := []context.Context{t.Context(), sampled, unsampled}[i%3]
					times.record(ctx, times.ttfb, all[i%2], d, ctx != t.Context())
					times.record(ctx, times.duration, all[i%2], 2*d, ctx != t.Context())
				}
				var rm metricdata.ResourceMetrics
				if err := reader.Collect(t.Context(), &rm); err != nil {
					t.Fatal(err)
				}
				if len(rm.ScopeMetrics) != 1 || rm.ScopeMetrics[0].Scope.Name != scope {
					t.Fatalf("scopes %+v", rm.ScopeMetrics)
				}
				return rm.ScopeMetrics[0].Metrics
			}
			ours, theirs := collect(false), collect(true)
			if len(ours) != 2 || len(theirs) != 2 {
				t.Fatalf("%d metrics, the SDK has %d", len(ours), len(theirs))
			}
			for i := range ours {
				sameHistogram(t, e, ours[i], theirs[i])
			}
		})
	}
}

func sameHistogram(t *testing.T, filter Exemplars, ours, theirs metricdata.Metrics) {
	t.Helper()
	if ours.Name != theirs.Name || ours.Description != theirs.Description || ours.Unit != theirs.Unit {
		t.Errorf("%q %q %q, the SDK has %q %q %q", ours.Name, ours.Description, ours.Unit, theirs.Name, theirs.Description, theirs.Unit)
	}
	points := func(m metricdata.Metrics) []metricdata.HistogramDataPoint[float64] {
		data, ok := m.Data.(metricdata.Histogram[float64])
		if !ok || data.Temporality != metricdata.CumulativeTemporality {
			t.Fatalf("%s is %T, %v", m.Name, m.Data, data.Temporality)
		}
		slices.SortFunc(data.DataPoints, func(a, b metricdata.HistogramDataPoint[float64]) int {
			return cmp.Compare(labelsOf(a.Attributes), labelsOf(b.Attributes))
		})
		return data.DataPoints
	}
	a, b := points(ours), points(theirs)
	if len(a) != 2 || len(b) != 2 {
		t.Fatalf("%d points, the SDK has %d", len(a), len(b))
	}
	for i := range a {
		a, b := a[i], b[i]
		for _, e := range a.Exemplars {
			if sampled := sampledTrace(); filter != AlwaysOn && !bytes.Equal(e.TraceID, sampled[:]) {
				t.Errorf("%s has an exemplar of the trace %x, which is not sampled", ours.Name, e.TraceID)
			}
		}
		leastA, _ := a.Min.Value()
		leastB, _ := b.Min.Value()
		mostA, _ := a.Max.Value()
		mostB, _ := b.Max.Value()
		if !a.Attributes.Equals(&b.Attributes) || a.Count != b.Count || !slices.Equal(a.Bounds, b.Bounds) || !slices.Equal(a.BucketCounts, b.BucketCounts) ||
			math.Abs(a.Sum-b.Sum) > 1e-9*b.Sum || leastA != leastB || mostA != mostB || a.StartTime.IsZero() || a.Time.Before(a.StartTime) {
			t.Errorf("%s is %+v, the SDK has %+v", ours.Name, a, b)
		}
		if got, want := exemplarsByBucket(a), exemplarsByBucket(b); !slices.Equal(got, want) {
			t.Errorf("%s has exemplars %v, the SDK has %v", ours.Name, got, want)
		}
	}
}

// exemplarsByBucket says of each bucket whether it has an exemplar: which of its
// measurements that is is drawn.
func exemplarsByBucket(p metricdata.HistogramDataPoint[float64]) []string {
	of := make([]string, len(p.BucketCounts))
	for _, e := range p.Exemplars {
		i, _ := slices.BinarySearch(p.Bounds, e.Value)
		of[i] += "one"
	}
	return of
}

// TestTimingsAtOnce: what many record at once is counted, all of it, whoever
// collects meanwhile.
func TestTimingsAtOnce(t *testing.T) {
	times := newTimings(TraceBased)
	one := times.add(attribute.String("api", "A"))
	const each = 5000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range each {
				times.record(t.Context(), times.ttfb, one, time.Duration(i+1)*time.Millisecond, false)
			}
		})
	}
	var last uint64
	for last < 8*each {
		scopes, err := times.Produce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(scopes) == 0 {
			continue
		}
		if len(scopes[0].Metrics) != 1 {
			t.Fatalf("%d metrics", len(scopes[0].Metrics))
		}
		p := scopes[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints[0]
		if p.Count < last {
			t.Fatalf("%d measurements after %d", p.Count, last)
		}
		last = p.Count
	}
	wg.Wait()
	p, _ := one.ttfb.point()
	least, _ := p.Min.Value()
	most, _ := p.Max.Value()
	if want := 8 * each * (each + 1) / 2 * .001; p.Count != 8*each || math.Abs(p.Sum-want) > 1e-6*want || least != .001 || most != each*.001 {
		t.Errorf("%d measurements, %v s in all, %v to %v", p.Count, p.Sum, least, most)
	}
}

// TestDelta: a receiver that asks for deltas gets them, while /metrics goes on.
func TestDelta(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
	c := &collector{}
	to := pushed(GRPC, "http://"+c.serveGRPC(t))
	to.Interval, to.Traces, to.Logs = time.Hour, Push{}, Push{}
	tel := newTelemetry(t, Options{Node: "n1", OTLP: to})
	tel.Requests().HTTP(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	if text := scrape(t, tel, ""); !strings.Contains(text, `gridloom_request_ttfb_seconds_count{api="other",class="4xx",node="n1",proto="http"} 1`) {
		t.Error("/metrics doesn't have the request")
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	deltas := 0
	for _, r := range c.metrics {
		for _, s := range r.ScopeMetrics {
			for _, m := range s.Metrics {
				if m.Name == "gridloom.request.ttfb" || m.Name == "gridloom.request.duration" {
					deltas++
					if h := m.GetHistogram(); h.GetAggregationTemporality() != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA || h.DataPoints[0].Count != 1 {
						t.Errorf("%s came as %v", m.Name, h)
					}
				}
			}
		}
	}
	if deltas != 2 {
		t.Errorf("%d histograms of requests came", deltas)
	}
}
