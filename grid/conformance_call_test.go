package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func sessionCases() []conformance {
	cases := []conformance{
		{name: "01 no answer crosses a restart", run: nothingCrossesARestart},
		{name: "01 what was queued for a dead session is never executed", slow: true, run: queuedDies},
		{name: "03 late frames of one direction touch no call of the other", run: disjointIDs},
	}
	for _, fault := range []string{"reset", "stop", "restart"} {
		cases = append(cases, conformance{name: "01 a lost connection fails every call at once: " + fault, run: func(b *bed) { lostConnection(b, fault) }})
	}
	return cases
}

func callCases() []conformance {
	return []conformance{
		{name: "05 every kind of error survives the wire, and says where it was made", nodes: 3, run: errorsSurvive},
		{name: "06 nil, empty and non-empty are three things", run: nilAndEmpty},
		{name: "07 a panic is a remote error, the connection lives", run: panics},
		{name: "07 unknown handlers and wrong kinds are clear errors, the connection lives", run: wrongHandlers},
		{name: "07 a message over the limit is a clear error, the connection lives", change: maxMessage(100_000), run: tooLarge},
		{name: "08 cancelling reaches the handler of a single request", run: cancelReachesHandler},
		{name: "08 the slot stays taken until the handler returns", run: rapidReset},
		{name: "08 a queued call that is cancelled is never sent", slow: true, run: queuedIsUnlinked},
		{name: "08 large calls given up in the middle do no harm", slow: true, change: tightBudget, run: cancelledInTheMiddle},
		{name: "08 queue time is deducted from the deadline", on: memory | plain, slow: true, run: queueTimeCounts},
	}
}

func lostConnection(b *bed, fault string) {
	h, entered, left := blocking()
	b.serve(1, h)
	calls := []<-chan error{b.call(b.ctx, blockID, nil), b.call(b.ctx, blockID, nil), b.call(b.ctx, blockID, nil)}
	for range calls {
		<-entered
	}
	start := time.Now()
	switch fault {
	case "reset":
		b.Reset(0, 1)
	case "stop":
		b.Stop(1)
	case "restart":
		b.Restart(1)
	}
	for _, call := range calls {
		err := <-call
		wantIs(b.t, "Request", err, grid.ErrDisconnected)
		wantNotExecuted(b.t, "an entered call", err, false)
		wantIs(b.t, "handler", <-left, context.Canceled)
	}
	if took := time.Since(start); b.virtual && took != 0 {
		b.t.Errorf("took %v of virtual time", took)
	}
	if fault == "stop" {
		return
	}
	if err := b.WaitConnected(b.ctx); err != nil { // the dialling side has reconnected
		b.t.Fatal(err)
	}
}

// nothingCrossesARestart makes calls while the peer restarts again and again:
// an answer must be the answer to its own request.
func nothingCrossesARestart(b *bed) {
	var ok atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				req := []byte{byte(worker), byte(i), byte(i >> 8)}
				resp, err := b.Connection(0, 1).Request(b.ctx, echoID, req)
				if err == nil && !bytes.Equal(resp, req) {
					b.t.Errorf("asked %v, got %v", req, resp)
				}
				if err == nil {
					ok.Add(1)
				}
			}
		})
	}
	for range 3 {
		b.serve(1, echo())
		before := ok.Load()
		b.until("calls go through", func() bool { return ok.Load() > before+3 })
		b.Restart(1)
	}
	close(stop)
	wg.Wait()
}

