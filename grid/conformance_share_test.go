package grid_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gridloom/gridloom/grid"
)

// shareCases are about who goes first, in what company, and how that is seen.
func shareCases() []conformance {
	return []conformance{
		{name: "04 a debug mode poisons what was recycled", run: poisoned},
		{name: "14 what waits goes out by its class", on: memory | plain, slow: true, run: byClass},
		{name: "14 streams and bulk share by their weights", on: plain, slow: true, run: byWeight},
		{name: "16 what is ready shares a batch", run: batched},
		{name: "21 failed dials and refusals are reported", on: memory | plain, apart: true, prepare: failuresSeen},
		{name: "21 hooks get the size, the time and the error of a call", prepare: hookDetails},
		{name: "21 Stats tells what waits", on: memory | plain, slow: true, run: queueDepth},
		{name: "23 handlers have their names at both ends", prepare: handlerNames},
	}
}

// poisoned recycles messages that came in each way there is and looks at them
// all the same. Each has a length of its own, so that none is used again.
func poisoned(b *bed) {
	const request, answer, message = 40_000, 50_000, 60_000
	sevens := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	recycle := func(how string, msg []byte, size int) {
		if !bytes.Equal(msg, sevens(size)) {
			b.t.Errorf("%s: %d bytes, want %d", how, len(msg), size)
		}
		grid.Recycle(msg)
		want := sevens(len(msg))
		if grid.PoisonRecycled {
			want = bytes.Repeat([]byte{0xDB}, len(msg))
		}
		if !bytes.Equal(msg, want) {
			b.t.Errorf("%s: begins %x after Recycle, want %x", how, msg[:8], want[:8])
		}
	}
	b.serve(1, single(echoID, func(_ context.Context, req []byte) ([]byte, error) {
		recycle("a request", req, request)
		return sevens(answer), nil
	}), echoPull(floodID, 1, 1))
	req := sevens(request)
	resp, err := b.Connection(0, 1).Request(b.ctx, echoID, req)
	wantIs(b.t, "Request", err, nil)
	recycle("an answer", resp, answer)
	if !bytes.Equal(req, sevens(request)) {
		b.t.Error("the input was never the grid's to recycle")
	}
	p := b.openPipe(b.ctx, floodID, nil)
	wantIs(b.t, "Send", p.Send(b.ctx, sevens(message)), nil)
	msg, err := p.Recv(b.ctx)
	wantIs(b.t, "Recv", err, nil)
	p.Cancel()
	recycle("a stream's message", msg, message)
}

// byClass queues calls of all classes, the least urgent first, behind a link
// that holds everything back and many calls of bulk. They are answered by
// Inline handlers, so in the order in which they arrive.
func byClass(b *bed) {
	const first = otherID + 100
	var mu sync.Mutex
	var order []grid.Class
	for class := grid.ClassControl; class <= grid.ClassBulk; class++ {
		h := single(first+grid.HandlerID(class), func(context.Context, []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, class)
			return nil, nil
		})
		h.Class, h.Inline = class, true
		b.serve(1, h)
		b.serve(0, grid.Handler{ID: h.ID, Class: class})
	}
	b.Blackhole(0, 1)
	calls := b.jam(b.ctx, first+grid.HandlerID(grid.ClassBulk))
	queued := b.Connection(0, 1).Stats().CallsOut
	for class := grid.ClassBulk; class >= grid.ClassControl; class-- {
		for range 3 {
			calls = append(calls, b.call(b.ctx, first+grid.HandlerID(class), make([]byte, 10)))
			queued++
			b.until("it is queued", func() bool { return b.Connection(0, 1).Stats().CallsOut == queued })
		}
	}
	b.settle()
	b.Heal(0, 1)
	for _, call := range calls {
		wantIs(b.t, "Request", <-call, nil)
	}
	last := func(c grid.Class) int { return len(order) - 1 - slices.Index(reversed(order), c) }
	for class := grid.ClassControl; class < grid.ClassBulk; class++ {
		if last(class) > last(class+1) {
			b.t.Errorf("the last call of class %d came as number %d, that of class %d as number %d", class, last(class), class+1, last(class+1))
		}
	}
	if control, interactive := last(grid.ClassControl), slices.Index(order, grid.ClassInteractive); control > interactive {
		b.t.Errorf("control ended with number %d, interactive began with number %d", control, interactive)
	}
	if n := len(order) - last(grid.ClassInteractive); n < 5 {
		b.t.Errorf("only %d came after the last interactive call: nothing was overtaken", n)
	}
}

