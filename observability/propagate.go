package observability

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/contrib/propagators/jaeger"
	"go.opentelemetry.io/otel/propagation"
)

// Propagators are the names of those that Options may have, in the words of
// OTEL_PROPAGATORS. Those of vendors, and OpenTracing's, which OpenTelemetry gives
// up, are not among them.
func Propagators() []string {
	return []string{"tracecontext", "baggage", "b3", "b3multi", "jaeger", "none"}
}

// ValidatePropagators says what is wrong with Options.Propagators.
func ValidatePropagators(names []string) error {
	_, err := callersBy(names)
	return err
}

// callers finds the span of a request's caller, in what came with the request.
// Only what comes in from clients is read so: nodes tell each other by W3C Trace
// Context alone (Traceparent), and call nobody else. That is why baggage is not
// read at all: there is no service to hand it on to.
type callers struct {
	// heads are the fields, in net/http's form, of which one at least is there
	// when there is a span: a request without is not looked at any further.
	heads []string
	read  propagation.TextMapPropagator
}

// traceContext is the default.
var traceContext = callers{heads: []string{"Traceparent"}, read: propagation.TraceContext{}}

// callersBy understands Options.Propagators. Of several formats in one request the
// last that has a span counts.
func callersBy(names []string) (callers, error) {
	if len(names) == 0 {
		return traceContext, nil
	}
	var c callers
	var read []propagation.TextMapPropagator
	seen := map[string]bool{}
	add := func(p propagation.TextMapPropagator, heads ...string) {
		read = append(read, p)
		c.heads = append(c.heads, heads...)
	}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		switch name {
		case "tracecontext":
			add(traceContext.read, traceContext.heads...)
		case "b3", "b3multi": // they differ in what is sent; both are to be read
			if !seen["b3"] || !seen["b3multi"] {
				add(b3.New(), "B3", "X-B3-Traceid")
			}
		case "jaeger":
			add(jaeger.Jaeger{}, "Uber-Trace-Id")
		case "baggage", "none":
		default:
			return c, fmt.Errorf("propagator %q: want %s", name, strings.Join(Propagators(), ", "))
		}
	}
	if seen["none"] && len(seen) > 1 {
		return c, fmt.Errorf("propagator none goes with no other")
	}
	c.read = propagation.NewCompositeTextMapPropagator(read...)
	if len(read) == 1 {
		c.read = read[0]
	}
	return c, nil
}

// ofHTTP returns ctx with the span that the head of a request names.
func (c *callers) ofHTTP(ctx context.Context, head http.Header) context.Context {
	for _, name := range c.heads {
		if len(head[name]) > 0 {
			return c.read.Extract(ctx, fields{propagation.HeaderCarrier(head)})
		}
	}
	return ctx
}

// ofGRPC returns ctx with the span that the metadata of a call names.
func (c *callers) ofGRPC(ctx context.Context) context.Context {
	return c.read.Extract(ctx, incomingMetadata{ctx})
}

// fields has no Keys, so that no baggage is looked for among them.
type fields struct{ propagation.HeaderCarrier }

func (fields) Keys() []string { return nil }