// queuedDies fills the queue of a link that takes nothing, and breaks it: none
// of the calls may turn up on the next session.
func queuedDies(b *bed) {
	var executed atomic.Int64
	b.serve(1, single(otherID, func(context.Context, []byte) ([]byte, error) { executed.Add(1); return nil, nil }))
	b.Blackhole(0, 1)
	calls := b.jam(b.ctx, otherID)
	b.Reset(0, 1)
	provably := 0
	for _, call := range calls {
		err := <-call
		wantIs(b.t, "Request", err, grid.ErrDisconnected)
		if grid.NotExecuted(err) {
			provably++
		}
	}
	b.Heal(0, 1)
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	b.settle()
	if n := executed.Load(); int(n) > len(calls)-provably {
		b.t.Errorf("%d calls were executed, %d of %d provably not", n, provably, len(calls))
	}
	if provably == 0 {
		b.t.Error("none of the queued calls is known not to have been executed")
	}
}

// disjointIDs has both ends call and cancel with the same indexes at once.
func disjointIDs(b *bed) {
	for i := range 2 {
		b.serve(i, echo(), echoPull(floodID, 2, 2))
	}
	var wg sync.WaitGroup
	for i := range 2 {
		c := b.Connection(i, 1-i)
		for worker := range 4 {
			wg.Go(func() {
				for n := range 30 {
					short, cancel := context.WithCancel(b.ctx)
					if (n+worker)%2 == 0 {
						go cancel()
						_, _ = c.Request(short, echoID, make([]byte, 20_000))
						cancel()
						continue
					}
					req := []byte{byte(i), byte(worker), byte(n)}
					if resp, err := c.Request(b.ctx, echoID, req); err != nil || !bytes.Equal(req, resp) {
						b.t.Errorf("%v: got %v, %v", req, resp, err)
					}
					if p, err := c.OpenPipe(short, floodID, nil); err != nil {
						b.t.Error(err)
					} else if err := p.Send(short, req); err != nil {
						b.t.Error(err)
					} else if msg, err := p.Recv(short); err != nil || !bytes.Equal(msg, req) {
						b.t.Errorf("%v: got %v, %v", req, msg, err)
					}
					cancel()
				}
			})
		}
	}
	wg.Wait()
}

// errorsSurvive lets a handler fail with each kind of error, and relay what
// its own calls failed with.
func errorsSurvive(b *bed) {
	fails := map[string]error{
		"disconnected": grid.ErrDisconnected, "unknown host": grid.ErrUnknownHost, "unknown handler": grid.ErrUnknownHandler,
		"too large": grid.ErrTooLarge, "overloaded": grid.ErrOverloaded, "remote": &grid.RemoteError{Code: 42, Message: "no way"},
		"plain": errors.New("plainly not"), "cancelled": context.Canceled, "deadline": context.DeadlineExceeded,
	}
	b.serve(1, single(otherID, func(_ context.Context, req []byte) ([]byte, error) {
		return nil, fmt.Errorf("handling: %w", fails[string(req)])
	}))
	for _, kind := range []string{"disconnected", "unknown host", "unknown handler", "too large", "overloaded"} {
		err := <-b.call(b.ctx, otherID, []byte(kind))
		wantIs(b.t, kind, err, fails[kind])
		wantNotExecuted(b.t, kind, err, false) // the handler ran
		if !grid.IsRemote(err) {
			b.t.Errorf("%s is not remote: %v", kind, err)
		}
	}
	err := <-b.call(b.ctx, otherID, []byte("remote"))
	wantCode(b.t, "remote", err, 42)
	var remote *grid.RemoteError
	if errors.As(err, &remote) && remote.Message != "no way" {
		b.t.Errorf("the text is %q", remote.Message)
	}
	wantCode(b.t, "plain", <-b.call(b.ctx, otherID, []byte("plain")), grid.CodeUnspecified)
	wantCode(b.t, "cancelled", <-b.call(b.ctx, otherID, []byte("cancelled")), grid.CodeCanceled)
	err = <-b.call(b.ctx, otherID, []byte("deadline"))
	wantCode(b.t, "deadline", err, grid.CodeDeadline)
	if errors.Is(err, context.DeadlineExceeded) {
		b.t.Error("the handler's deadline looks like the caller's own")
	}
	// A relay: node 1 asks node 2, which is overloaded, and passes that on.
	h, entered, _ := blocking()
	h.MaxConcurrent = 1
	b.serve(2, h)
	b.serve(1, single(relayID, func(ctx context.Context, req []byte) ([]byte, error) {
		return b.Connection(1, 2).Request(ctx, blockID, req)
	}))
	ctx, cancel := context.WithCancel(b.ctx)
	first := b.call(ctx, relayID, nil)
	<-entered
	err = <-b.call(b.ctx, relayID, nil)
	wantIs(b.t, "relayed", err, grid.ErrOverloaded)
	wantNotExecuted(b.t, "relayed", err, false) // the relay itself ran
	if retry, ok := grid.RetryAfter(err); !ok || retry <= 0 {
		b.t.Errorf("the retry-after was lost: %v", retry)
	}
	cancel()
	<-first
	var local *grid.Error
	if err := <-b.call(ctx, relayID, nil); !errors.As(err, &local) || local.Remote || local.Op != "request" || local.Host != b.Name(1) || local.Handler != relayID {
		b.t.Errorf("a local failure is %#v", err)
	}
}

