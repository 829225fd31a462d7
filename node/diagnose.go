package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

const (
	// lookEvery is how late who watches may learn of what was lost.
	lookEvery = time.Second
)

// diagnostics shows what the nodes are doing: this one from memory, the others by
// a stream of the grid each. What comes is handed on one at a time; while nobody
// takes it, it waits in the streams' windows, and then in the queues at the nodes
// where it comes from, which lose what is too much and count it.
type diagnostics struct {
	self  string
	urls  func() map[string]string
	grid  *grid.Manager
	calls *observability.Calls
	lines *observability.Lines

	ending context.Context // ends what is shown to other nodes, which would hold up a stop
}

// until ends a stream of another node's with this one.
func (d *diagnostics) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.ending, cancel)
	return ctx, func() { stop(); cancel() }
}

// showing is for as long as other nodes are shown what happens here: until Close.
func (n *Node) showing() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	n.onClose(func() error { cancel(); return nil })
	return ctx
}

// register serves the other nodes.
func (d *diagnostics) register() error {
	err := callsStream.Register(d.grid, 0, shownAhead, func(ctx context.Context, open *callsOpening, p *grid.TypedPipe[shownCall, nothing, *shownCall, *nothing]) error {
		ctx, end := d.until(ctx)
		defer end()
		f := &api.CallFilter{APIs: open.APIs, Statuses: open.Statuses, MinDuration: time.Duration(open.MinDurationNS)}
		return control.ToWire(d.ownCalls(ctx, f, func(c *observability.Call, dropped int64) error { return p.Send(ctx, shownOf(c, dropped)) }))
	})
	if err != nil {
		return err
	}
	return logsStream.Register(d.grid, 0, shownAhead, func(ctx context.Context, open *logsOpening, p *grid.TypedPipe[shownLine, nothing, *shownLine, *nothing]) error {
		ctx, end := d.until(ctx)
		defer end()
		f := &api.LogFilter{Level: slog.Level(open.Level), Tail: min(max(open.Tail, 0), observability.MaxLines), Follow: open.Follow}
		return control.ToWire(d.ownLines(ctx, f, func(l *observability.Line, dropped int64) error { return p.Send(ctx, shownLineOf(l, dropped)) }))
	})
}

// tooMany refuses one more who watches.
func (d *diagnostics) tooMany() error {
	return fault.New(fault.Overloaded, "node "+d.self, "%d are watching it already", observability.MaxWatches)
}

// ownCalls gives the calls of this node. The first is nil, and says that it has
// begun.
func (d *diagnostics) ownCalls(ctx context.Context, f *api.CallFilter, give func(c *observability.Call, dropped int64) error) error {
	w := d.calls.Watch(f.Fits)
	if w == nil {
		return d.tooMany()
	}
	defer w.Close()
	return pass(ctx, w.C(), w.Dropped, give)
}

// ownLines gives the lines of this node's log, the same way.
func (d *diagnostics) ownLines(ctx context.Context, f *api.LogFilter, give func(l *observability.Line, dropped int64) error) error {
	var last []observability.Line
	var w *observability.LineWatch
	if f.Follow {
		if last, w = d.lines.Follow(f.Level, f.Tail); w == nil {
			return d.tooMany()
		}
		defer w.Close()
	} else {
		last = d.lines.Last(f.Level, f.Tail)
	}
	for i := range last {
		if err := give(&last[i], 0); err != nil {
			return err
		}
	}
	if !f.Follow {
		return nil
	}
	return pass(ctx, w.C(), w.Dropped, give)
}

// pass gives what comes, until ctx ends or give fails: at first nil, and nil again
// where something was lost and nothing comes that could say so.
func pass[T any](ctx context.Context, from <-chan *T, dropped func() uint64, give func(v *T, dropped int64) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for v := (*T)(nil); ; {
		lost := dropped()
		if err := give(v, int64(lost)); err != nil {
			return err
		}
		for v = nil; v == nil && dropped() == lost; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case v = <-from:
			case <-tick.C:
			}
		}
	}
}

// chosen gives the nodes that a filter names: those that there are when it is called.
func (d *diagnostics) chosen(node string) (func() []string, error) {
	all := func() []string { return sortedKeys(d.urls()) }
	switch {
	case node == "":
		return all, nil
	case node == "local":
		node = d.self
	case !slices.Contains(all(), node):
		return nil, fault.New(fault.InvalidArgument, "node", "%q is no node of this mesh", node)
	}
	return func() []string { return []string{node} }, nil
}

