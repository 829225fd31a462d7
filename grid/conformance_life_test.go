package grid_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

func closeCases() []conformance {
	return []conformance{
		{name: "10 the connection with oneself has the same semantics", run: loopback},
		{name: "11 Close drains: going-away first, then what is under way ends", nodes: 3, run: closeDrains},
		{name: "11 no answer is lost in a drain", run: drainLosesNothing},
		{name: "11 what was not executed in a drain is known", run: drainKnows},
		{name: "11 Close cancels when its context ends, and waiters return", run: closeCancels},
		{name: "11 Close reports handlers that ignore their context", change: shortGrace, run: closeReportsStuck},
		{name: "11 the end of NewManager's context ends everything", on: memory, run: contextEnds},
		{name: "11 nothing is left after Close, and nothing spins", on: memory, run: nothingIsLeft},
	}
}

func loopback(b *bed) {
	h, entered, left := blocking()
	var peer string
	b.serve(0, h, echoPull(floodID, 2, 2), single(echoID, func(ctx context.Context, req []byte) ([]byte, error) {
		peer = grid.PeerFrom(ctx)
		return req, nil
	}), single(otherID, func(context.Context, []byte) ([]byte, error) { panic("oops") }))
	c := b.Connection(0, 0)
	if err := c.WaitConnected(b.ctx); err != nil || c.State() != grid.StateConnected {
		b.t.Errorf("%v, %v", c.State(), err)
	}
	for _, req := range [][]byte{nil, {}, []byte("x"), make([]byte, 300_000)} {
		resp, err := c.Request(b.ctx, echoID, req)
		if err != nil || len(resp) != len(req) || (resp == nil) != (req == nil) {
			b.t.Errorf("%d bytes: %d, %v", len(req), len(resp), err)
		}
	}
	if peer != b.Name(0) {
		b.t.Errorf("the peer is %q", peer)
	}
	_, err := c.Request(b.ctx, otherID, nil)
	wantCode(b.t, "panic", err, grid.CodePanic)
	_, err = c.Request(b.ctx, 999, nil)
	wantIs(b.t, "unknown", err, grid.ErrUnknownHandler)
	ctx, cancel := context.WithCancel(b.ctx)
	go func() {
		<-entered
		cancel()
	}()
	_, err = c.Request(ctx, blockID, nil)
	wantIs(b.t, "Request", err, context.Canceled)
	wantIs(b.t, "handler", <-left, context.Canceled)
	p, err := c.OpenPipe(b.ctx, floodID, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(p.Send(b.ctx, []byte("x")), p.CloseSend()); err != nil {
		b.t.Error(err)
	}
	if msg, err := p.Recv(b.ctx); err != nil || string(msg) != "x" {
		b.t.Errorf("got %q, %v", msg, err)
	}
	if _, err := p.Recv(b.ctx); err != io.EOF {
		b.t.Errorf("end is %v", err)
	}
}

func closeDrains(b *bed) {
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	b.serve(1, single(blockID, func(ctx context.Context, req []byte) ([]byte, error) {
		entered <- struct{}{}
		select {
		case <-release:
			return append(req, " done"...), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}))
	b.serve(2, single(blockID, func(ctx context.Context, req []byte) ([]byte, error) {
		entered <- struct{}{}
		<-release
		return nil, nil
	}))
	type result struct {
		resp []byte
		err  error
	}
	results := make(chan result, 2)
	for _, link := range [][2]int{{0, 1}, {1, 2}} { // theirs, and our own
		go func() {
			resp, err := b.Connection(link[0], link[1]).Request(b.ctx, blockID, []byte("is"))
			results <- result{resp, err}
		}()
		<-entered
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Node(1).Close(b.ctx) }()
	b.until("node 1 is going away", func() bool { return b.Connection(0, 1).State() == grid.StateDraining })
	err := <-b.call(b.ctx, blockID, nil)
	wantIs(b.t, "a call while draining", err, grid.ErrGoingAway)
	wantIs(b.t, "a call while draining", err, grid.ErrDisconnected)
	wantNotExecuted(b.t, "a call while draining", err, true)
	b.settle()
	select {
	case err := <-closed:
		b.t.Fatalf("closed with calls under way: %v", err)
	default:
	}
	close(release)
	for range 2 {
		if r := <-results; r.err != nil {
			b.t.Errorf("a call under way: %q, %v", r.resp, r.err)
		}
	}
	if err := <-closed; err != nil {
		b.t.Error(err)
	}
	for range 2 {
		if err := b.Node(1).Close(b.ctx); err != nil {
			b.t.Errorf("again: %v", err)
		}
	}
	_, err = b.Connection(1, 0).Request(b.ctx, blockID, nil)
	wantIs(b.t, "a call by the closed", err, grid.ErrClosed)
	wantIs(b.t, "a wait by the closed", b.Connection(1, 0).WaitConnected(b.ctx), grid.ErrClosed)
	wantIs(b.t, "a host for the closed", b.Node(1).AddHost("http://late:1"), grid.ErrClosed)
}

// drainLosesNothing closes the node that serves at once when handlers are
// about to return: their answers, and the ends of streams, must get through.
func drainLosesNothing(b *bed) {
	for range 5 {
		entered, release := make(chan struct{}, 100), make(chan struct{})
		b.serve(1, single(blockID, func(context.Context, []byte) ([]byte, error) {
			entered <- struct{}{}
			<-release
			return []byte("answer"), nil
		}), pull(floodID, 0, 4, func(ctx context.Context, _ []byte, p *grid.Pipe) error {
			entered <- struct{}{}
			<-release
			return p.Send(ctx, []byte("message"))
		}))
		if err := b.WaitConnected(b.ctx); err != nil {
			b.t.Fatal(err)
		}
		var wg sync.WaitGroup
		const each = 6
		for range each {
			wg.Go(func() {
				if resp, err := b.Connection(0, 1).Request(b.ctx, blockID, nil); err != nil || string(resp) != "answer" {
					b.t.Errorf("got %q, %v", resp, err)
				}
			})
			p := b.openPipe(b.ctx, floodID, nil)
			wg.Go(func() {
				if msg, err := p.Recv(b.ctx); err != nil || string(msg) != "message" {
					b.t.Errorf("got %q, %v", msg, err)
				}
				if _, err := p.Recv(b.ctx); err != io.EOF {
					b.t.Errorf("the stream's end is %v", err)
				}
			})
		}
		for range 2 * each {
			<-entered
		}
		closed := make(chan error, 1)
		go func() { closed <- b.Node(1).Close(b.ctx) }()
		b.until("node 1 is going away", func() bool { return b.Connection(0, 1).State() == grid.StateDraining })
		close(release)
		wg.Wait()
		if err := <-closed; err != nil {
			b.t.Error(err)
		}
		b.Restart(1)
	}
}

// drainKnows calls on and on while the peer closes: every call is answered,
// or is known not to have been executed.
func drainKnows(b *bed) {
	var executed, answered atomic.Int64
	b.serve(1, single(echoID, func(_ context.Context, req []byte) ([]byte, error) { executed.Add(1); return req, nil }))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				err := <-b.call(b.ctx, echoID, []byte("x"))
				if err != nil {
					wantIs(b.t, "a refused call", err, grid.ErrDisconnected)
					wantNotExecuted(b.t, "a refused call", err, true)
					return
				}
				answered.Add(1)
				if b.virtual {
					<-time.After(100 * time.Microsecond)
				}
			}
		})
	}
	b.until("calls go through", func() bool { return answered.Load() > 20 })
	if err := b.Node(1).Close(b.ctx); err != nil {
		b.t.Error(err)
	}
	wg.Wait()
	if e, a := executed.Load(), answered.Load(); e != a {
		b.t.Errorf("%d calls were executed, %d answered", e, a)
	}
}