func nilAndEmpty(b *bed) {
	b.serve(1, single(otherID, func(_ context.Context, req []byte) ([]byte, error) {
		switch {
		case req == nil:
			return []byte{}, nil
		case len(req) == 0:
			return []byte("empty"), nil
		}
		return nil, nil
	}), pull(floodID, 4, 4, func(ctx context.Context, payload []byte, p *grid.Pipe) error {
		if err := p.Send(ctx, payload); err != nil {
			return err
		}
		for {
			msg, err := p.Recv(ctx)
			if err != nil {
				return unlessEnd(err)
			}
			if err := p.Send(ctx, msg); err != nil {
				return err
			}
		}
	}))
	c := b.Connection(0, 1)
	if resp, err := c.Request(b.ctx, otherID, nil); err != nil || resp == nil || len(resp) > 0 {
		b.t.Errorf("nil: %v, %v", resp, err)
	}
	if resp, err := c.Request(b.ctx, otherID, []byte{}); err != nil || string(resp) != "empty" {
		b.t.Errorf("empty: %v, %v", resp, err)
	}
	if resp, err := c.Request(b.ctx, otherID, []byte("x")); err != nil || resp != nil {
		b.t.Errorf("x: %v, %v", resp, err)
	}
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	for _, open := range [][]byte{nil, {}, []byte("x")} {
		p := b.openPipe(b.ctx, floodID, open)
		if msg, err := p.Recv(b.ctx); err != nil || !same(msg, open) {
			b.t.Errorf("opened with %#v, got %#v, %v", open, msg, err)
		}
		for _, send := range [][]byte{nil, {}, []byte("x")} {
			if err := p.Send(b.ctx, send); err != nil {
				b.t.Error(err)
			}
			if msg, err := p.Recv(b.ctx); err != nil || !same(msg, send) {
				b.t.Errorf("sent %#v, got %#v, %v", send, msg, err)
			}
		}
		p.Cancel()
	}
}

func panics(b *bed) {
	inline := single(otherID, func(context.Context, []byte) ([]byte, error) { panic("in the reader") })
	inline.Inline = true
	b.serve(1, echo(), inline,
		single(blockID, func(context.Context, []byte) ([]byte, error) { panic("oops") }),
		channels(sinkID, 1, 1, func(context.Context, []byte, <-chan []byte, chan<- []byte) error { panic("oops") }),
		pull(floodID, 1, 1, func(context.Context, []byte, *grid.Pipe) error { panic(nil) }))
	wantCode(b.t, "single", <-b.call(b.ctx, blockID, nil), grid.CodePanic)
	wantCode(b.t, "inline", <-b.call(b.ctx, otherID, nil), grid.CodePanic)
	st := b.open(b.ctx, sinkID, nil)
	_, err := drain(st)
	wantCode(b.t, "channels", err, grid.CodePanic)
	close(st.Requests)
	_, err = b.openPipe(b.ctx, floodID, nil).Recv(b.ctx)
	wantCode(b.t, "pull", err, grid.CodePanic)
	wantIs(b.t, "afterwards", <-b.call(b.ctx, echoID, nil), nil)
	if b.Connection(0, 1).Stats().Sessions != 1 {
		b.t.Error("the connection has not lived through it")
	}
}

