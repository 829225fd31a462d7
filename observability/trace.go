package observability

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

// Each request has one server span, named by its API when that is known at
// the end, with the caller's span as parent where it sent one (W3C Trace
// Context, https://www.w3.org/TR/trace-context/). Attributes are those of the
// semantic conventions for HTTP and RPC spans but paths: bucket names and
// keys stay out of traces.

// remoteParent returns ctx with the caller's span.
func remoteParent(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier)
}

// incomingMetadata reads a gRPC call's metadata, one key at a time: as a whole
// it would be copied.
type incomingMetadata struct{ ctx context.Context }

func (m incomingMetadata) Get(key string) string {
	if values := metadata.ValueFromIncomingContext(m.ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (incomingMetadata) Set(string, string) {}             // nothing is injected
func (incomingMetadata) Keys() []string     { return nil } // TraceContext doesn't ask

// TraceID is the id of the trace that ctx is in, "" where it is in none.
func TraceID(ctx context.Context) string {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	return ""
}

func (r *Requests) startSpan(ctx context.Context, q *request, attributes ...attribute.KeyValue) context.Context {
	if r.tracer == nil {
		return ctx
	}
	ctx, q.span = r.tracer.Start(ctx, q.method,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attributes...))
	return ctx
}

func (q *request) endSpan(o outcome, attributes ...attribute.KeyValue) {
	if q.span == nil {
		return
	}
	switch name := q.api.Load().name; {
	case name != otherAPI:
		q.span.SetName(name)
	case q.proto == protoGRPC:
		q.span.SetName("_OTHER") // a method that the client made up
	}
	q.span.SetAttributes(attributes...)
	if o.kind != "" {
		q.span.SetAttributes(attribute.String("error.type", o.kind))
	}
	if o.class == classServerError {
		q.span.SetStatus(codes.Error, "")
	}
	q.span.End()
}

// httpMethod returns the method, or _OTHER for one that a client made up.
func httpMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	default:
		return "_OTHER"
	}
}
