package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func streamCases() []conformance {
	cases := []conformance{
		{name: "00 Responses closes when the remote closes, Requests ends the input", run: streamBothWays},
		{name: "00 the open reply says whether input is taken", run: noInput},
		{name: "00 a refusal is NewStream's error", run: refusedStreams},
		{name: "00 a declared handler's stream opens without a round trip", run: declaredOpensAtOnce},
		{name: "00 the end of a declared stream never overtakes its opening", run: endAfterOpening},
		{name: "00 capacities are windows in messages", run: messageWindows},
		{name: "00 the pull API: order, ends and bounded waits", run: pipeOrderAndEnds},
		{name: "00 Send, SendOwned and Recv take any size", on: plain, slow: true, run: pipeSizes},
		{name: "02 a clean end needs an end frame: loss, kill and replacement are errors", run: cutStreams},
		{name: "02 a message that can't be sent is no clean end", change: maxMessage(100_000), run: tooLargeOnStream},
		{name: "02 a handler's error comes after what it sent", run: handlersErrorEndsStream},
		{name: "09 a send after the remote end never blocks for ever and never panics", run: sendAfterEnd},
		{name: "09 Done is closed at the end", run: doneCloses},
		{name: "09 a serving end that gives up tells the opener", run: serverGivesUp},
	}
	for _, how := range []string{"end", "cancel", "reset", "stop"} {
		cases = append(cases, conformance{name: "00 in closes, on loss or cancellation only after ctx: " + how, run: func(b *bed) { inputCloses(b, how) }})
	}
	for _, how := range []string{"finished", "half-closed", "abandoned", "cancelled", "peer gone", "never read"} {
		cases = append(cases, conformance{name: "09 no goroutine is left: " + how, on: memory, run: func(b *bed) { leavesNothing(b, how) }})
	}
	return cases
}

func maxMessage(n int) func(int, *grid.ManagerOptions) {
	return func(_ int, o *grid.ManagerOptions) { o.MaxMessage = n }
}

// sink is a stream handler that takes everything and reports what its loop
// saw at the end.
func sink(ended chan<- error) grid.Handler {
	return channels(sinkID, 4, 1, func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
		for range in {
		}
		ended <- ctx.Err()
		return ctx.Err()
	})
}

// flood sends n messages of size bytes, and reports how its loop ended.
func flood(n, size int, sent *atomic.Int64, ended chan<- error) grid.Handler {
	return channels(floodID, 0, 1000, func(ctx context.Context, _ []byte, _ <-chan []byte, out chan<- []byte) error {
		for range n {
			select {
			case out <- make([]byte, size):
				sent.Add(1)
			case <-ctx.Done():
				ended <- ctx.Err()
				return ctx.Err()
			}
		}
		ended <- nil
		return nil
	})
}

func (b *bed) open(ctx context.Context, h grid.HandlerID, payload []byte) *grid.Stream {
	b.t.Helper()
	st, err := b.Connection(0, 1).NewStream(ctx, h, payload)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func (b *bed) openPipe(ctx context.Context, h grid.HandlerID, payload []byte) *grid.Pipe {
	b.t.Helper()
	p, err := b.Connection(0, 1).OpenPipe(ctx, h, payload)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// drain reads a stream to its end and returns what it ended by.
func drain(st *grid.Stream) (n int, last error) {
	for r := range st.Responses {
		if last = r.Err; last == nil {
			n++
		}
	}
	return n, last
}

func streamBothWays(b *bed) {
	for i := range 2 {
		b.serve(i, channels(floodID, 8, 8, func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				out <- append(bytes.Clone(payload), msg...)
			}
			return ctx.Err()
		}))
	}
	for j := range 2 {
		st, err := b.Connection(0, j).NewStream(b.ctx, floodID, []byte("re: "))
		if err != nil {
			b.t.Fatal(err)
		}
		const n = 300
		go func() {
			for i := range n {
				st.Requests <- fmt.Append(nil, i)
			}
			close(st.Requests)
		}()
		got := 0
		for r := range st.Responses {
			if want := fmt.Sprint("re: ", got); r.Err != nil || string(r.Msg) != want {
				b.t.Fatalf("got %q, %v, want %q", r.Msg, r.Err, want)
			}
			got++
		}
		if got != n {
			b.t.Errorf("got %d messages, want %d", got, n)
		}
	}
}

func noInput(b *bed) {
	ended := make(chan error, 10)
	var sent atomic.Int64
	b.serve(1, flood(3, 3, &sent, ended), sink(make(chan error, 1)))
	st := b.open(b.ctx, floodID, nil)
	if st.Requests != nil {
		b.t.Error("Requests of a handler without input is not nil")
	}
	if n, err := drain(st); n != 3 || err != nil {
		b.t.Errorf("got %d, %v", n, err)
	}
	b.serve(1, pull(otherID, 0, 1, func(ctx context.Context, _ []byte, _ *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }))
	p := b.openPipe(b.ctx, otherID, nil)
	wantIs(b.t, "Send", p.Send(b.ctx, nil), grid.ErrNoInput)
	p.Cancel()
	if st := b.open(b.ctx, sinkID, nil); st.Requests == nil {
		b.t.Error("Requests of a handler with input is nil")
	} else {
		close(st.Requests)
		drain(st)
	}
}