func wrongHandlers(b *bed) {
	b.serve(1, echo(), echoPull(floodID, 1, 1))
	for _, h := range []grid.HandlerID{0, 999, floodID, 1<<16 - 1} {
		err := <-b.call(b.ctx, h, nil)
		wantIs(b.t, "Request", err, grid.ErrUnknownHandler)
		wantNotExecuted(b.t, "Request", err, true)
		if !grid.IsRemote(err) {
			b.t.Errorf("not remote: %v", err)
		}
	}
	for _, size := range []int{20_000, 1 << 20} { // in chunks: the rest of them must not confuse anybody
		wantIs(b.t, "a large one", <-b.call(b.ctx, 999, make([]byte, size)), grid.ErrUnknownHandler)
	}
	_, err := b.Connection(0, 1).OpenPipe(b.ctx, echoID, nil)
	wantIs(b.t, "OpenPipe", err, grid.ErrUnknownHandler)
	wantIs(b.t, "afterwards", <-b.call(b.ctx, echoID, nil), nil)
	if b.Connection(0, 1).Stats().Sessions != 1 {
		b.t.Error("the connection has not lived through it")
	}
}

func tooLarge(b *bed) {
	b.serve(1, echo(), single(otherID, func(context.Context, []byte) ([]byte, error) { return make([]byte, 100_001), nil }))
	err := <-b.call(b.ctx, echoID, make([]byte, 100_001))
	wantIs(b.t, "request", err, grid.ErrTooLarge)
	wantNotExecuted(b.t, "request", err, true)
	err = <-b.call(b.ctx, otherID, nil)
	wantIs(b.t, "answer", err, grid.ErrTooLarge)
	if !grid.IsRemote(err) {
		b.t.Error("the answer's failure is not remote")
	}
	_, err = b.Connection(0, 1).OpenPipe(b.ctx, floodID, make([]byte, 100_001))
	wantIs(b.t, "opening", err, grid.ErrTooLarge)
	_, err = b.Connection(0, 1).Request(grid.WithMetadata(b.ctx, grid.Metadata{"k": string(make([]byte, 5000))}), echoID, nil)
	wantIs(b.t, "metadata", err, grid.ErrTooLarge)
	wantIs(b.t, "as large as may be", <-b.call(b.ctx, echoID, make([]byte, 100_000)), nil)
	if b.Connection(0, 1).Stats().Sessions != 1 {
		b.t.Error("the connection has not lived through it")
	}
}

func cancelReachesHandler(b *bed) {
	h, entered, left := blocking()
	b.serve(1, h)
	for _, size := range []int{0, 1000, 100_000} {
		ctx, cancel := context.WithCancel(b.ctx)
		errs := b.call(ctx, blockID, make([]byte, size))
		<-entered
		start := time.Now()
		cancel()
		wantIs(b.t, "handler", <-left, context.Canceled)
		if took := time.Since(start); b.virtual && took != 0 {
			b.t.Errorf("took %v of virtual time", took)
		}
		wantIs(b.t, "Request", <-errs, context.Canceled)
	}
	short, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
	defer cancel()
	wantIs(b.t, "Request", <-b.call(short, blockID, nil), context.DeadlineExceeded)
	<-entered
	<-left
}

