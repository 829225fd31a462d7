package grid

import (
	"context"
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