// WatchCalls implements api.Diagnostics.
func (d *diagnostics) WatchCalls(ctx context.Context, f api.CallFilter, send func(api.CallEvent) error) error {
	names, err := d.chosen(f.Node)
	if err != nil {
		return err
	}
	ask := func(ctx context.Context, name string, give func(api.CallEvent) error) error {
		if name == d.self {
			return d.ownCalls(ctx, &f, func(c *observability.Call, dropped int64) error {
				return give(api.CallEvent{Node: name, Call: c, Dropped: dropped})
			})
		}
		p, err := callsStream.Open(ctx, d.conn(name), &callsOpening{APIs: f.APIs, Statuses: f.Statuses, MinDurationNS: int64(f.MinDuration)})
		if err != nil {
			return err
		}
		defer p.Cancel()
		return takeAll(ctx, p.Recv, func(m *shownCall) error {
			return give(api.CallEvent{Node: name, Call: m.call(), Dropped: m.Dropped})
		})
	}
	return gather(ctx, names, true, ask, func(name string, err error) api.CallEvent { return api.CallEvent{Node: name, Err: err.Error()} }, send)
}

// WatchLogs implements api.Diagnostics.
func (d *diagnostics) WatchLogs(ctx context.Context, f api.LogFilter, send func(api.LogEvent) error) error {
	names, err := d.chosen(f.Node)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	begun := map[string]bool{} // what was shown before a node was lost isn't shown again
	ask := func(ctx context.Context, name string, give func(api.LogEvent) error) error {
		f := f
		mu.Lock()
		if begun[name] {
			f.Tail = 0
		}
		mu.Unlock()
		start := func() {
			mu.Lock()
			begun[name] = true
			mu.Unlock()
		}
		if name == d.self {
			start()
			return d.ownLines(ctx, &f, func(l *observability.Line, dropped int64) error {
				return give(api.LogEvent{Node: name, Line: l, Dropped: dropped})
			})
		}
		p, err := logsStream.Open(ctx, d.conn(name), &logsOpening{Level: int(f.Level), Tail: f.Tail, Follow: f.Follow})
		if err != nil {
			return err
		}
		defer p.Cancel()
		return takeAll(ctx, p.Recv, func(m *shownLine) error {
			start()
			return give(api.LogEvent{Node: name, Line: m.line(), Dropped: m.Dropped})
		})
	}
	return gather(ctx, names, f.Follow, ask, func(name string, err error) api.LogEvent { return api.LogEvent{Node: name, Err: err.Error()} }, send)
}

// takeAll takes what a stream brings, until it or take ends.
func takeAll[M any](ctx context.Context, next func(context.Context) (M, error), take func(M) error) error {
	for {
		m, err := next(ctx)
		if err != nil {
			return err
		}
		if err := take(m); err != nil {
			return err
		}
	}
}

func (d *diagnostics) conn(name string) *grid.Connection { return d.grid.Connection(d.urls()[name]) }

// told is why a node shows no more, in its own words where it is another.
func told(err error) error {
	var fe *fault.Error
	if errors.As(err, &fe) {
		return err
	}
	return control.FromWire(err)
}

func shownOf(c *observability.Call, dropped int64) *shownCall {
	if c == nil {
		return &shownCall{Dropped: dropped}
	}
	return &shownCall{
		Has: true, API: c.API, Proto: c.Proto, Method: c.Method, StartNS: c.Start.UnixNano(), TTFBNS: int64(c.TTFB), TookNS: int64(c.Duration),
		Status: c.Status, Class: c.Class, Kind: c.Kind, Received: c.Received, Sent: c.Sent,
		Bucket: c.Bucket, Key: c.Key, User: c.User, TraceID: c.TraceID, Dropped: dropped,
	}
}

func (m *shownCall) call() *observability.Call {
	if !m.Has {
		return nil
	}
	return &observability.Call{
		API: m.API, Proto: m.Proto, Method: m.Method, Start: time.Unix(0, m.StartNS), TTFB: time.Duration(m.TTFBNS), Duration: time.Duration(m.TookNS),
		Status: m.Status, Class: m.Class, Kind: m.Kind, Received: m.Received, Sent: m.Sent,
		Bucket: m.Bucket, Key: m.Key, User: m.User, TraceID: m.TraceID,
	}
}

func shownLineOf(l *observability.Line, dropped int64) *shownLine {
	if l == nil {
		return &shownLine{Dropped: dropped}
	}
	m := &shownLine{Has: true, TimeNS: l.Time.UnixNano(), Level: int(l.Level), Message: l.Message, Dropped: dropped}
	for _, a := range l.Attrs {
		m.Attrs = append(m.Attrs, shownWord(a))
	}
	return m
}

func (m *shownLine) line() *observability.Line {
	if !m.Has {
		return nil
	}
	l := &observability.Line{Time: time.Unix(0, m.TimeNS), Level: slog.Level(m.Level), Message: m.Message}
	for _, a := range m.Attrs {
		l.Attrs = append(l.Attrs, observability.LineAttr(a))
	}
	return l
}
