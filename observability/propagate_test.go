package observability

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// TestPropagators: a request's caller is found in the forms that are asked for and
// in no other, by HTTP and by gRPC alike.
func TestPropagators(t *testing.T) {
	const (
		w3c    = "11111111111111111111111111111111"
		single = "22222222222222222222222222222222"
		multi  = "33333333333333333333333333333333"
		uber   = "44444444444444444444444444444444"
	)
	heads := map[string]string{
		"traceparent":   "00-" + w3c + "-0123456789abcdef-01",
		"b3":            single + "-0123456789abcdef-1",
		"uber-trace-id": uber + ":0123456789abcdef:0:1",
		"baggage":       "user=somebody",
		"uberctx-user":  "somebody",
	}
	multiple := map[string]string{"x-b3-traceid": multi, "x-b3-spanid": "0123456789abcdef", "x-b3-sampled": "1"}
	for _, c := range []struct {
		propagators string
		heads       map[string]string
		want        string
	}{
		{"", heads, w3c},
		{"", multiple, ""},
		{"tracecontext,baggage", heads, w3c},
		{"baggage", heads, ""},
		{"none", heads, ""},
		{"b3", heads, single},
		{"b3", multiple, multi},
		{"b3multi", multiple, multi},
		{"b3multi", heads, single},
		{"b3,b3multi,b3", multiple, multi},
		{"jaeger", heads, uber},
		{"jaeger", multiple, ""},
		{"jaeger,tracecontext", heads, w3c},
		{"tracecontext,jaeger", heads, uber},
		{"tracecontext,b3", multiple, multi},
		{"tracecontext,jaeger", map[string]string{"traceparent": heads["traceparent"], "uber-trace-id": "broken"}, w3c},
		{"b3,jaeger", map[string]string{}, ""},
	} {
		var names []string
		if c.propagators != "" {
			names = strings.Split(c.propagators, ",")
		}
		tel := newTelemetry(t, Options{Node: "n1", Propagators: names})
		check := func(by string, span trace.SpanContext, carried baggage.Baggage) {
			got := ""
			if span.IsRemote() {
				got = span.TraceID().String()
			}
			if got != c.want || span.IsSampled() != (c.want != "") {
				t.Errorf("%s, %q of %v: trace %q, sampled %v, want %q", by, c.propagators, c.heads, got, span.IsSampled(), c.want)
			}
			if carried.Len() > 0 {
				t.Errorf("%s, %q: there is baggage: %v", by, c.propagators, carried)
			}
		}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		for name, value := range c.heads {
			r.Header.Set(name, value)
		}
		served := 0
		tel.Requests().HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			served++
			check("HTTP", trace.SpanContextFromContext(r.Context()), baggage.FromContext(r.Context()))
		})).ServeHTTP(httptest.NewRecorder(), r)
		if served != 1 {
			t.Fatal("not served")
		}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.New(c.heads))
		ctx = tel.Requests().StatsHandler().TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: "/a.B/C"})
		check("gRPC", trace.SpanContextFromContext(ctx), baggage.FromContext(ctx))
	}
}

func TestBadPropagators(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"tracecontext", "xray"}, `propagator "xray": want tracecontext, `},
		{[]string{"none", "b3"}, "propagator none goes with no other"},
		{[]string{""}, `propagator "": want`},
	} {
		if _, err := New(t.Context(), Options{Node: "n1", Propagators: c.names}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.names, err, c.want)
		}
		if err := ValidatePropagators(c.names); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.names, err, c.want)
		}
	}
	if err := ValidatePropagators(slices.DeleteFunc(Propagators(), func(name string) bool { return name == "none" })); err != nil {
		t.Error(err)
	}
}
