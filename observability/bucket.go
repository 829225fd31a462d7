package observability

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// MaxBuckets bounds the buckets that are measured by themselves: each costs as
// many series as there are APIs that are called in it.
const MaxBuckets = 32

// bucketView measures the requests of some buckets each by itself. They are
// instruments of their own, so that the sums of the others stay right.
type bucketView struct {
	names          map[string]attribute.KeyValue // read-only
	ttfb, duration metric.Float64Histogram
	received, sent metric.Int64Counter
	errors         metric.Int64Counter
}

// newBucketView makes the view, nil for no names: then there are no instruments.
func newBucketView(m metric.Meter, names []string) (*bucketView, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if len(names) > MaxBuckets {
		return nil, fmt.Errorf("observability: Options.Buckets: %d names; at most %d buckets are measured by themselves", len(names), MaxBuckets)
	}
	v := &bucketView{names: make(map[string]attribute.KeyValue, len(names))}
	for _, name := range names {
		if name == "" {
			return nil, errors.New("observability: Options.Buckets: a name is empty")
		}
		v.names[name] = attribute.String("bucket", name)
	}
	var errs [5]error
	v.ttfb, errs[0] = m.Float64Histogram("gridloom.bucket.request.ttfb",
		metric.WithUnit("s"),
		metric.WithDescription("Time to first byte of requests to a bucket that is measured by itself."),
		metric.WithExplicitBucketBoundaries(ttfbBounds()...))
	v.duration, errs[1] = m.Float64Histogram("gridloom.bucket.request.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Time from head to end of requests to a bucket that is measured by itself."),
		metric.WithExplicitBucketBoundaries(durationBounds()...))
	v.received, errs[2] = m.Int64Counter("gridloom.bucket.request.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of bodies of requests to a bucket that is measured by itself."))
	v.sent, errs[3] = m.Int64Counter("gridloom.bucket.response.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of bodies of responses to them."))
	v.errors, errs[4] = m.Int64Counter("gridloom.bucket.request.errors",
		metric.WithUnit("{request}"),
		metric.WithDescription("Requests to a bucket that is measured by itself that have failed, by the kind of their error."))
	return v, errors.Join(errs[:]...)
}

// record counts a request that has ended, if it is about one of the buckets.
func (v *bucketView) record(ctx context.Context, q *request, o outcome) {
	if v == nil {
		return
	}
	bucket, ok := v.names[q.bucket]
	if !ok {
		return
	}
	api, proto := attribute.String("api", q.api.Load().name), attribute.String("proto", q.proto.name)
	of := metric.WithAttributeSet(attribute.NewSet(bucket, api, proto))
	class := metric.WithAttributeSet(attribute.NewSet(bucket, api, proto, attribute.String("class", classNames[o.class])))
	v.ttfb.Record(ctx, q.ttfb.Seconds(), class)
	v.duration.Record(ctx, o.took.Seconds(), class)
	v.received.Add(ctx, q.receivedUpTo.Load(), of)
	v.sent.Add(ctx, q.sentUpTo.Load(), of)
	if o.kind != "" {
		v.errors.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(bucket, api, proto, attribute.String("kind", o.kind))))
	}
}