func closeCancels(b *bed) {
	h, entered, left := blocking()
	b.serve(1, h)
	errs := b.call(b.ctx, blockID, nil)
	<-entered
	waiter := make(chan error, 1)
	go func() { waiter <- b.Node(1).Connection("http://nobody.invalid:1").WaitConnected(b.ctx) }()
	<-waiter
	const limit = 50 * time.Millisecond
	short, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	start := time.Now()
	if err := b.Node(1).Close(short); err != nil {
		b.t.Error(err)
	}
	if took := time.Since(start); took < limit || b.virtual && took != limit {
		b.t.Errorf("took %v", took)
	}
	wantIs(b.t, "handler", <-left, context.Canceled)
	wantIs(b.t, "caller", <-errs, grid.ErrDisconnected)
}

func shortGrace(_ int, o *grid.ManagerOptions) { o.CloseGrace = 50 * time.Millisecond }

func closeReportsStuck(b *bed) {
	entered, release := make(chan struct{}), make(chan struct{})
	b.serve(1, grid.Handler{ID: blockID, Name: "deaf", Single: func(context.Context, []byte) ([]byte, error) {
		close(entered)
		<-release
		return nil, nil
	}})
	errs := b.call(b.ctx, blockID, nil)
	<-entered
	ended, cancel := context.WithCancel(b.ctx)
	cancel()
	err := b.Node(1).Close(ended)
	var stuck *grid.StuckError
	if !errors.As(err, &stuck) || !strings.Contains(err.Error(), "deaf (1001) × 1") {
		b.t.Errorf("Close: %v", err)
	}
	wantIs(b.t, "caller", <-errs, grid.ErrDisconnected)
	close(release)
	if err := b.Node(1).Close(ended); err != nil {
		b.t.Errorf("again: %v", err)
	}
}

