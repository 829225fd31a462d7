package observability

import (
	"errors"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestRoot: work that nobody has asked for is a trace of its own, if the sampler
// takes it, wherever it is begun.
func TestRoot(t *testing.T) {
	for sampler, want := range map[string]int64{"": 2, "parentbased_always_off": 0} {
		t.Setenv("OTEL_TRACES_SAMPLER", sampler)
		c := &collector{}
		server := httptest.NewServer(c)
		tel := newTelemetry(t, Options{Node: "n1", OTLP: OTLP{Traces: Push{Protocol: HTTPProtobuf, Endpoint: server.URL}}})
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
		ctx, end := tel.Spans().Root(trace.ContextWithSpanContext(t.Context(), parent), "heal.copy", attribute.String("gridloom.drive", "d1"), attribute.Int("gridloom.segments", 7))
		if got := trace.SpanContextFromContext(ctx); got.TraceID() == parent.TraceID() && sampler == "" {
			t.Error("it belongs to another's trace")
		}
		_, endPart := tel.Spans().Start(ctx, "part", "")
		endPart(nil)
		end(errors.New("broken"))
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		server.Close()
		if came := c.spanCount(); came != want {
			t.Fatalf("%q: %d spans came, want %d", sampler, came, want)
		}
		for _, of := range c.spans {
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					at := attributes(s.Attributes)
					if s.Name == "heal.copy" && (len(s.ParentSpanId) > 0 || at["gridloom.drive"] != "d1" || len(at) != 2 || s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR) {
						t.Errorf("%v", s)
					}
				}
			}
		}
	}
	ctx, end := (*Spans)(nil).Root(t.Context(), "heal.copy")
	if end(nil); ctx != t.Context() {
		t.Error("nobody's spans change the context")
	}
}
