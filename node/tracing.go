package node

import (
	"context"
	"maps"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// A trace follows a request through the mesh: its span is begun at the listener,
// by package observability; what is below it is made here, out of what the parts
// report. A call of the grid carries the context as metadata, one to the bulk port
// as a header:
//
//	PutObject ─┬ control.read ── object.… ┐
//	           ├ object.copy  ── grid object.write ═ grid object.write   (to 256 KiB)
//	           ├ object.copy  ── ════════════════════ bulk.put           (larger)
//	           └ control.propose ── grid control.propose ═ grid control.propose ── raft.commit
//
// What nobody has asked for begins traces of its own, which the sampler may leave
// out: a batch of copies (heal.copy), of checks (heal.check) and of the scrub's
// (scrub.verify), by drive, with the calls that it makes.
//
// Followers' appends have no spans, and no links. One append carries the entries of
// many requests, and one request may wait for several appends; links in either
// direction would be as many as there are requests, for what raft.commit shows of
// each: how long it has waited for a majority. How a follower does is in the metrics
// of raft, whether a request is sampled or not.
//
// Nothing of this is set where there is no collector.

// traceparent is the key of the grid's metadata that carries the context.
const traceparent = "traceparent"

// gridHooks is what the grid reports.
func (n *Node) gridHooks() grid.Hooks {
	hooks := grid.Hooks{Logger: n.log}
	if n.spans != nil {
		traceGrid(&hooks, n.spans, n.nodeName)
	}
	return hooks
}

// traceGrid has the calls between nodes belong to the trace of what they are for.
func traceGrid(hooks *grid.Hooks, spans *observability.Spans, name func(host string) string) {
	hooks.CallStart = func(ctx context.Context, call grid.CallInfo) context.Context {
		if !spans.Sampled(ctx) {
			return ctx
		}
		ctx, parent := spans.Call(ctx, "grid "+call.Name, name(call.Host))
		md := grid.Metadata{}
		maps.Copy(md, grid.MetadataFrom(ctx))
		md[traceparent] = parent
		return grid.WithMetadata(ctx, md)
	}
	hooks.CallEnd = func(ctx context.Context, _ grid.CallInfo, result grid.CallResult) {
		spans.End(ctx, result.Err)
	}
	hooks.ServeStart = func(ctx context.Context, call grid.CallInfo) context.Context {
		parent := grid.MetadataFrom(ctx)[traceparent]
		if parent == "" {
			return ctx
		}
		return spans.Serve(ctx, parent, "grid "+call.Name, name(call.Host))
	}
	hooks.ServeEnd = func(ctx context.Context, _ grid.CallInfo, result grid.CallResult) {
		spans.End(ctx, result.Err)
	}
}

// spanHook is how the parts begin spans; nil: they make none.
func (n *Node) spanHook() func(ctx context.Context, name string) (context.Context, func(error)) {
	if n.spans == nil {
		return nil
	}
	return func(ctx context.Context, name string) (context.Context, func(error)) {
		return n.spans.Start(ctx, name, "")
	}
}

// objectHooks is what the payload service reports, for metrics and traces.
func (n *Node) objectHooks() object.Hooks {
	hooks := n.instruments.objectHooks()
	if n.spans != nil {
		hooks.Span = n.spans.Start
		hooks.Traceparent = observability.Traceparent
		hooks.Serve = func(ctx context.Context, parent, name, from string) (context.Context, func(error)) {
			ctx = n.spans.Serve(ctx, parent, name, from)
			return ctx, func(err error) { n.spans.End(ctx, err) }
		}
	}
	return hooks
}

// tracedIndex is the index with a span for every question and command.
type tracedIndex struct {
	*control.Control
	spans *observability.Spans
}

// Propose implements control.Index.
func (i *tracedIndex) Propose(ctx context.Context, cmd *control.Command) (_ *control.Result, err error) {
	ctx, end := i.spans.Start(ctx, "control.propose", "")
	defer func() { end(err) }()
	return i.Control.Propose(ctx, cmd)
}

// Read implements control.Index.
func (i *tracedIndex) Read(ctx context.Context, q *control.Query) (_ *control.Answer, err error) {
	ctx, end := i.spans.Start(ctx, "control.read", "")
	defer func() { end(err) }()
	return i.Control.Read(ctx, q)
}

// index is what objects ask.
func (n *Node) index() control.Index {
	if n.spans == nil {
		return n.control
	}
	return &tracedIndex{n.control, n.spans}
}