func contextEnds(b *bed) {
	ctx, cancel := context.WithCancel(b.ctx)
	m, err := grid.NewManager(ctx, grid.ManagerOptions{Local: "http://10.0.0.1:1", Hosts: []string{"http://10.0.0.2:1"}, Insecure: true})
	if err != nil {
		b.t.Fatal(err)
	}
	h, entered, left := blocking()
	register(b.t, m, h)
	errs := make(chan error, 1)
	go func() {
		_, err := m.Connection(m.Local()).Request(b.ctx, blockID, nil)
		errs <- err
	}()
	<-entered
	cancel()
	wantIs(b.t, "handler", <-left, context.Canceled)
	wantIs(b.t, "caller", <-errs, grid.ErrDisconnected)
	if err := m.Close(b.ctx); err != nil {
		b.t.Error(err)
	}
}

// nothingIsLeft closes nodes in the middle of everything. The bubble fails
// for a goroutine that is left, and the clock stands still if one spins.
func nothingIsLeft(b *bed) {
	b.settle()
	before, _ := goroutines()
	for round := range 5 {
		var nodes []*grid.Manager
		for i := range 2 {
			m, err := grid.NewManager(b.ctx, grid.ManagerOptions{
				Local: fmt.Sprintf("http://10.0.%d.%d:1", round, i), Insecure: true,
				Hosts: []string{fmt.Sprintf("http://10.0.%d.%d:1", round, 1-i)},
				Dial:  func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
			})
			if err != nil {
				b.t.Fatal(err)
			}
			nodes = append(nodes, m)
		}
		waiters := make(chan error, 2)
		for i, m := range nodes {
			register(b.t, m, echo())
			if _, err := m.Connection(m.Local()).Request(b.ctx, echoID, nil); err != nil {
				b.t.Error(err)
			}
			go func() { waiters <- m.Connection(nodes[1-i].Local()).WaitConnected(b.ctx) }()
		}
		b.pass(time.Duration(round) * time.Second)
		for _, m := range nodes {
			if err := m.Close(b.ctx); err != nil {
				b.t.Error(err)
			}
			wantIs(b.t, "a waiter", <-waiters, grid.ErrClosed)
		}
	}
	b.settle()
	b.noMore(before)
}
