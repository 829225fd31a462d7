package grid_test

import (
	"bytes"
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// How streams end, and what they leave behind.

func sendAfterEnd(b *bed) {
	b.serve(1, channels(floodID, 1, 1, func(context.Context, []byte, <-chan []byte, chan<- []byte) error { return nil }))
	st := b.open(b.ctx, floodID, nil)
	if n, err := drain(st); n != 0 || err != nil {
		b.t.Errorf("got %d, %v", n, err)
	}
	for range 100 {
		st.Requests <- []byte("into the void")
	}
	close(st.Requests)
	ctx, cancel := context.WithCancel(b.ctx)
	st = b.open(ctx, floodID, nil)
	drain(st)
	cancel() // a sender that has gone without closing leaves nothing behind either
}

func doneCloses(b *bed) {
	b.serve(1, echoPull(floodID, 4, 4))
	for _, how := range []string{"end", "cancel", "reset"} {
		ctx, cancel := context.WithCancel(b.ctx)
		st := b.open(ctx, floodID, nil)
		select {
		case <-st.Done():
			b.t.Error("done at the beginning")
		default:
		}
		switch how {
		case "end":
			close(st.Requests)
		case "cancel":
			cancel()
		case "reset":
			b.Reset(0, 1)
		}
		select {
		case <-st.Done():
		case <-b.ctx.Done():
			b.t.Errorf("never done after %s", how)
		}
		drain(st)
		cancel()
	}
}

// serverGivesUp has the serving end leave its stream in ways that are not
// just returning.
func serverGivesUp(b *bed) {
	entered, held := make(chan struct{}), make(chan struct{})
	b.serve(1,
		pull(floodID, 0, 8, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			p.Cancel()
			return nil
		}),
		pull(otherID, 0, 8, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			close(entered)
			<-held
			short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
			defer cancel()
			return p.Send(short, make([]byte, 8<<20)) // ends in the middle
		}))
	p := b.openPipe(b.ctx, floodID, nil)
	_, err := p.Recv(b.ctx)
	wantCode(b.t, "after Cancel", err, grid.CodeCanceled)
	p = b.openPipe(b.ctx, otherID, nil)
	<-entered
	b.Blackhole(0, 1)
	close(held)
	b.pass(60 * time.Millisecond)
	b.Heal(0, 1)
	_, err = p.Recv(b.ctx)
	wantCode(b.t, "after half a message", err, grid.CodeDeadline)
}

func inputCloses(b *bed, how string) {
	ended := make(chan error, 1)
	b.serve(1, sink(ended))
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	st := b.open(ctx, sinkID, nil)
	for range 20 {
		st.Requests <- []byte("x")
	}
	switch how {
	case "end":
		close(st.Requests)
	case "cancel":
		cancel()
	case "reset":
		b.Reset(0, 1)
	case "stop":
		b.Stop(0)
	}
	if err := <-ended; how == "end" != (err == nil) {
		b.t.Errorf("after %s the handler's context says %v", how, err)
	}
	if _, err := drain(st); how == "end" != (err == nil) {
		b.t.Errorf("after %s the caller got %v", how, err)
	}
	<-st.Done()
}

// leavesNothing ends streams in every way without reading them, and counts
// goroutines.
func leavesNothing(b *bed, how string) {
	ended := make(chan error, 100)
	var sent atomic.Int64
	b.serve(1, sink(ended), flood(1_000, 1000, &sent, ended))
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	warm := b.open(ctx, sinkID, nil)
	close(warm.Requests)
	drain(warm)
	b.settle() // else one may not have begun that is there at the end
	before, _ := goroutines()
	h := sinkID
	if how == "cancelled" || how == "peer gone" || how == "never read" {
		h = floodID
	}
	for range 10 {
		st := b.open(ctx, h, nil)
		if st.Requests != nil && how != "abandoned" {
			close(st.Requests)
		}
	}
	b.settle()
	switch how {
	case "cancelled", "half-closed", "abandoned", "never read":
		cancel()
	case "peer gone":
		b.Reset(0, 1)
	}
	b.settle()
	if err := b.WaitConnected(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	b.pass(time.Minute) // workers are parked, not gone: they need the time to be let go
	b.noMore(before)
}

// noMore fails when there are more goroutines than before.
func (b *bed) noMore(before int) {
	b.t.Helper()
	if after, stacks := goroutines(); after > before {
		b.t.Errorf("%d goroutines before, %d after\n%s", before, after, stacks)
	}
}

// goroutines counts the goroutines that are not the runtime's own, which
// runtime.NumGoroutine counts now and then.
func goroutines() (n int, stacks []byte) {
	stacks = make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("\n\ngoroutine ")) + 1, stacks
}
