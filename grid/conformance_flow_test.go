package grid_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func flowCases() []conformance {
	return []conformance{
		{name: "12 the reader waits for no handler and no queue", run: readerNeverBlocks},
		{name: "13 a consumer that stops stalls its producer only", on: memory | plain, slow: true, run: slowConsumer},
		{name: "13 windows are in bytes too, and the receiver's", slow: true, change: smallWindow, run: byteWindows},
		{name: "13 requests beyond the reassembly budget wait, and all pass", slow: true, change: tightBudget, run: beyondReassembly},
		{name: "13 requests beyond the inbound budget are refused", change: smallInbound, run: inboundBudget},
		{name: "13 many streams opened at once are all accepted", slow: true, run: manyStreams},
		{name: "14 no class starves", on: sockets, slow: true, run: noStarvation},
		{name: "14 bulk holds up no small request", on: plain, slow: true, change: noProxy, run: besideBulk},
		{name: "15 queues are bounded in bytes, a producer waits on its context", slow: true, change: smallQueue, run: queueIsBounded},
		{name: "15 a producer waits on the session", change: smallQueue, run: producerDiesWithSession},
		{name: "16 pull and channels are two views of one stream", run: pullAndChannels},
	}
}

// readerNeverBlocks lets the reader of node 1 have every reason to wait, and
// still answer.
func readerNeverBlocks(b *bed) {
	h, entered, _ := blocking()
	stop := make(chan struct{})
	defer close(stop)
	b.serve(1, h, echo(),
		pull(sinkID, 1000, 1, func(ctx context.Context, _ []byte, _ *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }),
		channels(floodID, 1000, 1, func(ctx context.Context, _ []byte, _ <-chan []byte, _ chan<- []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}))
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _, _ = b.Connection(0, 1).Request(ctx, blockID, make([]byte, 1000)) })
	}
	for range 50 {
		<-entered
	}
	for _, id := range []grid.HandlerID{sinkID, floodID} {
		p := b.openPipe(ctx, id, nil)
		wg.Go(func() {
			for p.Send(ctx, make([]byte, 5000)) == nil {
			}
		})
	}
	for range 20 {
		wantIs(b.t, "a small request", <-b.call(b.ctx, echoID, make([]byte, 100)), nil)
	}
	cancel()
	wg.Wait()
}

func slowConsumer(b *bed) {
	var sent atomic.Int64
	ended := make(chan error, 1)
	const size = 10_000
	b.serve(1, flood(1_000_000, size, &sent, ended), echo(), echoPull(otherID, 4, 4))
	ctx, cancel := context.WithCancel(b.ctx)
	st := b.open(ctx, floodID, nil)
	stalled := b.stalls(&sent)
	if n := stalled * size; n > 4<<20 {
		b.t.Errorf("%d bytes were sent to a consumer that does not read", n)
	}
	for range 20 {
		wantIs(b.t, "a request", <-b.call(b.ctx, echoID, make([]byte, 100_000)), nil)
	}
	p := b.openPipe(b.ctx, otherID, nil)
	for range 100 { // another stream runs on
		if err := p.Send(b.ctx, make([]byte, 20_000)); err != nil {
			b.t.Fatal(err)
		}
		if _, err := p.Recv(b.ctx); err != nil {
			b.t.Fatal(err)
		}
	}
	p.Cancel()
	// On a busy machine it may have stood still for want of a processor.
	if n := b.stalls(&sent); n*size > 4<<20 || b.virtual && n != stalled {
		b.t.Errorf("the producer went on from %d to %d", stalled, n)
	}
	stalled = sent.Load()
	for range 500 {
		if r := <-st.Responses; r.Err != nil || len(r.Msg) != size {
			b.t.Fatal(r.Err)
		}
	}
	b.until("the producer goes on", func() bool { return sent.Load() > stalled })
	cancel()
	wantIs(b.t, "producer", <-ended, context.Canceled)
	drain(st)
}

// stalls waits until a counter stands still, for as long as a busy machine may
// keep a goroutine waiting where the clock is real.
func (b *bed) stalls(n *atomic.Int64) int64 {
	b.t.Helper()
	last, stood, enough := int64(-1), 0, 1
	if !b.virtual {
		enough = 10
	}
	b.until("the producer stalls", func() bool {
		now := n.Load()
		if stood++; now != last || now == 0 {
			stood = 0
		}
		last = now
		b.settle()
		return stood >= enough
	})
	return last
}

func smallWindow(i int, o *grid.ManagerOptions) {
	o.StreamWindow = []int{64 << 10, 128 << 10}[i]
}

