package grid_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"unicode"

	"github.com/gridloom/gridloom/grid"
)

func observeCases() []conformance {
	return []conformance{
		{name: "21 hooks see calls, handlers, panics and sessions", prepare: hooksSee},
		{name: "21 metadata travels with a call", run: metadata},
		{name: "21 Stats counts", run: stats},
		{name: "21 the log tells of sessions and refusals", on: memory, prepare: logs},
	}
}

func hooksSee() (func(int, *grid.ManagerOptions), func(b *bed)) {
	type key struct{}
	var mu sync.Mutex
	seen := map[string]int{}
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		seen[what]++
	}
	change := func(i int, o *grid.ManagerOptions) {
		o.Hooks = grid.Hooks{
			SessionUp:   func(grid.SessionInfo) { note("up") },
			SessionDown: func(grid.SessionInfo, error) { note("down") },
			CallStart: func(ctx context.Context, c grid.CallInfo) context.Context {
				note("call " + c.Name)
				return grid.WithMetadata(ctx, grid.Metadata{"traceparent": "T"})
			},
			CallEnd: func(_ context.Context, c grid.CallInfo, r grid.CallResult) { note("called " + c.Name) },
			ServeStart: func(ctx context.Context, c grid.CallInfo) context.Context {
				note("serve " + c.Name + " " + grid.MetadataFrom(ctx)["traceparent"])
				return context.WithValue(ctx, key{}, "v")
			},
			ServeEnd:     func(_ context.Context, c grid.CallInfo, r grid.CallResult) { note("served " + c.Name) },
			HandlerPanic: func(grid.CallInfo, any, []byte) { note("panic") },
		}
	}
	return change, func(b *bed) {
		b.serve(0, grid.Handler{ID: otherID, Name: "other"}, grid.Handler{ID: floodID, Name: "flood"})
		b.serve(1, grid.Handler{ID: otherID, Name: "other", Single: func(ctx context.Context, _ []byte) ([]byte, error) {
			if ctx.Value(key{}) != "v" {
				b.t.Error("the handler has not the hook's context")
			}
			panic("x")
		}}, grid.Handler{ID: floodID, Name: "flood", Stream: &grid.StreamHandler{OutCapacity: 1,
			Pull: func(context.Context, []byte, *grid.Pipe) error { return nil }}})
		<-b.call(b.ctx, otherID, nil)
		drain(b.open(b.ctx, floodID, nil))
		b.Reset(0, 1)
		b.until("all was seen", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, what := range []string{"up", "down", "call other", "called other", "serve other T", "served other", "panic",
				"call flood", "called flood", "serve flood T", "served flood"} {
				if seen[what] == 0 {
					return false
				}
			}
			return seen["called other"] == 1 && seen["called flood"] == 1
		})
	}
}

func metadata(b *bed) {
	for i := range 2 {
		b.serve(i, single(echoID, func(ctx context.Context, _ []byte) ([]byte, error) {
			return []byte(grid.MetadataFrom(ctx)["traceparent"] + grid.MetadataFrom(ctx)["tenant"]), nil
		}), pull(floodID, 0, 1, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			return p.Send(ctx, []byte(grid.MetadataFrom(ctx)["traceparent"]))
		}))
	}
	traced := grid.WithMetadata(b.ctx, grid.Metadata{"traceparent": "00-ab-cd-01", "tenant": "t"})
	for j := range 2 {
		resp, err := b.Connection(0, j).Request(traced, echoID, make([]byte, j*50_000))
		if err != nil || string(resp) != "00-ab-cd-01t" {
			b.t.Errorf("got %q, %v", resp, err)
		}
		if resp, err := b.Connection(0, j).Request(b.ctx, echoID, nil); err != nil || len(resp) > 0 {
			b.t.Errorf("without metadata: %q, %v", resp, err)
		}
		p, err := b.Connection(0, j).OpenPipe(traced, floodID, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		if msg, err := p.Recv(b.ctx); err != nil || string(msg) != "00-ab-cd-01" {
			b.t.Errorf("stream: %q, %v", msg, err)
		}
		p.Cancel()
	}
}

func stats(b *bed) {
	h, entered, _ := blocking()
	b.serve(1, h, echo())
	ctx, cancel := context.WithCancel(b.ctx)
	errs := b.call(ctx, blockID, nil)
	<-entered
	near, far := b.Connection(0, 1).Stats(), b.Connection(1, 0).Stats()
	if near.CallsOut != 1 || far.CallsIn != 1 || near.State != grid.StateConnected || near.Sessions != 1 || near.Host != b.Name(1) || near.ConnectedAt.IsZero() {
		b.t.Errorf("near %+v\nfar %+v", near, far)
	}
	cancel()
	<-errs
	wantIs(b.t, "Request", <-b.call(b.ctx, echoID, make([]byte, 50_000)), nil)
	b.until("the counters have it", func() bool {
		near, far := b.Connection(0, 1).Stats(), b.Connection(1, 0).Stats()
		return near.BytesOut > 50_000 && near.BytesIn > 50_000 && far.BytesIn > 50_000 && near.MessagesOut >= 2 && near.MessagesIn >= 1 &&
			far.MessagesIn >= 2 && near.BatchesOut > 0 && near.CallsOut == 0 && far.CallsIn == 0 && near.QueuedBytes == 0 && near.RTT >= 0
	})
	b.Reset(0, 1)
	b.until("the loss is in it", func() bool { return b.Connection(0, 1).Stats().LastError != nil })
	b.until("the reconnect is in it", func() bool { return b.Connection(0, 1).Stats().Sessions == 2 })
	if all := b.Node(0).Stats(); len(all) != 2 {
		b.t.Errorf("%d connections", len(all))
	}
}

func logs() (func(int, *grid.ManagerOptions), func(b *bed)) {
	var mu sync.Mutex
	var text bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	})
	change := func(i int, o *grid.ManagerOptions) { o.Hooks.Logger = slog.New(slog.NewTextHandler(w, nil)) }
	return change, func(b *bed) {
		b.Cut(0, 1)
		b.settle()
		b.until("it was dialled again and again", func() bool {
			return b.Node(0).Connection(b.Name(1)).Stats().DialAttempts+b.Node(1).Connection(b.Name(0)).Stats().DialAttempts > 5
		})
		mu.Lock()
		defer mu.Unlock()
		for _, want := range []string{"session up", "session down", b.Name(1)} {
			if !strings.Contains(text.String(), want) {
				b.t.Errorf("the log does not tell %q:\n%s", want, &text)
			}
		}
		said := map[string]string{} // of each host since it was connected, without numbers
		for line := range strings.Lines(text.String()) {
			_, rest, _ := strings.Cut(line, "host=")
			host, _, _ := strings.Cut(rest, " ")
			if strings.Contains(line, "session up") {
				delete(said, host)
			}
			if !strings.Contains(line, "dial failed") {
				continue
			}
			reason := strings.Map(func(r rune) rune {
				if unicode.IsDigit(r) {
					return -1
				}
				return r
			}, rest)
			if said[host] == reason {
				b.t.Errorf("the log tells again why %s isn't reached:\n%s", host, &text)
			}
			said[host] = reason
		}
		if len(said) != 1 {
			b.t.Errorf("the log tells of %d hosts that aren't reached:\n%s", len(said), &text)
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
