package grid

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
)

// TestCreditsAreNeverLeftBehind runs streams of which every message needs a
// credit, taken at any moment of the reader's: when it is about to read, in a
// read, and busy. One credit that nobody writes would be the end of a stream.
func TestCreditsAreNeverLeftBehind(t *testing.T) {
	const streams, count = 8, 1000
	nodes := newTestMesh(t, 2)
	if err := nodes[1].Register(Handler{ID: blockID, Stream: &StreamHandler{InCapacity: 1, OutCapacity: 1,
		Pull: func(ctx context.Context, _ []byte, p *Pipe) error {
			for got := 0; ; got++ {
				_, err := p.Recv(ctx)
				if err == io.EOF {
					if got != count {
						t.Errorf("%d messages of %d", got, count)
					}
					return nil
				}
				if err != nil {
					return err
				}
			}
		}}}); err != nil {
		t.Fatal(err)
	}
	c, ctx := nodes[0].Connection(nodes[1].Local()), testContextLong(t)
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			p, err := c.OpenPipe(ctx, blockID, nil)
			if err != nil {
				t.Error(err)
				return
			}
			msg := make([]byte, 100<<(i%4*3)) // 100 bytes to 51,200
			for n := range count {
				if err := p.Send(ctx, msg); err != nil {
					t.Errorf("message %d: %v", n, err)
					return
				}
			}
			p.CloseSend()
			if _, err := p.Recv(ctx); err != io.EOF {
				t.Errorf("the end is %v", err)
			}
		})
	}
	wg.Wait()
}

// TestWaitsAreCounted meets each of the three bounds of what may be sent.
func TestWaitsAreCounted(t *testing.T) {
	nodes := newTestMesh(t, 2)
	if err := nodes[1].Register(Handler{ID: blockID, Stream: &StreamHandler{InCapacity: 1, OutCapacity: 1,
		Pull: func(ctx context.Context, _ []byte, p *Pipe) error {
			<-ctx.Done()
			return ctx.Err()
		}}}); err != nil {
		t.Fatal(err)
	}
	c, ctx := nodes[0].Connection(nodes[1].Local()), testContext(t)
	before := c.Stats()
	if before.StreamWaits != 0 || before.WindowWaits != 0 || before.QueueWaits != 0 {
		t.Fatalf("waits at the start: %+v", before)
	}
	p, err := c.OpenPipe(ctx, blockID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(ctx, []byte("the only credit")); err != nil {
		t.Fatal(err)
	}
	if n := c.Stats().StreamWaits; n != 0 {
		t.Errorf("%d waits for a stream's credit before it is used up", n)
	}
	if err := p.Send(NoWait(ctx), nil); !errors.Is(err, ErrOverloaded) {
		t.Errorf("a second message: %v", err)
	}
	p.Cancel()

	s := c.session.Load()
	s.room.used.Add(s.room.limit)
	if _, err := c.Request(NoWait(ctx), blockID, nil); !errors.Is(err, ErrOverloaded) {
		t.Errorf("a call without room in the queue: %v", err)
	}
	s.room.release(s.room.limit)

	window := s.bulkCredit.Swap(0)
	done := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, blockID, make([]byte, 2*chunkLen))
		done <- err
	}()
	for c.Stats().WindowWaits == 0 {
		if ctx.Err() != nil {
			t.Fatal("the session's credit is used up, and nobody counts")
		}
		yield()
	}
	s.bulkCredit.Add(window)
	s.kickWriter()
	if err := <-done; err == nil {
		t.Error("a stream's handler has answered a request")
	}
	if st := c.Stats(); st.StreamWaits != 1 || st.WindowWaits != 1 || st.QueueWaits != 1 {
		t.Errorf("waits for a stream's credit, the session's and the queue: %d, %d, %d; want one each", st.StreamWaits, st.WindowWaits, st.QueueWaits)
	}
}