// byteWindows counts what each end may send into the other's window.
func byteWindows(b *bed) {
	const size = 10_000
	var sent [2]atomic.Int64
	produce := func(n *atomic.Int64) func(context.Context, []byte, *grid.Pipe) error {
		return func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			for p.Send(ctx, make([]byte, size)) == nil {
				n.Add(1)
			}
			return ctx.Err()
		}
	}
	b.serve(1, pull(floodID, 0, 1000, produce(&sent[1])),
		pull(sinkID, 1000, 1, func(ctx context.Context, _ []byte, _ *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }))
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	b.openPipe(ctx, floodID, nil)
	into := b.openPipe(ctx, sinkID, nil)
	done := make(chan error, 1)
	go func() { done <- produce(&sent[0])(ctx, nil, into) }()
	for i, window := range []int64{128 << 10, 64 << 10} { // each the other's
		if n := b.stalls(&sent[i]) * size; n < window || n > window+size {
			b.t.Errorf("end %d sent %d bytes into a window of %d", i, n, window)
		}
	}
	cancel()
	<-done
}

func beyondReassembly(b *bed) {
	b.serve(1, echo())
	var wg sync.WaitGroup
	for worker := range 100 {
		wg.Go(func() {
			req := bytes.Repeat([]byte{byte(worker)}, 50_000)
			if resp, err := b.Connection(0, 1).Request(b.ctx, echoID, req); err != nil || !bytes.Equal(req, resp) {
				b.t.Errorf("got %d, %v", len(resp), err)
			}
		})
	}
	start := time.Now()
	wg.Wait()
	if took := time.Since(start); b.virtual && took > 0 {
		b.t.Errorf("they stood still for %v", took)
	}
}

func smallInbound(_ int, o *grid.ManagerOptions) { o.InboundBudget = 1 << 20 }

func inboundBudget(b *bed) {
	h, entered, _ := blocking()
	b.serve(1, h)
	ctx, cancel := context.WithCancel(b.ctx)
	first := b.call(ctx, blockID, make([]byte, 600_000))
	<-entered
	err := <-b.call(b.ctx, blockID, make([]byte, 600_000))
	wantIs(b.t, "beyond the budget", err, grid.ErrOverloaded)
	wantNotExecuted(b.t, "beyond the budget", err, true)
	cancel()
	<-first
	b.until("there is room again", func() bool { return b.Connection(1, 0).Stats().CallsIn == 0 })
	ctx, cancel = context.WithCancel(b.ctx)
	next := b.call(ctx, blockID, make([]byte, 600_000))
	<-entered
	cancel()
	<-next
}

// manyStreams opens more streams at once than their replies fit a batch, to a
// handler that sends at once.
func manyStreams(b *bed) {
	b.serve(0, grid.Handler{ID: floodID, Stream: &grid.StreamHandler{OutCapacity: 1}})
	b.serve(1, pull(floodID, 0, 1, func(ctx context.Context, payload []byte, p *grid.Pipe) error { return p.Send(ctx, payload) }))
	b.Blackhole(0, 1) // so that they come in one go
	var pipes []*grid.Pipe
	for i := range 1000 {
		pipes = append(pipes, b.openPipe(b.ctx, floodID, []byte{byte(i), byte(i >> 8)}))
	}
	b.Heal(0, 1)
	for i, p := range pipes {
		if msg, err := p.Recv(b.ctx); err != nil || !bytes.Equal(msg, []byte{byte(i), byte(i >> 8)}) {
			b.t.Fatalf("stream %d: %v, %v", i, msg, err)
		}
		p.Cancel()
	}
}

// noStarvation saturates the link with every class at once.
func noStarvation(b *bed) {
	classes := []grid.Class{grid.ClassControl, grid.ClassInteractive, grid.ClassStream, grid.ClassBulk}
	var done [4]atomic.Int64
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	for i, class := range classes {
		h := single(otherID+grid.HandlerID(100+i), func(_ context.Context, req []byte) ([]byte, error) { return req[:1], nil })
		h.Class = class
		b.serve(0, grid.Handler{ID: h.ID, Class: class})
		b.serve(1, h)
		for range 12 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := b.Connection(0, 1).Request(ctx, h.ID, make([]byte, 15_000)); err == nil {
						done[i].Add(1)
					}
				}
			})
		}
	}
	enough := func() bool {
		return slices.IndexFunc(classes, func(c grid.Class) bool { return done[c-grid.ClassControl].Load() < 30 }) < 0
	}
	b.until("all classes make progress", enough)
	cancel()
	wg.Wait()
}

func noProxy(_ int, o *grid.ManagerOptions) { o.Dial = nil }

