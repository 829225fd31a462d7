package grid_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
)

func memoryCases() []conformance {
	return []conformance{
		{name: "04 input is free on return, also on cancel", run: inputIsFree},
		{name: "04 what is received belongs to the receiver", run: receivedIsOurs},
		{name: "04 a handler may return one shared slice for ever", run: sharedAnswer},
	}
}

// inputIsFree overwrites the request as soon as a cancelled call has
// returned: the handler must never see the overwritten bytes.
func inputIsFree(b *bed) {
	var bad atomic.Int64
	b.serve(1, single(echoID, func(_ context.Context, req []byte) ([]byte, error) {
		if bytes.IndexByte(req, 0xFF) >= 0 {
			bad.Add(1)
		}
		return nil, nil
	}))
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			req := make([]byte, 100+worker*30_000)
			for range 8 {
				clear(req)
				short, cancel := context.WithCancel(b.ctx)
				go cancel()
				_, _ = b.Connection(0, 1).Request(short, echoID, req)
				cancel()
				for i := range req {
					req[i] = 0xFF
				}
			}
		})
	}
	wg.Wait()
	if n := bad.Load(); n > 0 {
		b.t.Errorf("%d requests were overwritten under way", n)
	}
	wantIs(b.t, "afterwards", <-b.call(b.ctx, echoID, nil), nil)
}

// receivedIsOurs keeps what was received, at both ends, and looks at it again
// after much else was received.
func receivedIsOurs(b *bed) {
	var mu sync.Mutex
	var kept [][]byte
	keep := func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, p)
	}
	b.serve(1, single(echoID, func(_ context.Context, req []byte) ([]byte, error) {
		keep(req)
		return bytes.Clone(req), nil
	}), echoPull(floodID, 4, 4))
	p := b.openPipe(b.ctx, floodID, nil)
	for i := range 40 {
		msg := bytes.Repeat([]byte{byte(i)}, i*i*20)
		resp, err := b.Connection(0, 1).Request(b.ctx, echoID, msg)
		if err != nil {
			b.t.Fatal(err)
		}
		keep(resp)
		if err := p.Send(b.ctx, msg); err != nil {
			b.t.Fatal(err)
		}
		if resp, err = p.Recv(b.ctx); err != nil {
			b.t.Fatal(err)
		}
		keep(resp)
		clear(msg) // it was ours all the time
	}
	p.Cancel()
	for n, msg := range kept {
		if i := n / 3; !bytes.Equal(msg, bytes.Repeat([]byte{byte(i)}, i*i*20)) {
			b.t.Fatalf("message %d has changed", n)
		}
	}
}

func sharedAnswer(b *bed) {
	shared := bytes.Repeat([]byte("shared "), 10_000)
	b.serve(1, single(echoID, func(_ context.Context, req []byte) ([]byte, error) { return shared[:len(req)], nil }))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, size := range []int{7, 700, 20_000, 70_000} {
				resp, err := b.Connection(0, 1).Request(b.ctx, echoID, make([]byte, size))
				if err != nil || !bytes.Equal(resp, shared[:size]) {
					b.t.Errorf("got %d bytes, %v", len(resp), err)
				}
				clear(resp) // ours, and not the shared one
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(shared, bytes.Repeat([]byte("shared "), 10_000)) {
		b.t.Error("the shared slice was written to")
	}
}
