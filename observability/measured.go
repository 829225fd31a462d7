package observability

import (
	"context"
	"errors"
	"net/http"
)

// measured is a request of HTTP with its answer. A connection of HTTP/1 has one
// at a time, and so needs one in all: measuring its requests allocates nothing.
type measured struct {
	request request
	writer  responseWriter
	reused  bool // for the connection's next request
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
