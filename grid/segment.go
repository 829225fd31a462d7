package grid

import "sync"

// segment is a run of encoded stream frames, filled by senders and taken
// whole by the writer. Small messages share one; a large message has one for
// each of its frames.
type segment struct {
	next     *segment
	b        []byte // frames; with ext, the last header only
	ext      []byte // payload of the last frame where it was handed over
	bulk     int    // payload bytes
	messages int    // that begin here
	pool     *sync.Pool
}

func (g *segment) size() int { return len(g.b) + len(g.ext) }

// The sizes that segments come in: a short burst, a full chunk of small
// messages, the largest frame.
const (
	smallSegment = 2 << 10
	chunkSegment = chunkLen + headerLen
	largeSegment = maxChunkLen + headerLen + 4
)

func segmentPool(size int) *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any { return &segment{b: make([]byte, 0, size), pool: pool} }
	return pool
}

var (
	smallSegments = segmentPool(smallSegment)
	chunkSegments = segmentPool(chunkSegment)
	largeSegments = segmentPool(largeSegment)
)

// newSegment gives an empty segment with room for n bytes.
func newSegment(n int) *segment {
	switch {
	case n <= smallSegment:
		return smallSegments.Get().(*segment)
	case n <= chunkSegment:
		return chunkSegments.Get().(*segment)
	}
	return largeSegments.Get().(*segment)
}

func (g *segment) free() {
	poison(g.b)
	g.next, g.b, g.ext, g.bulk, g.messages = nil, g.b[:0], nil, 0, 0
	g.pool.Put(g)
}

// appendSegment moves a segment into the batch, by reference where it pays.
func (b *batch) appendSegment(g *segment) {
	b.bulk += g.bulk
	b.messages += uint64(g.messages)
	b.freed += int64(g.size())
	if b.mayRefer && g.size() >= refMin {
		b.reference(g.b)
		if len(g.ext) > 0 {
			b.reference(g.ext)
		}
		b.segments = append(b.segments, g)
		return
	}
	b.room(g.size())
	b.buf = append(b.buf, g.b...)
	b.buf = append(b.buf, g.ext...)
	g.free()
}
