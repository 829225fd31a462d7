package grid

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// wsHeaderRoom is the most a WebSocket frame header takes.
const wsHeaderRoom = ws.MaxHeaderSize

// refMin is the size from which a buffer that may be referenced is not copied
// into the batch: below it an entry in the vector costs more than the copy.
const refMin = 8 << 10

// batch is one WebSocket message being put together: an arena with room for
// the header in front, and references that are cut in where they belong.
type batch struct {
	buf      []byte
	large    *arena // buf's memory under load
	small    []byte // meanwhile the small one
	refs     []batchRef
	refBytes int
	mayRefer bool
	bulk     int        // payload bytes that count against the session window
	freed    int64      // queue bytes that this batch makes room for
	messages uint64     // for the counters
	now      time.Time  // when the first deadline was put in
	segments []*segment // to recycle after the write
	vector   net.Buffers
	spine    net.Buffers // vector's memory: writing consumes the former
}

type batchRef struct {
	at int // offset in buf before which data goes
	b  []byte
}

func (b *batch) reset() {
	if cap(b.buf) == 0 {
		b.buf = make([]byte, 0, smallBatch)
	}
	b.buf = b.buf[:wsHeaderRoom]
	clear(b.refs)
	b.refs = b.refs[:0]
	b.refBytes, b.bulk, b.freed, b.messages = 0, 0, 0, 0
	b.now = time.Time{}
}

// size is the payload so far.
func (b *batch) size() int { return len(b.buf) - wsHeaderRoom + b.refBytes }

func (b *batch) empty() bool { return len(b.buf) == wsHeaderRoom && b.refBytes == 0 }

func (b *batch) reference(p []byte) {
	b.refs = append(b.refs, batchRef{at: len(b.buf), b: p})
	b.refBytes += len(p)
}

// seal ends the batch: checksum, mask, header. It leaves the bytes to write
// in vector and returns how many they are.
func (b *batch) seal(crc, mask bool, key [4]byte) int {
	if crc {
		sum, at := uint32(0), wsHeaderRoom
		for _, r := range b.refs {
			sum = crc32.Update(sum, castagnoli, b.buf[at:r.at])
			sum = crc32.Update(sum, castagnoli, r.b)
			at = r.at
		}
		sum = crc32.Update(sum, castagnoli, b.buf[at:])
		b.buf = binary.LittleEndian.AppendUint32(b.buf, sum)
	}
	n := b.size()
	if mask && key != ([4]byte{}) {
		ws.Cipher(b.buf[wsHeaderRoom:], key, 0) // such links take no references
	}
	start := putWSHeader(b.buf[:wsHeaderRoom], n, mask, key)
	b.vector = b.spine[:0]
	at := start
	for _, r := range b.refs {
		if r.at > at {
			b.vector = append(b.vector, b.buf[at:r.at])
			at = r.at
		}
		b.vector = append(b.vector, r.b)
	}
	if at < len(b.buf) {
		b.vector = append(b.vector, b.buf[at:])
	}
	b.spine = b.vector
	return n + wsHeaderRoom - start
}

// room makes the arena large enough for n more bytes: there are two sizes,
// the small one that every session keeps and a large one borrowed under load.
func (b *batch) room(n int) {
	if cap(b.buf)-len(b.buf) >= n || b.large != nil {
		return
	}
	b.large = arenaPool.Get().(*arena)
	b.small = b.buf[:0]
	b.buf = append(b.large.b[:0], b.buf...)
}

// written lets go of what the batch referenced.
func (b *batch) written() {
	for i, seg := range b.segments {
		seg.free()
		b.segments[i] = nil
	}
	b.segments = b.segments[:0]
	clear(b.spine[:cap(b.spine)])
	b.vector = nil
}

// idle returns what was borrowed.
func (b *batch) idle() {
	if b.large != nil {
		arenaPool.Put(b.large)
		b.large, b.buf, b.small = nil, b.small, nil
	}
}

const smallBatch = 4 << 10 // what an idle session keeps

// arena is the large buffer of a busy writer or reader.
type arena struct{ b []byte }

const arenaLen = 256 << 10

var arenaPool = sync.Pool{New: func() any { return &arena{b: make([]byte, arenaLen)} }}

// putWSHeader writes the header of a binary message of n bytes at the end of
// room and returns where it starts.
func putWSHeader(room []byte, n int, mask bool, key [4]byte) int {
	at := len(room)
	bit := byte(0)
	if mask {
		at -= 4
		copy(room[at:], key[:])
		bit = 0x80
	}
	switch {
	case n < 126:
		at--
		room[at] = bit | byte(n)
	case n <= 0xffff:
		at -= 3
		room[at] = bit | 126
		binary.BigEndian.PutUint16(room[at+1:], uint16(n))
	default:
		at -= 9
		room[at] = bit | 127
		binary.BigEndian.PutUint64(room[at+1:], uint64(n))
	}
	at--
	room[at] = 0x80 | byte(ws.OpBinary)
	return at
}

// appendFirst encodes the next frame of m with at most limit payload bytes.
// It reports whether the message is complete.
func (b *batch) appendMessage(m *outMessage, limit int) bool {
	rest := m.payload[m.off:]
	n := min(len(rest), limit)
	h := header{typ: m.typ, handler: uint16(m.handler), id: m.id}
	if n < len(rest) {
		h.flags |= flagMore
	}
	b.room(headerLen + maxExtras + len(m.meta()) + n)
	at := len(b.buf)
	b.buf = append(b.buf, zeroHeader[:]...)
	if m.started {
		h.typ = frameMore
		b.bulk += n
	} else {
		b.appendExtras(&h, m)
		m.started = true
	}
	h.length = uint32(len(b.buf) - at - headerLen + n)
	appendHeader(b.buf[at:at], h)
	if b.mayRefer && m.owned && n >= refMin {
		b.reference(rest[:n])
	} else {
		b.buf = append(b.buf, rest[:n]...)
	}
	m.off += n
	return n == len(rest)
}

var zeroHeader [headerLen]byte

const maxExtras = 8 + 4 + 8 + 2 // windows, total, deadline, length of metadata

// appendExtras encodes what precedes the payload in a first frame.
func (b *batch) appendExtras(h *header, m *outMessage) {
	if m.isNil {
		h.flags |= flagNil
	}
	if m.typ == frameOpen {
		b.buf = append(b.buf, m.extra.fixed[:]...)
	}
	if h.flags&flagMore != 0 {
		b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(len(m.payload)))
	}
	if !m.deadline.IsZero() {
		h.flags |= flagDeadline
		b.buf = binary.LittleEndian.AppendUint64(b.buf, b.remainingMicros(m.deadline))
	}
	if meta := m.meta(); meta != nil {
		h.flags |= flagMeta
		b.buf = binary.LittleEndian.AppendUint16(b.buf, uint16(len(meta)))
		b.buf = append(b.buf, meta...)
	}
}

// remainingMicros is what remains of a call's time. All calls of a batch leave
// at once: the clock is read for the first of them.
func (b *batch) remainingMicros(deadline time.Time) uint64 {
	if b.now.IsZero() {
		b.now = time.Now()
	}
	return uint64(max(deadline.Sub(b.now).Microseconds(), 1))
}
