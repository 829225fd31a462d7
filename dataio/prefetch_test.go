package dataio_test

import (
	"fmt"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

// BenchmarkPrefetch is what Prefetch costs for bytes that are in memory: before
// every window of a payload, and once for one of a single window.
func BenchmarkPrefetch(b *testing.B) {
	d := open(b, b.TempDir(), options())
	const size = 64 << 20
	id := put(b, d, random(size, 1))
	for _, window := range []int64{4 << 10, 64 << 10, 128 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("window=%dK", window>>10), func(b *testing.B) {
			f, err := d.Open(b.Context(), id)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := f.Prefetch(b.Context(), int64(i)*window%size, window); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, prefetch := range []int64{0, 16 << 10, 32 << 10, 64 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("open+%dK", prefetch>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, err := d.Open(b.Context(), id)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Prefetch(b.Context(), 0, prefetch); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

var _ = dataio.StalledMax
