package dataio

import (
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCombineCRC32C(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3*blockBytes+17)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	sum := func(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }
	for _, size := range []int{0, 1, 2, 255, 4096, blockBytes - 1, blockBytes, len(data)} {
		for _, cut := range []int{0, 1, size / 3, size - 1, size} {
			if cut < 0 || cut > size {
				continue
			}
			a, b := data[:cut], data[cut:size]
			if got, want := CombineCRC32C(sum(a), sum(b), int64(len(b))), sum(data[:size]); got != want {
				t.Errorf("%d and %d bytes: %08x, want %08x", len(a), len(b), got, want)
			}
		}
	}
	// What nobody can sum up in a test: 2^41 zeros are twice 2^40 of them, and one
	// more makes the same whether it comes first or last.
	zero := sum([]byte{0})
	zeros, n := zero, int64(1)
	for ; n < 1<<41; n <<= 1 {
		zeros = CombineCRC32C(zeros, zeros, n)
	}
	if first, last := CombineCRC32C(zero, zeros, n), CombineCRC32C(zeros, zero, 1); first != last {
		t.Errorf("%08x, and %08x", first, last)
	}
}

// TestBlockSums: whatever portions a payload comes in, its sums are the same.
func TestBlockSums(t *testing.T) {
	data := make([]byte, 2*blockBytes+1000)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	for _, size := range []int{0, 1, blockBytes, blockBytes + 1, len(data)} {
		var want []uint32
		for block := range slices.Chunk(data[:size], blockBytes) {
			want = append(want, crc32.Checksum(block, castagnoli))
		}
		for _, portion := range []int{999, blockBytes - 1, blockBytes, len(data)} {
			var s blockSums
			for p := range slices.Chunk(data[:size], portion) {
				s.add(p)
			}
			blocks, total := s.end()
			if !slices.Equal(blocks, want) || total != crc32.Checksum(data[:size], castagnoli) {
				t.Errorf("%d bytes in portions of %d: %08x and %08x", size, portion, blocks, total)
			}
		}
	}
}
