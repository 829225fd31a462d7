package control

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkPropose(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			var batches atomic.Int64
			c, err := Open(b.Context(), Options{Dir: b.TempDir(), Self: "a", Hooks: Hooks{Committed: func(string, int, time.Duration) { batches.Add(1) }}})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			res, err := c.Propose(b.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}})
			if err != nil {
				b.Fatal(err)
			}
			batches.Store(0)
			payload := make([]byte, 4<<10)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range clients {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						cmd := putOf(res.Bucket, fmt.Sprintf("%016x", rand.Uint64()), "e")
						cmd.PutRecord.Record.Inline, cmd.PutRecord.Record.SizeBytes = payload, int64(len(payload))
						if _, err := c.Propose(b.Context(), cmd); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(batches.Load())/float64(b.N), "batches/op")
		})
	}
}