// besideBulk measures how many bytes of bulk go ahead of a small request:
// its median delay times the bulk's rate.
func besideBulk(b *bed) {
	var moved atomic.Int64
	b.serve(1, echo(), pull(floodID, 0, 64, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
		msg := make([]byte, 64<<10)
		for p.Send(ctx, msg) == nil {
		}
		return ctx.Err()
	}))
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	for range 32 {
		p := b.openPipe(ctx, floodID, nil)
		wg.Go(func() {
			for {
				msg, err := p.Recv(ctx)
				if err != nil {
					return
				}
				moved.Add(int64(len(msg)))
			}
		})
	}
	b.until("the bulk runs", func() bool { return moved.Load() > 1<<20 })
	before, start := moved.Load(), time.Now()
	var delays []time.Duration
	for range 30 {
		sent := time.Now()
		if _, err := b.Connection(0, 1).Request(b.ctx, echoID, make([]byte, 512)); err != nil {
			b.t.Fatal(err)
		}
		delays = append(delays, time.Since(sent))
	}
	rate := float64(moved.Load()-before) / time.Since(start).Seconds()
	cancel()
	wg.Wait()
	slices.Sort(delays)
	ahead := delays[len(delays)/2].Seconds() * rate
	b.t.Logf("p50 %v beside %.0f MB/s: %.0f KiB ahead of a small request", delays[len(delays)/2], rate/1e6, ahead/1024)
	if ahead > 1<<20 {
		b.t.Errorf("%.0f bytes of bulk go ahead of a small request", ahead)
	}
}

func smallQueue(_ int, o *grid.ManagerOptions) { o.QueueLimit = 1 << 20 }

func queueIsBounded(b *bed) {
	b.serve(1, echo())
	b.Blackhole(0, 1)
	c := b.Connection(0, 1)
	ctx, cancel := context.WithCancel(b.ctx)
	var calls []<-chan error
	for range 200 { // more than the queue and the kernel hold
		calls = append(calls, b.call(ctx, echoID, make([]byte, 100_000)))
	}
	b.until("the queue is full", func() bool {
		b.settle()
		_, err := c.Request(grid.NoWait(b.ctx), echoID, make([]byte, 100_000))
		if err != nil {
			wantIs(b.t, "NoWait", err, grid.ErrOverloaded)
			wantNotExecuted(b.t, "NoWait", err, true)
			if retry, ok := grid.RetryAfter(err); !ok || retry <= 0 {
				b.t.Errorf("no hint with %v", err)
			}
			return true
		}
		return false
	})
	if q := c.Stats().QueuedBytes; q > 1<<20 {
		b.t.Errorf("%d bytes queued", q)
	}
	cancel()
	for _, call := range calls {
		wantIs(b.t, "Request", <-call, context.Canceled)
	}
	b.Heal(0, 1)
	wantIs(b.t, "afterwards", <-b.call(b.ctx, echoID, make([]byte, 100_000)), nil)
}

func producerDiesWithSession(b *bed) {
	b.serve(1, echo())
	b.Blackhole(0, 1)
	var calls []<-chan error
	for range 100 {
		calls = append(calls, b.call(b.ctx, echoID, make([]byte, 100_000)))
	}
	b.settle()
	b.Reset(0, 1)
	for _, call := range calls {
		wantIs(b.t, "Request", <-call, grid.ErrDisconnected)
	}
	b.Heal(0, 1)
}

// pullAndChannels has the four pairs of forms talk.
func pullAndChannels(b *bed) {
	b.serve(1, echoPull(floodID, 4, 4),
		channels(otherID, 4, 4, func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				out <- msg
			}
			return ctx.Err()
		}))
	for _, id := range []grid.HandlerID{floodID, otherID} {
		st := b.open(b.ctx, id, nil)
		go func() {
			for i := range 100 {
				st.Requests <- []byte{byte(i)}
			}
			close(st.Requests)
		}()
		if n, err := drain(st); n != 100 || err != nil {
			b.t.Errorf("channels: %d, %v", n, err)
		}
		p := b.openPipe(b.ctx, id, nil)
		go func() {
			for i := range 100 {
				if err := p.Send(b.ctx, []byte{byte(i)}); err != nil {
					b.t.Error(err)
				}
			}
			if err := p.CloseSend(); err != nil {
				b.t.Error(err)
			}
		}()
		for i := range 100 {
			if msg, err := p.Recv(b.ctx); err != nil || msg[0] != byte(i) {
				b.t.Fatalf("pull: %v, %v", msg, err)
			}
		}
		if _, err := p.Recv(b.ctx); unlessEnd(err) != nil || errors.Is(err, grid.ErrDisconnected) {
			b.t.Errorf("pull: the end is %v", err)
		}
	}
}
