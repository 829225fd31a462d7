package control

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/replica"
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

// BenchmarkApply is what a put costs the applier, in batches as many clients
// make them.
func BenchmarkApply(b *testing.B) {
	for _, kind := range []string{"inline", "segment", "overwrite"} {
		b.Run(kind, func(b *testing.B) {
			s, err := openState(vfs.NewMem(), "state", dataGroup, slog.New(slog.DiscardHandler), nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			if err := s.bootstrap(nil, nil); err != nil {
				b.Fatal(err)
			}
			bucket := &Bucket{Name: "b", ID: [16]byte{1}, LogTime: 1}
			const batch = 32
			var all [][]replica.Entry
			index := uint64(2)
			for range (b.N + batch - 1) / batch {
				entries := make([]replica.Entry, batch)
				for i := range entries {
					cmd := complete(putOf(bucket, fmt.Sprintf("%016x", rand.Uint64()), "e"))
					cmd.Slots = 1
					if rec := &cmd.PutRecord.Record; kind != "inline" {
						rec.Inline, rec.SizeBytes = nil, 1<<20
						rec.Segments = []Segment{{ID: randomID(), SizeBytes: 1 << 20, Drives: []string{"drive-1", "drive-2", "drive-3"}}}
						if kind == "overwrite" {
							rec.Key = fmt.Sprint(index % 1000)
						}
					}
					data, err := encodeEntry(int64(index), cmd)
					if err != nil {
						b.Fatal(err)
					}
					entries[i] = replica.Entry{Index: index, Term: 1, Data: data}
					index++
				}
				all = append(all, entries)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, entries := range all {
				if err := s.Apply(entries); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
