package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"

	"github.com/minio/crc64nvme"

	"github.com/gridloom/gridloom/node/fault"
)

// chunkBytes is how much of a body is read, summed up and written at a time.
// It is also the largest payload that goes over the grid, so that such a body
// is one chunk.
const chunkBytes = GridMaxBytes

// chunk is a part of a body. Chunks are pooled by the service.
type chunk struct {
	n   int
	buf [chunkBytes]byte
}

func (c *chunk) bytes() []byte { return c.buf[:c.n] }

// castagnoli is computed once by hash/crc32 and read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums are the checksums of one object.
type sums struct {
	sizeBytes int64
	sha256    hash.Hash
	crc32c    uint32
	crc64nvme uint64
}

func newSums() *sums { return &sums{sha256: sha256.New()} }

func (s *sums) add(p []byte) {
	s.sizeBytes += int64(len(p))
	s.sha256.Write(p)
	s.crc32c = crc32.Update(s.crc32c, castagnoli, p)
	s.crc64nvme = crc64nvme.Update(s.crc64nvme, p)
}

// verify compares what a client says that its bytes sum up to.
func (s *sums) verify(checksums []Checksum) error {
	for _, c := range checksums {
		var name string
		var want []byte
		switch c.Algorithm {
		case SHA256:
			name, want = "sha256", s.sha256.Sum(nil)
		case CRC32C:
			name, want = "crc32c", binary.BigEndian.AppendUint32(nil, s.crc32c)
		case CRC64NVME:
			name, want = "crc64nvme", binary.BigEndian.AppendUint64(nil, s.crc64nvme)
		default:
			return fault.New(fault.InvalidArgument, "checksum", "has the unknown algorithm %d", c.Algorithm)
		}
		if len(c.Value) != len(want) {
			return fault.New(fault.InvalidArgument, "checksum", "%s has %d bytes, not %d", name, len(want), len(c.Value))
		}
		if !bytes.Equal(c.Value, want) {
			return fault.New(fault.ChecksumMismatch, "checksum", "%s of what arrived is %x, not %x as it was said", name, want, c.Value)
		}
	}
	return nil
}

// hasher sums up chunks in a goroutine of its own, so that it overlaps with
// reading the next chunk and writing this one: 1.4 times as fast on two busy
// cores as doing one after the other (BenchmarkSums). It owns chunksPerPut
// chunks at most, which bounds how far it can fall behind.
type hasher struct {
	sums *sums
	in   chan *chunk
	free chan *chunk // summed up, to be filled again
	made int
	pool func() *chunk
	done chan struct{} // closed when the goroutine has ended
}

// chunksPerPut: one being read or written, one being summed up, one between.
const chunksPerPut = 3

// newHasher starts the goroutine; finish joins it.
func newHasher(s *sums, pool func() *chunk) *hasher {
	h := &hasher{
		sums: s,
		in:   make(chan *chunk, chunksPerPut),
		free: make(chan *chunk, chunksPerPut),
		pool: pool,
		done: make(chan struct{}),
	}
	go func() {
		defer close(h.done)
		for c := range h.in {
			h.sums.add(c.bytes())
			h.free <- c
		}
	}()
	return h
}

// adopt counts a chunk, which add will be called with, as the hasher's.
func (h *hasher) adopt() { h.made++ }

// next returns a chunk to fill, once there is one.
func (h *hasher) next() *chunk {
	if h.made < chunksPerPut {
		select {
		case c := <-h.free:
			return c
		default:
			h.made++
			return h.pool()
		}
	}
	return <-h.free
}

// add has a chunk summed up. Its bytes can be read until next is called again,
// and must not be changed.
func (h *hasher) add(c *chunk) { h.in <- c }

// finish waits until everything is summed up, and gives the chunks to put.
func (h *hasher) finish(put func(*chunk)) {
	close(h.in)
	<-h.done
	close(h.free)
	for c := range h.free {
		put(c)
	}
}
