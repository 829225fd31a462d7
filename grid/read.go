package grid

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/gobwas/ws"
)

// errPeerClosed is the cause when the peer said goodbye in the WebSocket way.
var errPeerClosed = errors.New("closed by the peer")

// batchReader reads WebSocket frames into one buffer and hands out their
// payload in place. An idle connection holds a small buffer; a large one is
// borrowed while reads fill it.
type batchReader struct {
	conn   net.Conn
	buf    []byte
	r, w   int
	small  []byte
	large  *arena
	calm   int         // reads in a row that would have fitted the small buffer
	masked bool        // the peer must mask: it dialled
	before func()      // runs before a read that may block
	reads  func(n int) // runs after a read
}

const (
	smallRead = 4 << 10
	calmReads = 4
)

func (r *batchReader) init(s *session) {
	r.conn = s.conn
	r.small = make([]byte, smallRead)
	r.buf = r.small
	r.masked = !s.info.Dialled
	r.before = s.flushReader
	r.reads = func(n int) {
		s.reading.Store(false)
		s.count.bytesIn.Add(uint64(n))
		s.keep.life.Add(1)
	}
}

// unread puts bytes in front that were read with the handshake.
func (r *batchReader) unread(b []byte) {
	if len(b) > len(r.buf) {
		r.borrow()
	}
	r.w = copy(r.buf, b)
}

func (r *batchReader) borrow() {
	if r.large != nil {
		return
	}
	r.large = arenaPool.Get().(*arena)
	r.w = copy(r.large.b, r.buf[r.r:r.w])
	r.r = 0
	r.buf, r.calm = r.large.b, 0
}

func (r *batchReader) giveBack() {
	if r.large == nil {
		return
	}
	arenaPool.Put(r.large)
	r.large, r.buf, r.r, r.w = nil, r.small, 0, 0
}

