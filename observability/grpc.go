package observability

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// StatsHandler measures a gRPC server's calls: pass it as
// grpc.StatsHandler(r.StatsHandler()).
//
// The label api is the method's name without its service. A method that the
// server doesn't have is "other", so that nobody makes labels up. The first
// byte is the first message handed to the transport; a call without one is
// stamped at its trailers, a cancelled call at its end. Codes are classed as
// the HTTP status they stand for: OK 2xx; Unknown, DeadlineExceeded,
// Unimplemented, Internal, Unavailable and DataLoss 5xx; the rest 4xx. The
// class is known only at the end of a call, and so a stream is recorded then.
func (r *Requests) StatsHandler() stats.Handler { return &statsHandler{requests: r} }

type statsHandler struct{ requests *Requests }

func (*statsHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*statsHandler) HandleConn(context.Context, stats.ConnStats)                       {}

// TagRPC is called when the request's head has come.
func (h *statsHandler) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	ctx = h.requests.callers.ofGRPC(ctx)
	q := h.requests.begin(&h.requests.grpc)
	q.method = info.FullMethodName
	ctx = h.requests.startSpan(ctx, q, attribute.String("rpc.system.name", "grpc"))
	q.traced = trace.SpanContextFromContext(ctx).IsValid()
	return context.WithValue(ctx, requestKey{}, q)
}

// HandleRPC may be called by a stream's sender and receiver at once. A method
// that the server has gives Begin first and End last. Any other gives only
// OutTrailer, and not even that when its client is gone: such a call ends at
// OutTrailer and is never in flight.
func (h *statsHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	q := requestFrom(ctx)
	if q == nil {
		return
	}
	switch event := event.(type) {
	case *stats.Begin:
		q.known.Store(true)
		q.api.Store(h.requests.api(q.proto, q.method[strings.LastIndexByte(q.method, '/')+1:]))
		q.launch()
	case *stats.InPayload:
		q.addReceived(int64(event.WireLength))
	case *stats.OutPayload:
		q.stamp()
		q.addSent(int64(event.WireLength))
	case *stats.OutTrailer:
		q.stamp()
		if !q.known.Load() {
			q.method = "_OTHER" // as the client made it up, in any bytes
			q.endGRPC(ctx, codes.Unimplemented)
		}
	case *stats.End:
		q.stamp()
		q.land()
		q.endGRPC(ctx, status.Code(event.Error))
	}
}

// stamp notes the first byte, unless it was.
func (q *request) stamp() {
	if q.first.Load() == 0 {
		q.first.CompareAndSwap(0, 1+int64(time.Since(q.start)))
	}
}

func (q *request) endGRPC(ctx context.Context, code codes.Code) {
	o := outcome{class: classOfCode(code), code: code.String(), took: time.Since(q.start)}
	if code != codes.OK {
		if o.kind = q.kind; o.kind == "" || code == codes.Canceled { // its client is gone, whatever the handler made of that
			o.kind = kindOfCode(code)
		}
	}
	q.firstByte(ctx, time.Duration(q.first.Load()-1), o.class)
	q.end(ctx, o)
	q.endSpan(o,
		attribute.String("rpc.method", strings.TrimPrefix(q.method, "/")),
		attribute.String("rpc.response.status_code", code.String()))
}

func classOfCode(code codes.Code) class {
	switch code {
	case codes.OK:
		return classSuccess
	case codes.Canceled, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists,
		codes.PermissionDenied, codes.ResourceExhausted, codes.FailedPrecondition,
		codes.Aborted, codes.OutOfRange, codes.Unauthenticated:
		return classClientError
	default:
		return classServerError
	}
}