func reversed(s []grid.Class) []grid.Class {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// byWeight has a stream and a bulk transfer saturate a link that is slow.
func byWeight(b *bed) {
	flood := func(ctx context.Context, _ []byte, p *grid.Pipe) error {
		for msg := make([]byte, 10_000); ; {
			if err := p.Send(ctx, msg); err != nil {
				return nil
			}
		}
	}
	b.tcp.link(0, 1).set(func() { b.tcp.link(0, 1).slow = 4 << 10 })
	ctx, cancel := context.WithCancel(b.ctx)
	var moved [2]atomic.Int64
	var wg sync.WaitGroup
	for i, class := range []grid.Class{grid.ClassStream, grid.ClassBulk} {
		h := pull(floodID+grid.HandlerID(100+i), 0, 1000, flood)
		h.Class = class
		b.serve(1, h)
		p := b.openPipe(ctx, h.ID, nil)
		wg.Go(func() {
			for {
				msg, err := p.Recv(ctx)
				if err != nil {
					return
				}
				moved[i].Add(int64(len(msg)))
			}
		})
	}
	const settled, enough = 3 << 18, 2 << 20
	both := func() int64 { return moved[0].Load() + moved[1].Load() }
	b.until("both windows are full", func() bool { return both() > settled })
	stream, bulk := moved[0].Load(), moved[1].Load()
	b.until("enough has moved", func() bool { return both() > settled+enough })
	stream, bulk = moved[0].Load()-stream, moved[1].Load()-bulk
	cancel()
	wg.Wait()
	if ratio := float64(stream) / float64(bulk); !(ratio > 2 && ratio < 4.5) {
		b.t.Errorf("%d bytes of the stream beside %d of bulk: %.1f to 1, want about 3", stream, bulk, ratio)
	}
}

// batched counts the messages of a batch while many call at once.
func batched(b *bed) {
	const callers, each = 32, 10
	b.serve(1, echo())
	before := b.Connection(0, 1).Stats()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				wantIs(b.t, "Request", <-b.call(b.ctx, echoID, make([]byte, 100)), nil)
			}
		})
	}
	wg.Wait()
	// A batch is counted after it was written, when its answers may be here.
	b.until("every message is counted", func() bool {
		return b.Connection(0, 1).Stats().MessagesOut-before.MessagesOut >= callers*each
	})
	st := b.Connection(0, 1).Stats()
	messages, batches := st.MessagesOut-before.MessagesOut, st.BatchesOut-before.BatchesOut
	if messages < 2*batches {
		b.t.Errorf("%d messages in %d batches", messages, batches)
	}
}

func failuresSeen() (func(int, *grid.ManagerOptions), func(b *bed)) {
	var mu sync.Mutex
	failed, refused := map[string]error{}, map[string]error{}
	change := func(i int, o *grid.ManagerOptions) {
		o.Secrets = func() [][]byte { return [][]byte{bytes.Repeat([]byte{byte(i)}, 32)} }
		o.Hooks.DialFailed = func(host string, attempt uint64, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed[host] = err
		}
		o.Hooks.Refused = func(addr, claimed string, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused[claimed] = err
		}
	}
	return change, func(b *bed) {
		dialler, acceptor := b.Name(0), b.Name(1)
		if !b.Connection(0, 1).Stats().Dialler {
			dialler, acceptor = acceptor, dialler
		}
		b.until("both ends have told", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return failed[acceptor] != nil && refused[dialler] != nil
		})
	}
}

func hookDetails() (func(int, *grid.ManagerOptions), func(b *bed)) {
	type end struct {
		call   grid.CallInfo
		result grid.CallResult
	}
	ends := make(chan end, 10)
	change := func(i int, o *grid.ManagerOptions) {
		note := func(_ context.Context, c grid.CallInfo, r grid.CallResult) { ends <- end{c, r} }
		o.Hooks.CallEnd, o.Hooks.ServeEnd = note, note
	}
	return change, func(b *bed) {
		b.serve(1, echo(), single(otherID, func(context.Context, []byte) ([]byte, error) {
			return nil, &grid.RemoteError{Code: 9, Message: "no"}
		}))
		for _, id := range []grid.HandlerID{echoID, otherID} {
			err := <-b.call(b.ctx, id, make([]byte, 300))
			for range 2 {
				e := <-ends
				if e.call.Handler != id || e.call.Size != 300 || e.call.Stream || e.call.Class != grid.ClassInteractive || e.result.Duration < 0 {
					b.t.Errorf("%+v %+v", e.call, e.result)
				}
				switch {
				case id == echoID && (e.result.Err != nil || e.result.Size != 300):
					b.t.Errorf("an answer of %d bytes, %v", e.result.Size, e.result.Err)
				case id == otherID && e.result.Err == nil:
					b.t.Error("no error")
				}
			}
			if id == otherID {
				wantCode(b.t, "Request", err, 9)
			}
		}
	}
}

// queueDepth looks at what waits behind a link that holds everything back.
func queueDepth(b *bed) {
	b.serve(1, echo())
	b.Blackhole(0, 1)
	calls := b.jam(b.ctx, echoID)
	st := b.Connection(0, 1).Stats()
	if st.QueuedBytes < 150_000 || st.CallsOut != len(calls) {
		b.t.Errorf("%d bytes and %d calls wait, of %d", st.QueuedBytes, st.CallsOut, len(calls))
	}
	b.Heal(0, 1)
	for _, call := range calls {
		wantIs(b.t, "Request", <-call, nil)
	}
	b.until("nothing waits", func() bool {
		st := b.Connection(0, 1).Stats()
		return st.QueuedBytes == 0 && st.CallsOut == 0
	})
}

func handlerNames() (func(int, *grid.ManagerOptions), func(b *bed)) {
	var mu sync.Mutex
	names := map[string]int{}
	start := func(ctx context.Context, c grid.CallInfo) context.Context {
		mu.Lock()
		defer mu.Unlock()
		names[c.Name]++
		return ctx
	}
	change := func(i int, o *grid.ManagerOptions) { o.Hooks.CallStart, o.Hooks.ServeStart = start, start }
	return change, func(b *bed) {
		b.serve(0, grid.Handler{ID: echoID, Name: "kv.get"}, grid.Handler{ID: floodID, Name: "kv.watch"})
		get, watch := echo(), echoPull(floodID, 1, 1)
		get.Name, watch.Name = "kv.get", "kv.watch"
		b.serve(1, get, watch)
		if err := b.Node(1).Register(grid.Handler{ID: echoID, Name: "kv.put", Single: get.Single}); err == nil {
			b.t.Error("an id has a second owner")
		}
		wantIs(b.t, "Request", <-b.call(b.ctx, echoID, nil), nil)
		p := b.openPipe(b.ctx, floodID, nil)
		p.Cancel()
		b.until("both ends have told", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return names["kv.get"] == 2 && names["kv.watch"] == 2
		})
		if len(names) != 2 {
			b.t.Errorf("names %v", names)
		}
	}
}
