package observability

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	// otherAPI labels requests whose handler named no API.
	otherAPI = "other"

	// maxAPIs bounds the pairs of api and proto; names beyond it are counted
	// as otherAPI. Each has at most five classes.
	maxAPIs = 128

	// bytesStep is how many bytes of a request are added to the counters at
	// a time: often enough to see a long transfer move, rarely enough to
	// cost nothing.
	bytesStep = 1 << 20
)

// Values of the label proto.
const (
	protoHTTP = "http"
	protoGRPC = "grpc"
)

// Class of a response by its status, as HTTP has it. gRPC codes are classed
// like the HTTP status they stand for, so that one alert covers both.
type class int

const (
	classInformational class = iota + 1
	classSuccess
	classRedirection
	classClientError
	classServerError
	classes // number of classes, and one
)

var classNames = [classes]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

// Requests measures the requests of a node's listeners, whichever protocol
// they came by:
//
//	gridloom.request.ttfb        histogram, s         api, proto, class
//	gridloom.request.duration    histogram, s         api, proto, class
//	gridloom.request.in_flight   up-down counter      proto
//	gridloom.request.bytes       counter, By          api, proto
//	gridloom.response.bytes      counter, By          api, proto
//	gridloom.request.errors      counter, {request}   api, proto, kind
//
// and of the buckets that Options.Buckets names, and of no others, the same
// with the label bucket as gridloom.bucket.request.ttfb and so on: bucket.go.
//
// Bytes are those of bodies: for gRPC, messages with their 5-byte prefix.
// They are counted as they move, the rest once, when the request ends.
type Requests struct {
	ttfb, duration metric.Float64Histogram
	errors         metric.Int64Counter
	inFlight       map[string]*inFlight // by proto; read-only
	buckets        *bucketView          // nil: nobody has asked for one

	tracer  trace.Tracer // nil: no spans
	callers callers      // whose spans are theirs' parents
	calls   Calls

	mu   sync.RWMutex
	apis map[apiKey]*api // under mu; at most maxAPIs, and otherAPI for each protocol
}

// inFlight are the requests of one protocol that are under way: counted here, and
// looked at when somebody asks.
type inFlight struct {
	now  atomic.Int64
	used atomic.Bool // there was one
}

func (f *inFlight) begin() {
	f.now.Add(1)
	if !f.used.Load() {
		f.used.Store(true)
	}
}

type apiKey struct{ proto, name string }

// api is the label sets of one API, made once.
type api struct {
	name   string
	labels metric.ObserveOption
	class  [classes][]metric.RecordOption
	calls  callCounts // what a sample's rates and quantiles are made of

	// Bytes of bodies, counted here and looked at when somebody asks.
	received, sent atomic.Int64
	counted        atomic.Bool // there was a request, if only one without them
}

func newRequests(m metric.Meter, tracer trace.Tracer, buckets ...string) (*Requests, error) {
	r := &Requests{tracer: tracer, callers: traceContext, apis: make(map[apiKey]*api), inFlight: make(map[string]*inFlight)}
	labels := make(map[string]metric.MeasurementOption)
	for _, proto := range []string{protoHTTP, protoGRPC} {
		r.inFlight[proto] = new(inFlight)
		labels[proto] = metric.WithAttributeSet(attribute.NewSet(attribute.String("proto", proto)))
	}
	var errs [7]error
	r.ttfb, errs[0] = m.Float64Histogram("gridloom.request.ttfb",
		metric.WithUnit("s"),
		metric.WithDescription("Time from a request's head to the first byte of the response's body, or to its status where it has none."),
		metric.WithExplicitBucketBoundaries(ttfbBounds()...))
	r.duration, errs[1] = m.Float64Histogram("gridloom.request.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Time from a request's head to the end of its handler."),
		metric.WithExplicitBucketBoundaries(durationBounds()...))
	_, errs[2] = m.Int64ObservableUpDownCounter("gridloom.request.in_flight",
		metric.WithUnit("{request}"),
		metric.WithDescription("Requests under way."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for proto, f := range r.inFlight {
				if f.used.Load() {
					o.Observe(f.now.Load(), labels[proto])
				}
			}
			return nil
		}))
	_, errs[3] = m.Int64ObservableCounter("gridloom.request.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of request bodies."),
		metric.WithInt64Callback(r.observeBytes(func(a *api) *atomic.Int64 { return &a.received })))
	_, errs[4] = m.Int64ObservableCounter("gridloom.response.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of response bodies."),
		metric.WithInt64Callback(r.observeBytes(func(a *api) *atomic.Int64 { return &a.sent })))
	r.errors, errs[5] = m.Int64Counter("gridloom.request.errors",
		metric.WithUnit("{request}"),
		metric.WithDescription("Requests that have failed, or were broken off, by the kind of their error."))
	r.buckets, errs[6] = newBucketView(m, buckets)
	return r, errors.Join(errs[:]...)
}

// observeBytes looks at what the APIs have counted.
func (r *Requests) observeBytes(of func(*api) *atomic.Int64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		r.mu.RLock()
		defer r.mu.RUnlock()
		for _, a := range r.apis {
			if n := of(a).Load(); n > 0 || a.counted.Load() {
				o.Observe(n, a.labels)
			}
		}
		return nil
	}
}

// ttfbBounds are the bounds of the histograms of time to first byte, in seconds.
func ttfbBounds() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

// durationBounds are those of the histograms of durations.
func durationBounds() []float64 { return append(ttfbBounds(), 30, 60, 300, 900) }

// Calls shows the requests as they end to those who watch.
func (r *Requests) Calls() *Calls { return &r.calls }