func rapidReset(b *bed) {
	stop, entered := make(chan struct{}), make(chan struct{}, 100)
	b.serve(1, grid.Handler{ID: blockID, MaxConcurrent: 2, Single: func(context.Context, []byte) ([]byte, error) {
		entered <- struct{}{}
		<-stop // ignores its context
		return nil, nil
	}})
	for range 2 {
		ctx, cancel := context.WithCancel(b.ctx)
		errs := b.call(ctx, blockID, nil)
		<-entered
		cancel()
		wantIs(b.t, "Request", <-errs, context.Canceled)
	}
	for range 10 {
		wantIs(b.t, "beyond the limit", <-b.call(b.ctx, blockID, nil), grid.ErrOverloaded)
	}
	close(stop)
	b.until("the slots are free", func() bool { return b.Connection(1, 0).Stats().CallsIn == 0 })
	wantIs(b.t, "afterwards", <-b.call(b.ctx, blockID, nil), nil)
}

func queuedIsUnlinked(b *bed) {
	var executed atomic.Int64
	b.serve(1, single(otherID, func(_ context.Context, req []byte) ([]byte, error) {
		if len(req) == 1 {
			executed.Add(1)
		}
		return nil, nil
	}))
	b.Blackhole(0, 1)
	ahead, cancelAhead := context.WithCancel(b.ctx)
	calls := b.jam(ahead, otherID)
	ctx, cancel := context.WithCancel(b.ctx)
	one := b.call(ctx, otherID, []byte("1"))
	b.until("it is queued", func() bool { return b.Connection(0, 1).Stats().CallsOut == len(calls)+1 })
	cancel()
	err := <-one
	wantIs(b.t, "Request", err, context.Canceled)
	wantNotExecuted(b.t, "a call that was queued", err, true)
	cancelAhead()
	for _, call := range calls {
		wantIs(b.t, "the calls ahead", <-call, context.Canceled)
	}
	b.Heal(0, 1)
	wantIs(b.t, "afterwards", <-b.call(b.ctx, otherID, nil), nil)
	b.settle()
	if executed.Load() != 0 {
		b.t.Error("a call was executed that had been cancelled in the queue")
	}
}

// tightBudget lets one large message be under way at a time.
func tightBudget(_ int, o *grid.ManagerOptions) {
	o.MaxMessage, o.ReassemblyBudget = 400_000, 400_000
}

func cancelledInTheMiddle(b *bed) {
	b.serve(1, echo())
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			req := bytes.Repeat([]byte{byte(worker)}, 300_000)
			for i := range 8 {
				ctx, cancel := context.WithCancel(b.ctx)
				if i%3 != 0 {
					time.AfterFunc(time.Duration(i*worker)*100*time.Microsecond, cancel)
				}
				resp, err := b.Connection(0, 1).Request(ctx, echoID, req)
				if err == nil && !bytes.Equal(req, resp) || err != nil && ctx.Err() == nil {
					b.t.Errorf("got %d, %v", len(resp), err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if b.Connection(0, 1).Stats().Sessions != 1 {
		b.t.Errorf("the connection has not lived through it: %v", b.Connection(0, 1).Stats().LastError)
	}
}

func queueTimeCounts(b *bed) {
	got := make(chan time.Duration, 1)
	b.serve(1, single(otherID, func(context.Context, []byte) ([]byte, error) { return nil, nil }),
		single(echoID, func(ctx context.Context, _ []byte) ([]byte, error) {
			deadline, _ := ctx.Deadline()
			got <- time.Until(deadline)
			return nil, nil
		}))
	b.Blackhole(0, 1)
	calls := b.jam(b.ctx, otherID)
	const held = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(b.ctx, 15*time.Second)
	defer cancel()
	last := b.call(ctx, echoID, nil)
	b.until("it is queued", func() bool { return b.Connection(0, 1).Stats().CallsOut == len(calls)+1 })
	b.pass(held)
	b.Heal(0, 1)
	if d := <-got; d > 15*time.Second-held {
		b.t.Errorf("%v remained of 15 s after %v in the queue", d, held)
	}
	wantIs(b.t, "Request", <-last, nil)
	for _, call := range calls {
		wantIs(b.t, "the calls ahead", <-call, nil)
	}
}
