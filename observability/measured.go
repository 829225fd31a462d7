package observability

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// measured is a request of HTTP with its answer. A connection of HTTP/1 has one
// at a time, and so needs one in all: measuring its requests allocates nothing.
type measured struct {
	request request
	writer  responseWriter
	reused  bool // for the connection's next request
}

// Get measures a GET that no http.Handler serves, as HTTP measures those that one
// does: the same is counted of it. Its head was there when it began. It is for the
// requests of a connection that ConnContext knows, and its ctx, which SetError
// finds it by; nil where spans are wanted of requests, which need an *http.Request.
// Whoever has one ends it by End, or by Forget, and uses nothing of it after that.
func (r *Requests) Get(ctx context.Context, w http.ResponseWriter, api string, began time.Time) *Answer {
	e, ok := ctx.Value(requestKey{}).(*measured)
	if r.tracer != nil || !ok || !e.reused {
		return nil
	}
	q := &e.request
	r.beginAt(q, &r.http, began)
	q.method = http.MethodGet
	q.api.Store(r.api(&r.http, api))
	q.launch()
	e.writer = responseWriter{inner: w, request: q, ctx: ctx}
	return &e.writer
}

// Answer is the http.ResponseWriter of a GET that is measured.
type Answer = responseWriter

// About says what the request is about, and who makes it, as SetTarget and SetUser
// do.
func (w *responseWriter) About(bucket, key, user string) {
	w.request.bucket, w.request.key, w.request.user = bucket, key, user
}

// End is for when the answer has ended; whole: it was not broken off.
func (w *responseWriter) End(whole bool) {
	w.returned = whole
	w.finish()
}

// Forget is for a request that is served in another way, and counted there, from
// when it began.
func (w *responseWriter) Forget() {
	w.request.land()
	w.request.forgotten = true
	w.inner, w.ctx = ended{}, nil
}

// ended is the ResponseWriter of a request that has ended.
type ended struct{}

func (ended) Header() http.Header       { return http.Header{} }
func (ended) WriteHeader(int)           {}
func (ended) Write([]byte) (int, error) { return 0, errEnded }

var errEnded = errors.New("observability: the request has ended")

// ConnContext is for an http.Server's: with it, what is measured of a
// connection's requests is kept in the same memory for one after the other. So
// what net/http says of a ResponseWriter, that it is not to be used once its
// handler has returned, is true of the request's context, too, for SetAPI.
func ConnContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, requestKey{}, &measured{reused: true})
}

// measuredOf gives what is measured of a request whose context is ctx, and a context
// that it is found by.
func measuredOf(ctx context.Context, major int) (context.Context, *measured) {
	if e, ok := ctx.Value(requestKey{}).(*measured); ok && e.reused && major == 1 {
		return ctx, e
	}
	e := new(measured) // HTTP/2 has many at a time on one connection
	return context.WithValue(ctx, requestKey{}, e), e
}

func requestFrom(ctx context.Context) *request {
	switch of := ctx.Value(requestKey{}).(type) {
	case *measured:
		if of.request.open.Load() {
			return &of.request
		}
	case *request:
		return of
	}
	return nil
}
