package observability

import (
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// probe is Requests with a reader of its own.
type probe struct {
	*Requests
	reader *sdkmetric.ManualReader
}

func newProbe(t testing.TB) *probe {
	t.Helper()
	times := newTimings(TraceBased)
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(times))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	r, err := newRequests(provider.Meter("test"), times, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &probe{r, reader}
}

// point is a histogram's, or a counter's with only sum.
type point struct {
	count uint64
	sum   float64
}

// points returns an instrument's points by "api proto class", of those that
// it has.
func (p *probe) points(t testing.TB, name string) map[string]point {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := p.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]point)
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, d := range data.DataPoints {
					got[labelsOf(d.Attributes)] = point{d.Count, d.Sum}
				}
			case metricdata.Sum[int64]:
				for _, d := range data.DataPoints {
					if d.Value != 0 {
						got[labelsOf(d.Attributes)] = point{sum: float64(d.Value)}
					}
				}
			}
		}
	}
	return got
}

func labelsOf(set attribute.Set) string {
	labels := ""
	for _, key := range []attribute.Key{"api", "proto", "class"} {
		if v, ok := set.Value(key); ok {
			if labels != "" {
				labels += " "
			}
			labels += v.AsString()
		}
	}
	return labels
}

// want fails unless the instrument has exactly these points.
func (p *probe) want(t testing.TB, name string, want map[string]point) {
	t.Helper()
	got := p.points(t, name)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func TestAPIsAreBounded(t *testing.T) {
	p := newProbe(t)
	for i := range 1000 {
		for _, proto := range []*protocol{&p.http, &p.grpc} {
			q := p.begin(proto)
			SetAPI(context.WithValue(t.Context(), requestKey{}, q), fmt.Sprint("made-up-", i))
			q.end(t.Context(), outcome{class: classSuccess, status: 200})
		}
	}
	points := p.points(t, "gridloom.request.duration")
	if len(points) > maxAPIs+2 {
		t.Errorf("%d series of 1000 names", len(points))
	}
	var total uint64
	for _, point := range points {
		total += point.count
	}
	if total != 2000 || points["other grpc 2xx"].count == 0 || points["other http 2xx"].count == 0 {
		t.Errorf("%d requests counted, others %v and %v", total, points["other grpc 2xx"], points["other http 2xx"])
	}
}

func TestSetAPIWithoutRequest(t *testing.T) {
	SetAPI(t.Context(), "GetObject") // does nothing, and says nothing
}
