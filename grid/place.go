package grid

import (
	"cmp"
	"io"

	"github.com/gobwas/ws"
)

// A batch often ends in one large chunk. Where most of it is still in the
// socket when its header has arrived, it is read from there into the memory
// that it is for: a copy less of what is likely not to be in the caches. All
// else about the batch stays as it is: nothing is acted upon before all of it
// is here and its checksum was verified.

const (
	minPlaced   = 16 << 10 // payload that is worth a system call of its own
	placingRead = 8 << 10  // what is read of a batch before its last payload is placed
)

// placeLast looks for such a chunk at the end of the batch of n bytes at r
// after head bytes of WebSocket header. If there is one it is read, cut out of
// the batch and left in placed. It returns what is then the batch's size.
func (r *batchReader) placeLast(op ws.OpCode, head, n int, key [4]byte) (int, error) {
	r.placed = nil
	here := r.w - r.r - head
	if op != ws.OpBinary || n < minPlaced || key != [4]byte{} {
		return n, nil // small batches in between change nothing
	}
	at := lastFrame(r.buf[r.r+head:min(r.w, r.r+head+n)], n-r.tail)
	if r.placing = at >= 0; !r.placing || n-here < minPlaced {
		return n, nil
	}
	frames := r.buf[r.r+head : r.r+head+at+headerLen]
	dst := r.place(parseHeader(frames[at:]), frames[:at])
	if r.placing = dst != nil; !r.placing {
		return n, nil
	}
	got := copy(dst, r.buf[r.r+head+at+headerLen:r.w])
	r.w = r.r + head + at + headerLen
	for got < len(dst) {
		r.before()
		m, err := r.conn.Read(dst[got:])
		if m <= 0 {
			return 0, cmp.Or(err, io.ErrNoProgress)
		}
		r.reads(m)
		got += m
	}
	r.placed = dst
	return n - len(dst), nil
}

// lastFrame finds the header of the frame that ends at end, if everything up
// to and including it is in b and its payload is a large one; -1 otherwise.
func lastFrame(b []byte, end int) int {
	for at := 0; at+headerLen <= len(b); {
		h := parseHeader(b[at:])
		if h.length > maxBatchLen {
			return -1
		}
		next := at + headerLen + int(h.length)
		if next == end && h.length >= minPlaced {
			return at
		}
		if next > len(b) {
			return -1
		}
		at = next
	}
	return -1
}

// placeFor gives the memory that a frame's payload is to be read into, nil
// where that is not known before the frames in front of it were acted upon.
func (s *session) placeFor(h header, before []byte) []byte {
	ours := h.id&originAcceptor == s.origin
	switch {
	case h.typ == frameData && h.flags == 0:
		if s.pipeOf(h.id, ours) != nil {
			return newBuffer(int(h.length))
		}
	case h.typ == frameMore:
		p := s.partials[partialKey(h.id)]
		if p == nil || p.h.id != h.id || cap(p.buf)-len(p.buf) < int(h.length) {
			return nil
		}
		for ; len(before) > 0; before = before[headerLen+parseHeader(before).length:] {
			if parseHeader(before).id == h.id {
				return nil // the message will be longer when it is this frame's turn
			}
		}
		return p.buf[len(p.buf) : len(p.buf)+int(h.length)]
	}
	return nil
}

// dispatchPlaced is dispatch for a frame whose payload is in its place.
func (s *session) dispatchPlaced(h header, payload []byte) error {
	ours := h.id&originAcceptor == s.origin
	if h.typ == frameMore {
		return s.onMore(h, payload, ours, true)
	}
	s.bulkIn(len(payload))
	if p := s.pipeOf(h.id, ours); p != nil {
		return p.deliver(payload)
	}
	return nil
}