// fill reads at least one byte more.
func (r *batchReader) fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if r.large != nil && r.calm >= calmReads {
			r.giveBack()
		}
	} else if len(r.buf)-r.w < smallRead/2 || r.r > len(r.buf)/2 {
		if r.large == nil && r.r == 0 {
			r.borrow()
		}
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	room := len(r.buf) - r.w
	r.before()
	n, err := r.conn.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		r.reads(n)
		switch {
		case n < smallRead:
			r.calm++
		case r.large == nil && n == room:
			r.borrow()
		default:
			r.calm = 0
		}
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// need makes n bytes available at r.
func (r *batchReader) need(n int) error {
	if n > len(r.buf) {
		r.borrow()
	}
	for r.w-r.r < n {
		if err := r.fill(); err != nil {
			if r.w > r.r && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if n > len(r.buf)-r.r && r.r > 0 {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		}
	}
	return nil
}

// next reads one WebSocket frame of at most limit payload bytes. The payload
// is valid until the next call.
func (r *batchReader) next(limit int) (op ws.OpCode, payload []byte, err error) {
	if err := r.need(2); err != nil {
		return 0, nil, err
	}
	b0, b1 := r.buf[r.r], r.buf[r.r+1]
	op = ws.OpCode(b0 & 0x0f)
	if b0&0x80 == 0 || b0&0x70 != 0 || op == ws.OpContinuation {
		return 0, nil, violation("a frame that is fragmented or has reserved bits")
	}
	masked := b1&0x80 != 0
	if masked != r.masked {
		return 0, nil, violation("mask bit is %v", masked)
	}
	n, head := uint64(b1&0x7f), 2
	switch n {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	if op.IsControl() && n > ws.MaxControlFramePayloadSize {
		return 0, nil, violation("control frame of over 125 bytes")
	}
	keyAt := head
	if masked {
		head += 4
	}
	if err := r.need(head); err != nil {
		return 0, nil, err
	}
	h := r.buf[r.r : r.r+head]
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		n = binary.BigEndian.Uint64(h[2:])
	}
	if n > uint64(limit) {
		return 0, nil, violation("WebSocket message of %d bytes, limit %d", n, limit)
	}
	var key [4]byte
	if masked {
		copy(key[:], h[keyAt:])
	}
	if err := r.need(head + int(n)); err != nil {
		return 0, nil, err
	}
	payload = r.buf[r.r+head : r.r+head+int(n)]
	r.r += head + int(n)
	if key != ([4]byte{}) {
		ws.Cipher(payload, key, 0)
	}
	return op, payload, nil
}

// readLoop reads batches until the socket or the peer ends. It never blocks
// but in the socket's read.
func (s *session) readLoop() error {
	defer s.in.giveBack()
	for {
		op, payload, err := s.in.next(maxBatchLen)
		if err != nil {
			if errors.Is(err, ErrDisconnected) {
				return err
			}
			return lost("read", err)
		}
		switch op {
		case ws.OpBinary:
			if err := s.readBatch(payload); err != nil {
				s.discardTasks()
				return err
			}
		case ws.OpPing:
			s.sendPong(payload)
		case ws.OpPong:
		case ws.OpClose:
			return s.closedBy(payload)
		default:
			return violation("WebSocket opcode %d", op)
		}
	}
}

// readBatch checks a batch and takes its frames apart.
func (s *session) readBatch(b []byte) error {
	if s.crc {
		if len(b) < crcLen {
			return violation("batch of %d bytes", len(b))
		}
		n := len(b) - crcLen
		if got, want := crc32.Checksum(b[:n], castagnoli), binary.LittleEndian.Uint32(b[n:]); got != want {
			return violation("checksum %08x, announced %08x", got, want)
		}
		b = b[:n]
	}
	s.count.batchesIn.Add(1)
	s.arrived = time.Time{}
	messages := uint64(0)
	for len(b) > 0 {
		if len(b) < headerLen {
			return violation("%d bytes where a frame should be", len(b))
		}
		h := parseHeader(b)
		b = b[headerLen:]
		if uint64(h.length) > uint64(len(b)) {
			return violation("frame of %d bytes with %d left in its batch", h.length, len(b))
		}
		if err := s.dispatch(h, b[:h.length:h.length]); err != nil {
			return err
		}
		if h.typ == frameRequest || h.typ == frameReply || h.typ == frameData {
			messages++
		}
		b = b[h.length:]
	}
	s.count.messagesIn.Add(messages)
	s.submitTasks()
	return nil
}

// submitTasks hands the requests of a batch to the workers at once.
func (s *session) submitTasks() {
	if len(s.tasks) > 0 {
		s.m.work.submit(s.tasks)
		clear(s.tasks)
		s.tasks = s.tasks[:0]
	}
}

// discardTasks gives up the requests of a batch that turned out to be wrong.
func (s *session) discardTasks() {
	for _, c := range s.tasks {
		c.discard()
	}
	clear(s.tasks)
	s.tasks = s.tasks[:0]
}

// flushReader writes what reading has given cause for, once per burst.
func (s *session) flushReader() {
	s.reading.Store(true)
	if s.kicked || s.pushed[laneControl].head.Load() != nil {
		s.kicked = false
		s.kick(0)
	}
}

// kickCredit sees to it that a stream's credit gets written: by the reader,
// with the credits of others and its own, unless that waits for the peer.
func (s *session) kickCredit() {
	if s.reading.Load() {
		s.kick(s.underWay())
	}
}

// sendPong answers a WebSocket ping, which our own ends never send.
func (s *session) sendPong(payload []byte) {
	f := ws.NewPongFrame(append([]byte(nil), payload...))
	s.sendRaw(&rawFrames{b: s.rawFrame(f)})
}

func (s *session) rawFrame(f ws.Frame) []byte {
	if s.maskOut {
		f = ws.MaskFrameInPlace(f)
	}
	b, err := ws.CompileFrame(f)
	if err != nil {
		return nil // not for frames this small
	}
	return b
}

func (s *session) closedBy(payload []byte) error {
	code, reason := ws.ParseCloseFrameData(payload)
	return lost("read", &closeError{code: code, reason: reason})
}

type closeError struct {
	code   ws.StatusCode
	reason string
}

func (e *closeError) Error() string {
	return errPeerClosed.Error() + ": " + e.reason
}

func (e *closeError) Unwrap() error { return errPeerClosed }
