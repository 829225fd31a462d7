package grid

import "encoding/binary"

// The frame layout; SPEC.md describes it for other implementers and
// spec_test.go pins every constant below.
const (
	headerLen = 16 // bytes of every frame header

	chunkLen    = 16 << 10  // payload of one frame while others wait
	maxChunkLen = 64 << 10  // payload of one frame at most
	maxBatchLen = 160 << 10 // payload of one WebSocket message at most
	crcLen      = 4         // CRC32C at the end of a batch on plaintext links
)

type frameType uint8

// The frame types. Direction matters: an id names a call of one end, so the
// same type means one thing from the end that opened the call and another
// from the end that serves it.
const (
	frameRequest       frameType = 1  // opener: first frame of a single request
	frameReply         frameType = 2  // server: first frame of its answer
	frameError         frameType = 3  // server: the call failed; msgpack wireError
	frameCancel        frameType = 4  // either: the sender has dropped the call or its message
	frameOpen          frameType = 5  // opener: first frame of a stream's opening
	frameAccept        frameType = 6  // server: the stream is open; windows
	frameData          frameType = 7  // either: first frame of a stream message
	frameMore          frameType = 8  // either: the message begun before goes on
	frameEnd           frameType = 9  // either: clean end of this direction
	frameCredit        frameType = 10 // either: bytes and messages the receiver's user has taken
	frameSessionCredit frameType = 11 // bulk bytes read off the socket
	framePing          frameType = 12
	framePong          frameType = 13
	frameGoAway        frameType = 14
	frameRealm         frameType = 15
)

// Frame flags.
const (
	flagMore     uint8 = 1 << 0 // the message goes on in frameMore; first frames carry its total
	flagNil      uint8 = 1 << 1 // the payload is nil, as opposed to empty
	flagDeadline uint8 = 1 << 2 // remaining time in microseconds follows
	flagMeta     uint8 = 1 << 3 // metadata follows
	flagInput    uint8 = 1 << 4 // frameAccept: the handler takes input
)

// The phases of frameGoAway, in its handler field.
const (
	goAwaySoon  uint16 = 1 // open no more calls, and acknowledge
	goAwayAck   uint16 = 2 // the receiver of goAwaySoon will open no more
	goAwayFinal uint16 = 3 // calls beyond the count were not executed
)

// An id is one call on one session: origin in bit 63, generation in bits 32
// to 62, slot index in the rest. The generation keeps a late frame from
// hitting the next call in the same slot; the origin keeps the two ends' ids
// apart.
const (
	originAcceptor uint64 = 1 << 63
	generationMask uint32 = 1<<31 - 1
)

func makeID(origin uint64, gen, index uint32) uint64 {
	return origin | uint64(gen&generationMask)<<32 | uint64(index)
}

func idIndex(id uint64) uint32      { return uint32(id) }
func idGeneration(id uint64) uint32 { return uint32(id>>32) & generationMask }

type header struct {
	typ     frameType
	flags   uint8
	handler uint16
	length  uint32 // bytes after the header
	id      uint64
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, byte(h.typ), h.flags, byte(h.handler), byte(h.handler>>8))
	b = binary.LittleEndian.AppendUint32(b, h.length)
	return binary.LittleEndian.AppendUint64(b, h.id)
}

// parseHeader reads a header from b, which holds at least headerLen bytes.
func parseHeader(b []byte) header {
	_ = b[headerLen-1]
	return header{
		typ:     frameType(b[0]),
		flags:   b[1],
		handler: binary.LittleEndian.Uint16(b[2:]),
		length:  binary.LittleEndian.Uint32(b[4:]),
		id:      binary.LittleEndian.Uint64(b[8:]),
	}
}

// first is what a frameRequest, frameOpen, frameReply or frameData carries
// besides its header.
type first struct {
	windowBytes, windowMessages uint32 // frameOpen
	total                       uint32 // of the message; len(payload) where it is whole
	remainingMicros             uint64 // flagDeadline
	meta                        []byte // flagMeta
	payload                     []byte
}

// parseFirst cuts body apart in the fixed order windows, total, deadline,
// metadata, payload. It allocates nothing and accepts nothing inconsistent.
func parseFirst(h header, body []byte) (f first, ok bool) {
	if h.typ == frameOpen {
		if len(body) < 8 {
			return f, false
		}
		f.windowBytes = binary.LittleEndian.Uint32(body)
		f.windowMessages = binary.LittleEndian.Uint32(body[4:])
		body = body[8:]
	}
	if h.flags&flagMore != 0 {
		if len(body) < 4 {
			return f, false
		}
		f.total = binary.LittleEndian.Uint32(body)
		body = body[4:]
	}
	if h.flags&flagDeadline != 0 {
		if len(body) < 8 {
			return f, false
		}
		f.remainingMicros = binary.LittleEndian.Uint64(body)
		body = body[8:]
	}
	if h.flags&flagMeta != 0 {
		if len(body) < 2 {
			return f, false
		}
		n := int(binary.LittleEndian.Uint16(body))
		if len(body) < 2+n || n > MaxMetadata {
			return f, false
		}
		f.meta, body = body[2:2+n], body[2+n:]
	}
	f.payload = body
	switch {
	case h.flags&flagNil != 0:
		return f, len(body) == 0 && h.flags&flagMore == 0
	case h.flags&flagMore != 0:
		return f, len(body) > 0 && uint64(f.total) > uint64(len(body))
	}
	f.total = uint32(len(body))
	return f, true
}
