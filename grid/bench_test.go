package grid

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkRequest is the 512-byte echo of bench/README.md in small: callers
// share one connection over loopback TCP, both ends in this process.
func BenchmarkRequest(b *testing.B) {
	for _, callers := range []int{1, 32, 128, 1024} {
		for _, form := range []string{"append", "plain", "inline"} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, form), func(b *testing.B) {
				benchmarkRequest(b, callers, form)
			})
		}
	}
}

func benchmarkRequest(b *testing.B, callers int, form string) {
	nodes := newTestMesh(b, 2)
	if err := nodes[1].Register(Handler{ID: echoID, Inline: form == "inline", Single: func(_ context.Context, req []byte) ([]byte, error) { return req, nil }}); err != nil {
		b.Fatal(err)
	}
	c := nodes[0].Connection(nodes[1].Local())
	req := make([]byte, 512)
	ctx := context.Background()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			dst := make([]byte, 0, 512)
			for left.Add(-1) >= 0 {
				var err error
				if form == "plain" {
					_, err = c.Request(ctx, echoID, req)
				} else {
					_, err = c.AppendRequest(ctx, echoID, dst[:0], req)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

func BenchmarkStream(b *testing.B) {
	for _, size := range []int{512, 64 << 10} {
		for _, form := range []string{"pull", "channel"} {
			b.Run(fmt.Sprintf("size=%d/%s", size, form), func(b *testing.B) {
				benchmarkStream(b, size, form)
			})
		}
	}
}

// benchmarkStream sends b.N messages one way and waits for the handler to
// have had them all.
func benchmarkStream(b *testing.B, size int, form string) {
	nodes := newTestMesh(b, 2)
	st := &StreamHandler{InCapacity: 1024, OutCapacity: 1}
	if form == "pull" {
		st.Pull = func(ctx context.Context, _ []byte, p *Pipe) error {
			for {
				if _, err := p.Recv(ctx); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		}
	} else {
		st.Handle = func(ctx context.Context, _ []byte, in <-chan []byte, _ chan<- []byte) error {
			for range in {
			}
			return ctx.Err()
		}
	}
	if err := nodes[1].Register(Handler{ID: pullID, Stream: st}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := nodes[0].Connection(nodes[1].Local())
	msg := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	if form == "pull" {
		p, err := c.OpenPipe(ctx, pullID, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			if err := p.Send(ctx, msg); err != nil {
				b.Fatal(err)
			}
		}
		p.CloseSend()
		if _, err := p.Recv(ctx); err != io.EOF {
			b.Fatal(err)
		}
	} else {
		s, err := c.NewStream(ctx, pullID, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			s.Requests <- msg
		}
		close(s.Requests)
		for r := range s.Responses {
			b.Fatal(r.Err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