func refusedStreams(b *bed) {
	b.serve(1, echo(), sink(make(chan error, 10)))
	c := b.Connection(0, 1)
	for _, h := range []grid.HandlerID{999, echoID} {
		_, err := c.NewStream(b.ctx, h, nil)
		wantIs(b.t, "NewStream", err, grid.ErrUnknownHandler)
		wantNotExecuted(b.t, "NewStream", err, true)
	}
	// Declared here, refused there: the error comes as the response.
	b.serve(0, grid.Handler{ID: otherID, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1}})
	st := b.open(b.ctx, otherID, nil)
	r := <-st.Responses
	wantIs(b.t, "declared stream", r.Err, grid.ErrUnknownHandler)
	if _, open := <-st.Responses; open {
		b.t.Error("open after an error")
	}
	close(st.Requests)
}

func declaredOpensAtOnce(b *bed) {
	h := echoPull(floodID, 4, 4)
	b.serve(1, h)
	b.Blackhole(0, 1)
	short, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
	defer cancel()
	_, err := b.Connection(0, 1).NewStream(short, floodID, nil)
	wantIs(b.t, "undeclared", err, context.DeadlineExceeded)
	h.Stream = &grid.StreamHandler{InCapacity: 4, OutCapacity: 4}
	b.serve(0, h)
	p := b.openPipe(b.ctx, floodID, nil) // with nobody to answer
	b.Heal(0, 1)
	if err := p.Send(b.ctx, []byte("x")); err != nil {
		b.t.Error(err)
	}
	if msg, err := p.Recv(b.ctx); err != nil || string(msg) != "x" {
		b.t.Errorf("got %q, %v", msg, err)
	}
	p.Cancel()
}

// endAfterOpening closes the input while the opening, which is large, is
// still on its way: the end must not get there first.
func endAfterOpening(b *bed) {
	for i, class := range []grid.Class{grid.ClassInteractive, grid.ClassStream, grid.ClassBulk} {
		id := floodID + 100 + grid.HandlerID(i)
		b.serve(0, grid.Handler{ID: id, Class: class, Stream: &grid.StreamHandler{InCapacity: 1, OutCapacity: 1}})
		h := echoPull(id, 1, 1)
		h.Class = class
		b.serve(1, h)
		for _, size := range []int{0, 1000, 20_000, 300_000} {
			p := b.openPipe(b.ctx, id, make([]byte, size))
			if err := p.CloseSend(); err != nil {
				b.t.Error(err)
			}
			if _, err := p.Recv(b.ctx); err != io.EOF {
				b.t.Errorf("class %d, %d bytes: %v", class, size, err)
			}
		}
	}
}

func messageWindows(b *bed) {
	var sent, received atomic.Int64
	b.serve(1,
		pull(floodID, 0, 3, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			for p.Send(ctx, []byte("x")) == nil {
				sent.Add(1)
			}
			return ctx.Err()
		}),
		pull(sinkID, 5, 1, func(ctx context.Context, _ []byte, p *grid.Pipe) error { <-ctx.Done(); return ctx.Err() }))
	p := b.openPipe(b.ctx, floodID, nil)
	b.until("the window is full", func() bool { return sent.Load() == 3 })
	b.settle()
	if n := sent.Load(); n != 3 {
		b.t.Errorf("%d messages were sent into a window of 3", n)
	}
	if _, err := p.Recv(b.ctx); err != nil {
		b.t.Error(err)
	}
	b.until("one was credited", func() bool { return sent.Load() == 4 })
	p.Cancel()
	p = b.openPipe(b.ctx, sinkID, nil)
	short, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
	defer cancel()
	for p.Send(short, []byte("x")) == nil {
		received.Add(1)
	}
	if n := received.Load(); n != 5 {
		b.t.Errorf("%d messages went into an input of 5", n)
	}
	p.Cancel()
}

