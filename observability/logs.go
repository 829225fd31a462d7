package observability

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/log/embedded"
	"go.opentelemetry.io/otel/trace"
)

// Logs is the way of a node's log: to a handler of the caller's, with trace_id
// and span_id where the context is in a trace, and by OTLP too from when New
// has it in its Options until Shutdown. Both see the levels that the handler
// is enabled for. By OTLP nothing waits: what doesn't fit in the queue is
// dropped and counted.
//
// It exists before Telemetry does, since a node logs before, and a logger goes
// to many places where nobody could change it later.
type Logs struct {
	handler slog.Handler
	to      lateLogger
}

// NewLogs makes the log that ends in next.
func NewLogs(next slog.Handler) *Logs {
	l := &Logs{}
	l.handler = &logHandler{next: next, push: otelslog.NewHandler(scope, otelslog.WithLoggerProvider(lateProvider{logger: &l.to})), logs: l}
	return l
}

// Handler is where to log.
func (l *Logs) Handler() slog.Handler { return l.handler }

// logHandler hands records to two.
type logHandler struct {
	next, push slog.Handler
	logs       *Logs
}

func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.logs.to.pushed() {
		_ = h.push.Handle(ctx, r) // it never fails: it puts r into a queue
	}
	if attrs := traceAttrs(ctx); attrs != nil {
		r = r.Clone()
		r.AddAttrs(attrs...)
	}
	return h.next.Handle(ctx, r)
}

// traceAttrs says what trace ctx is in; nil where it is in none.
func traceAttrs(ctx context.Context) []slog.Attr {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return nil
	}
	return []slog.Attr{slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String())}
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.next.WithAttrs(attrs), h.push.WithAttrs(attrs), h.logs}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.next.WithGroup(name), h.push.WithGroup(name), h.logs}
}

// lateLogger is a logger that is there later, or never.
type lateLogger struct {
	embedded.Logger
	logger atomic.Pointer[log.Logger]
}

func (l *lateLogger) pushed() bool { return l.logger.Load() != nil }

// set makes l log to logger; nil: to nobody.
func (l *lateLogger) set(logger log.Logger) {
	if logger == nil {
		l.logger.Store(nil)
		return
	}
	l.logger.Store(&logger)
}

// Emit implements log.Logger.
func (l *lateLogger) Emit(ctx context.Context, r log.Record) {
	if to := l.logger.Load(); to != nil {
		(*to).Emit(ctx, r)
	}
}

// Enabled implements log.Logger.
func (l *lateLogger) Enabled(ctx context.Context, p log.EnabledParameters) bool {
	to := l.logger.Load()
	return to != nil && (*to).Enabled(ctx, p)
}

// lateProvider has the one logger.
type lateProvider struct {
	embedded.LoggerProvider
	logger *lateLogger
}

// Logger implements log.LoggerProvider.
func (p lateProvider) Logger(string, ...log.LoggerOption) log.Logger { return p.logger }
