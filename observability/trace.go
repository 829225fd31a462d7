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
// the end, with the caller's span as parent where it sent one: propagate.go.
// Attributes are those of the
// semantic conventions for HTTP and RPC spans but paths: bucket names and
// keys stay out of traces.

// remoteParent returns ctx with the span of another node's (W3C Trace Context,
// https://www.w3.org/TR/trace-context/).
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
func (incomingMetadata) Keys() []string     { return nil } // for baggage alone

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
	case q.proto == &q.requests.grpc:
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

// Spans makes the spans of the parts of a request, below that of the request
// itself. A part of what isn't sampled costs a look into the context, and
// allocates nothing. A nil *Spans makes none.
type Spans struct{ tracer trace.Tracer }

// Spans makes the spans of parts of requests; nil where spans go nowhere.
func (t *Telemetry) Spans() *Spans {
	if tracer := t.tracer(); tracer != nil {
		return &Spans{tracer}
	}
	return nil
}

func noEnd(error) {}

// Sampled says whether parts of what ctx is about are to have spans.
func (s *Spans) Sampled(ctx context.Context) bool {
	return s != nil && trace.SpanContextFromContext(ctx).IsSampled()
}

// Start begins a part. node, if there is one, is the node that it is about. end
// is called once, with its error.
func (s *Spans) Start(ctx context.Context, name, node string) (_ context.Context, end func(error)) {
	if !s.Sampled(ctx) {
		return ctx, noEnd
	}
	ctx = s.start(ctx, name, trace.SpanKindInternal, node)
	return ctx, func(err error) { s.End(ctx, err) }
}

// Root begins what no request has asked for, as a trace of its own: whether it is
// made is the sampler's to say. end is called once, with its error.
func (s *Spans) Root(ctx context.Context, name string, attributes ...attribute.KeyValue) (_ context.Context, end func(error)) {
	if s == nil {
		return ctx, noEnd
	}
	ctx, span := s.tracer.Start(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(attributes...))
	if !span.IsRecording() {
		return ctx, noEnd
	}
	return ctx, func(err error) { s.End(ctx, err) }
}

// Call begins a call to another node, and gives what is to be sent along for it
// (W3C Trace Context); "" where it is not sampled. End ends it.
func (s *Spans) Call(ctx context.Context, name, node string) (_ context.Context, traceparent string) {
	if !s.Sampled(ctx) {
		return ctx, ""
	}
	ctx = s.start(ctx, name, trace.SpanKindClient, node)
	return ctx, Traceparent(ctx)
}

// Serve begins what another node has asked for, with what it has sent along. End
// ends it.
func (s *Spans) Serve(ctx context.Context, traceparent, name, node string) context.Context {
	if s == nil || traceparent == "" {
		return ctx
	}
	ctx = remoteParent(ctx, propagation.MapCarrier{traceparentKey: traceparent})
	if !s.Sampled(ctx) {
		return ctx
	}
	return s.start(ctx, name, trace.SpanKindServer, node)
}

// End ends what Call and Serve have begun with the context that they gave. Where
// that was nothing it does nothing.
func (s *Spans) End(ctx context.Context, err error) {
	if s == nil {
		return
	}
	// A sampled context is always that of a span of its own.
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// nodeAttribute names a node of the mesh in spans.
const nodeAttribute = "gridloom.node"

func (s *Spans) start(ctx context.Context, name string, kind trace.SpanKind, node string) context.Context {
	options := []trace.SpanStartOption{trace.WithSpanKind(kind)}
	if node != "" {
		options = append(options, trace.WithAttributes(attribute.String(nodeAttribute, node)))
	}
	ctx, _ = s.tracer.Start(ctx, name, options...)
	return ctx
}

const traceparentKey = "traceparent"

// Traceparent is what another process must be told so that its spans belong to
// ctx's, "" where ctx isn't sampled.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparentKey]
}
