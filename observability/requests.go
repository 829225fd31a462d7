package observability

import (
	"context"
	"errors"
	"maps"
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

// protocol is what requests come by.
type protocol struct {
	name  string // value of the label proto
	other *api   // of requests whose handler named no API

	// Requests under way: counted here, and looked at when somebody asks.
	inFlight atomic.Int64
	used     atomic.Bool // there was one
}

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
	timings    *timings
	errors     metric.Int64Counter
	buckets    *bucketView // nil: nobody has asked for one
	http, grpc protocol

	tracer  trace.Tracer // nil: no spans
	callers callers      // whose spans are theirs' parents
	calls   Calls

	// apis are read by every request, and so replaced as a whole.
	apis atomic.Pointer[map[apiKey]*api]
	mu   sync.Mutex // of those who replace them
}

type apiKey struct{ proto, name string }

// api is the label sets of one API, made once, and what is counted of it.
type api struct {
	name   string
	labels metric.ObserveOption
	class  [classes]*series
	calls  callCounts // what a sample's rates and quantiles are made of

	// Bytes of bodies, counted here and looked at when somebody asks.
	received, sent atomic.Int64
	counted        atomic.Bool // there was a request, if only one without them
}

func newRequests(m metric.Meter, t *timings, tracer trace.Tracer, buckets ...string) (*Requests, error) {
	r := &Requests{timings: t, tracer: tracer, callers: traceContext}
	apis := make(map[apiKey]*api)
	labels := make(map[*protocol]metric.MeasurementOption)
	r.http.name, r.grpc.name = "http", "grpc"
	for _, p := range []*protocol{&r.http, &r.grpc} {
		key := apiKey{p.name, otherAPI}
		p.other = r.newAPI(key)
		apis[key] = p.other
		labels[p] = metric.WithAttributeSet(attribute.NewSet(attribute.String("proto", p.name)))
	}
	r.apis.Store(&apis)
	var errs [5]error
	_, errs[0] = m.Int64ObservableUpDownCounter("gridloom.request.in_flight",
		metric.WithUnit("{request}"),
		metric.WithDescription("Requests under way."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for p, of := range labels {
				if p.used.Load() {
					o.Observe(p.inFlight.Load(), of)
				}
			}
			return nil
		}))
	_, errs[1] = m.Int64ObservableCounter("gridloom.request.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of request bodies."),
		metric.WithInt64Callback(r.observeBytes(func(a *api) *atomic.Int64 { return &a.received })))
	_, errs[2] = m.Int64ObservableCounter("gridloom.response.bytes",
		metric.WithUnit("By"),
		metric.WithDescription("Bytes of response bodies."),
		metric.WithInt64Callback(r.observeBytes(func(a *api) *atomic.Int64 { return &a.sent })))
	r.errors, errs[3] = m.Int64Counter("gridloom.request.errors",
		metric.WithUnit("{request}"),
		metric.WithDescription("Requests that have failed, or were broken off, by the kind of their error."))
	r.buckets, errs[4] = newBucketView(m, buckets)
	return r, errors.Join(errs[:]...)
}

// observeBytes looks at what the APIs have counted.
func (r *Requests) observeBytes(of func(*api) *atomic.Int64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		for _, a := range r.known() {
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
func (r *Requests) api(p *protocol, name string) *api {
	if name == "" || name == otherAPI {
		return p.other
	}
	key := apiKey{p.name, name}
	if a := r.known()[key]; a != nil {
		return a
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.known()[key]; a != nil {
		return a
	}
	apis := maps.Clone(r.known())
	if len(apis) >= maxAPIs+2 { // those of other come on top
		return p.other
	}
	a := r.newAPI(key)
	apis[key] = a
	r.apis.Store(&apis)
	return a
}

// known are the APIs that there were requests of, for reading.
func (r *Requests) known() map[apiKey]*api { return *r.apis.Load() }

func (r *Requests) newAPI(key apiKey) *api {
	labels := []attribute.KeyValue{attribute.String("api", key.name), attribute.String("proto", key.proto)}
	a := &api{
		name:   key.name,
		labels: metric.WithAttributeSet(attribute.NewSet(labels...)),
	}
	for c := classInformational; c < classes; c++ {
		a.class[c] = r.timings.add(append(labels[:2:2], attribute.String("class", classNames[c]))...)
	}
	return a
}

// request is one request under way. Its fields may be used by the handler's
// goroutines at once.
type request struct {
	requests *Requests
	proto    *protocol
	method   string // of HTTP, or the full one of gRPC
	start    time.Time
	span     trace.Span // nil: none
	traced   bool       // it may be in a trace

	forgotten bool // see responseWriter.Forget
	api       atomic.Pointer[api]
	open      atomic.Bool // it has not ended

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
func (r *Requests) begin(p *protocol) *request {
	q := new(request)
	r.beginAt(q, p, time.Now())
	return q
}

// beginAt is begin in memory that is there, of a request that has ended.
func (r *Requests) beginAt(q *request, p *protocol, at time.Time) {
	*q = request{requests: r, proto: p, start: at}
	q.api.Store(p.other)
	q.open.Store(true)
}

func (q *request) launch() {
	q.proto.inFlight.Add(1)
	if !q.proto.used.Load() {
		q.proto.used.Store(true)
	}
}

func (q *request) land() {
	q.open.Store(false)
	q.proto.inFlight.Add(-1)
}

// firstByte records the time to first byte. It is called once.
func (q *request) firstByte(ctx context.Context, after time.Duration, c class) {
	q.ttfb = after
	a := q.api.Load()
	a.calls.count(after, c)
	t := q.requests.timings
	t.record(ctx, t.ttfb, a.class[c], after, q.traced)
}

// outcome is how a request ended.
type outcome struct {
	class  class
	status int    // of HTTP; 0: it is gRPC
	code   string // of gRPC
	kind   string // of its error; "": there is none
	took   time.Duration
}

// end records the rest. It is called once, after firstByte.
func (q *request) end(ctx context.Context, o outcome) {
	a, r := q.api.Load(), q.requests
	r.timings.record(ctx, r.timings.duration, a.class[o.class], o.took, q.traced)
	if !a.counted.Load() {
		a.counted.Store(true)
	}
	flush(&q.received, &q.receivedUpTo, &a.received)
	flush(&q.sent, &q.sentUpTo, &a.sent)
	if o.kind != "" {
		r.errors.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(
			attribute.String("api", a.name), attribute.String("proto", q.proto.name), attribute.String("kind", o.kind))))
	}
	r.buckets.record(ctx, q, o)
	r.calls.publish(ctx, q, o)
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
