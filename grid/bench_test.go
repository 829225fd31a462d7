package grid

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

// BenchmarkBesideBulk times 512-byte requests of eight callers, alone and
// beside a stream of 64 KiB messages that saturates the same connection.
func BenchmarkBesideBulk(b *testing.B) {
	for _, bulk := range []bool{false, true} {
		b.Run(fmt.Sprintf("bulk=%v", bulk), func(b *testing.B) { benchmarkBesideBulk(b, bulk) })
	}
}

func benchmarkBesideBulk(b *testing.B, bulk bool) {
	nodes := newTestMesh(b, 2)
	registerAll(b, nodes[1].Manager)
	var received atomic.Int64
	if err := nodes[1].Register(Handler{ID: blockID, Stream: &StreamHandler{InCapacity: 1024, OutCapacity: 1, Pull: func(ctx context.Context, _ []byte, p *Pipe) error {
		for {
			msg, err := p.Recv(ctx)
			if err != nil {
				return err
			}
			received.Add(int64(len(msg)))
		}
	}}}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := nodes[0].Connection(nodes[1].Local())
	var wg, background sync.WaitGroup
	if bulk {
		p, err := c.OpenPipe(ctx, blockID, nil)
		if err != nil {
			b.Fatal(err)
		}
		background.Go(func() {
			msg := make([]byte, 64<<10)
			for p.Send(ctx, msg) == nil {
			}
		})
	}
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var mu sync.Mutex
	var all []time.Duration
	for range 8 {
		wg.Go(func() {
			req, dst := make([]byte, 512), make([]byte, 0, 512)
			var took []time.Duration
			for left.Add(-1) >= 0 {
				start := time.Now()
				if _, err := c.AppendRequest(ctx, echoID, dst[:0], req); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	b.StopTimer()
	cancel()
	background.Wait()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(received.Load())/1e6/b.Elapsed().Seconds(), "bulk-MB/s")
}