// SetAPI names the API that the request in ctx calls ("PutObject"), for the
// label api. The handler calls it once it knows, before the first byte of the
// response; without it an HTTP request is counted as "other". Names must be
// from a fixed set, never from the request. A gRPC call has its method's name
// already. Without a measured request in ctx it does nothing.
func SetAPI(ctx context.Context, name string) {
	if q := requestFrom(ctx); q != nil {
		q.api.Store(q.requests.api(q.proto, name))
	}
}

// API is the name that SetAPI gave the request in ctx, "" where none did.
func API(ctx context.Context) string {
	if q := requestFrom(ctx); q != nil {
		if name := q.api.Load().name; name != otherAPI {
			return name
		}
	}
	return ""
}

// SetTarget says what the request in ctx is about: for those who watch calls,
// and for the buckets that Options.Buckets names. Either may be "". The handler
// calls it from its own goroutine; the last call counts.
func SetTarget(ctx context.Context, bucket, key string) {
	if q := requestFrom(ctx); q != nil {
		q.bucket, q.key = bucket, key
	}
}

// SetUser says who makes the request in ctx, for those who watch calls. The
// handler calls it from its own goroutine.
func SetUser(ctx context.Context, user string) {
	if q := requestFrom(ctx); q != nil {
		q.user = user
	}
}

// api returns the label sets for name, or those of otherAPI where name is
// empty or one too many.
func (r *Requests) api(proto, name string) *api {
	if name == "" {
		name = otherAPI
	}
	key := apiKey{proto, name}
	r.mu.RLock()
	a := r.apis[key]
	r.mu.RUnlock()
	if a != nil {
		return a
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.apis[key]; a != nil {
		return a
	}
	if len(r.apis) >= maxAPIs && name != otherAPI {
		key.name = otherAPI
		if a := r.apis[key]; a != nil {
			return a
		}
	}
	a = newAPI(key)
	r.apis[key] = a
	return a
}

func newAPI(key apiKey) *api {
	labels := []attribute.KeyValue{attribute.String("api", key.name), attribute.String("proto", key.proto)}
	a := &api{
		name:   key.name,
		labels: metric.WithAttributeSet(attribute.NewSet(labels...)),
	}
	for c := classInformational; c < classes; c++ {
		set := attribute.NewSet(append(labels[:2:2], attribute.String("class", classNames[c]))...)
		a.class[c] = []metric.RecordOption{metric.WithAttributeSet(set)}
	}
	return a
}

// request is one request under way. Its fields may be used by the handler's
// goroutines at once.
type request struct {
	requests *Requests
	proto    string
	method   string // of HTTP, or the full one of gRPC
	start    time.Time
	span     trace.Span // nil: none
	api      atomic.Pointer[api]
	open     atomic.Bool // it has not ended

	// Bytes not yet added to the counters, and those that are.
	received, sent         atomic.Int64
	receivedUpTo, sentUpTo atomic.Int64

	// What the handler says, from its own goroutine, before it returns.
	bucket, key string
	user        string
	kind        string        // of its error
	ttfb        time.Duration // as it was recorded

	// For gRPC, whose class is known only at the end: nanoseconds from
	// start to the first byte, and one; 0 for none yet.
	first atomic.Int64
	// For gRPC: the method is one of the server's (see statsHandler).
	known atomic.Bool
}

type requestKey struct{}

// begin starts the clock. The request is counted as in flight by launch.
func (r *Requests) begin(proto string) *request {
	q := new(request)
	r.beginAt(q, proto)
	return q
}

// beginAt is begin in memory that is there, of a request that has ended.
func (r *Requests) beginAt(q *request, proto string) {
	*q = request{requests: r, proto: proto, start: time.Now()}
	q.api.Store(r.api(proto, otherAPI))
	q.open.Store(true)
}

func (q *request) launch() { q.requests.inFlight[q.proto].begin() }

func (q *request) land() {
	q.open.Store(false)
	q.requests.inFlight[q.proto].now.Add(-1)
}

// firstByte records the time to first byte. It is called once.
func (q *request) firstByte(ctx context.Context, after time.Duration, c class) {
	q.ttfb = after
	a := q.api.Load()
	a.calls.count(after, c)
	q.requests.ttfb.Record(ctx, after.Seconds(), a.class[c]...)
}

// outcome is how a request ended.
type outcome struct {
	class  class
	status int    // of HTTP; 0: it is gRPC
	code   string // of gRPC
	kind   string // of its error; "": there is none
}

// end records the rest. It is called once, after firstByte.
func (q *request) end(ctx context.Context, o outcome) {
	a, r := q.api.Load(), q.requests
	took := time.Since(q.start)
	r.duration.Record(ctx, took.Seconds(), a.class[o.class]...)
	if !a.counted.Load() {
		a.counted.Store(true)
	}
	flush(&q.received, &q.receivedUpTo, &a.received)
	flush(&q.sent, &q.sentUpTo, &a.sent)
	if o.kind != "" {
		r.errors.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(
			attribute.String("api", a.name), attribute.String("proto", q.proto), attribute.String("kind", o.kind))))
	}
	r.buckets.record(ctx, q, took, o)
	r.calls.publish(ctx, q, took, o)
}

func (q *request) addReceived(n int64) {
	if q.received.Add(n) >= bytesStep {
		flush(&q.received, &q.receivedUpTo, &q.api.Load().received)
	}
}

func (q *request) addSent(n int64) {
	if q.sent.Add(n) >= bytesStep {
		flush(&q.sent, &q.sentUpTo, &q.api.Load().sent)
	}
}

// flush adds what is pending of a request to its API's count, and to what has
// been added of it.
func flush(pending, upTo, count *atomic.Int64) {
	if n := pending.Swap(0); n != 0 {
		upTo.Add(n)
		count.Add(n)
	}
}