func pipeOrderAndEnds(b *bed) {
	for i := range 2 {
		b.serve(i, echoPull(floodID, 1, 1))
	}
	for j := range 2 {
		p, err := b.Connection(0, j).OpenPipe(b.ctx, floodID, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		for i := range 50 {
			if err := p.Send(b.ctx, []byte{byte(i)}); err != nil {
				b.t.Fatal(err)
			}
			if msg, err := p.RecvAppend(b.ctx, []byte("x")); err != nil || len(msg) != 2 || msg[1] != byte(i) {
				b.t.Fatal(msg, err)
			}
		}
		short, cancel := context.WithTimeout(b.ctx, 10*time.Millisecond)
		_, err = p.Recv(short)
		wantIs(b.t, "bounded Recv", err, context.DeadlineExceeded)
		cancel()
		if err := p.CloseSend(); err != nil {
			b.t.Fatal(err)
		}
		wantIs(b.t, "Send after CloseSend", p.Send(b.ctx, nil), grid.ErrStreamDone)
		if _, err := p.Recv(b.ctx); err != io.EOF {
			b.t.Errorf("end is %v", err)
		}
		<-p.Done()
		wantIs(b.t, "Send after the end", p.Send(b.ctx, nil), grid.ErrStreamDone)
	}
}

func pipeSizes(b *bed) {
	b.serve(1, echoPull(floodID, 64, 64))
	p := b.openPipe(b.ctx, floodID, nil)
	sizes := []int{0, 1, 512, 16 << 10, 16<<10 - 16, 16<<10 + 1, 64 << 10, 64<<10 + 1, 300_000, 5 << 20, 3}
	pattern := func(i int) []byte { return bytes.Repeat([]byte{byte(i), 1, 2}, sizes[i]/3+1)[:sizes[i]] }
	go func() {
		for i := range sizes {
			send := p.Send
			if i%2 == 1 {
				send = p.SendOwned
			}
			if err := send(b.ctx, pattern(i)); err != nil {
				b.t.Error(err)
			}
		}
		if err := p.CloseSend(); err != nil {
			b.t.Error(err)
		}
	}()
	for i := range sizes {
		if msg, err := p.Recv(b.ctx); err != nil || !bytes.Equal(msg, pattern(i)) {
			b.t.Fatalf("message %d of %d bytes: got %d, %v", i, sizes[i], len(msg), err)
		}
	}
	if _, err := p.Recv(b.ctx); err != io.EOF {
		b.t.Errorf("end is %v", err)
	}
}

func cutStreams(b *bed) {
	h := pull(floodID, 0, 4, func(ctx context.Context, payload []byte, p *grid.Pipe) error {
		for range 3 {
			if err := p.Send(ctx, []byte("x")); err != nil {
				return err
			}
		}
		if string(payload) == "end" {
			return nil
		}
		<-ctx.Done()
		return nil // not that anybody hears of it
	})
	b.serve(1, h)
	for _, how := range []string{"end", "reset", "restart"} {
		if err := b.WaitConnected(b.ctx); err != nil {
			b.t.Fatal(err)
		}
		p := b.openPipe(b.ctx, floodID, []byte(how))
		for range 3 {
			if _, err := p.Recv(b.ctx); err != nil {
				b.t.Fatal(err)
			}
		}
		switch how {
		case "reset":
			b.Reset(0, 1)
		case "restart":
			b.Restart(1)
		}
		_, err := p.Recv(b.ctx)
		if how == "end" && err != io.EOF || how != "end" && !errors.Is(err, grid.ErrDisconnected) {
			b.t.Errorf("after %s: %v", how, err)
		}
	}
}

func tooLargeOnStream(b *bed) {
	big := make([]byte, 100_001)
	b.serve(1,
		channels(floodID, 0, 4, func(ctx context.Context, _ []byte, _ <-chan []byte, out chan<- []byte) error {
			for _, msg := range [][]byte{{1}, big, {2}} {
				select {
				case out <- msg:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		}),
		echoPull(otherID, 4, 4), sink(make(chan error, 2)))
	st := b.open(b.ctx, floodID, nil)
	n, err := drain(st)
	wantIs(b.t, "a message over the limit from the handler", err, grid.ErrTooLarge)
	if n != 1 {
		b.t.Errorf("%d messages before it", n)
	}
	p := b.openPipe(b.ctx, otherID, nil)
	wantIs(b.t, "Send", p.Send(b.ctx, big), grid.ErrTooLarge)
	if err := p.Send(b.ctx, big[1:]); err != nil { // the stream lives
		b.t.Error(err)
	}
	if msg, err := p.Recv(b.ctx); err != nil || len(msg) != 100_000 {
		b.t.Errorf("got %d, %v", len(msg), err)
	}
	p.Cancel()
	st = b.open(b.ctx, sinkID, nil)
	st.Requests <- big
	_, err = drain(st)
	wantIs(b.t, "a message over the limit to the handler", err, grid.ErrTooLarge)
	close(st.Requests)
	if b.Connection(0, 1).Stats().Sessions != 1 {
		b.t.Error("the connection has not lived through it")
	}
}

func handlersErrorEndsStream(b *bed) {
	b.serve(1, channels(floodID, 2, 2, func(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
		out <- []byte("one")
		out <- nil
		out <- []byte{}
		return &grid.RemoteError{Code: 7, Message: "enough"}
	}))
	st := b.open(b.ctx, floodID, nil)
	var got [][]byte
	var last error
	for r := range st.Responses {
		if last = r.Err; last == nil {
			got = append(got, r.Msg)
		}
	}
	if len(got) != 3 || string(got[0]) != "one" || got[1] != nil || got[2] == nil {
		b.t.Errorf("got %q", got)
	}
	wantCode(b.t, "the end", last, 7)
	close(st.Requests)
}
