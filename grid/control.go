package grid

import (
	"encoding/binary"
	"sync/atomic"
)

// control is a frame without user payload. Credits are computed when they are
// written, so that any number of them becomes one.
type control struct {
	item    item
	typ     frameType
	flags   uint8
	handler uint16
	id      uint64
	body    []byte
	cost    int64 // of the queue's room; answers that the peer provokes

	// A credit that accumulates until it is written.
	linked   atomic.Bool
	bytes    atomic.Int64
	messages atomic.Int64
}

func newControl(typ frameType, id uint64, body []byte) *control {
	c := &control{typ: typ, id: id, body: body}
	c.init(laneControl)
	return c
}

func (c *control) init(l lane) {
	c.item.kind, c.item.lane, c.item.owner = kindControl, l, c
}

// encode writes the frame. It runs in the writer role.
func (c *control) encode(b *batch) {
	h := header{typ: c.typ, flags: c.flags, handler: c.handler, id: c.id}
	switch c.typ {
	case frameCredit:
		c.linked.Store(false)
		var body [8]byte
		binary.LittleEndian.PutUint32(body[:], uint32(c.bytes.Swap(0)))
		binary.LittleEndian.PutUint32(body[4:], uint32(c.messages.Swap(0)))
		b.appendControl(h, body[:])
	case frameSessionCredit:
		c.linked.Store(false)
		var body [8]byte
		binary.LittleEndian.PutUint64(body[:], uint64(c.bytes.Swap(0)))
		b.appendControl(h, body[:])
	default:
		b.appendControl(h, c.body)
		b.freed += c.cost
	}
}

// appendControl encodes a small frame.
func (b *batch) appendControl(h header, body []byte) {
	b.room(headerLen + len(body))
	h.length = uint32(len(body))
	b.buf = appendHeader(b.buf, h)
	b.buf = append(b.buf, body...)
}

// owe adds to a credit and queues it once it is worth a frame. It reports
// whether it queued.
func (c *control) owe(s *session, bytes, messages, worthBytes, worthMessages int64) bool {
	b, m := c.bytes.Add(bytes), c.messages.Add(messages)
	if (b >= worthBytes || m >= worthMessages) && c.linked.CompareAndSwap(false, true) {
		s.push(&c.item)
		return true
	}
	return false
}

// answer queues a control frame that the peer has provoked. It runs in the
// reader, which can't wait: a peer that provokes but does not read is dropped.
func (s *session) answer(c *control) error {
	c.cost = int64(len(c.body) + itemCost)
	if s.room.used.Add(c.cost) > 2*s.room.limit {
		return violation("more answers are due than the peer reads")
	}
	s.push(&c.item)
	s.kicked = true
	return nil
}

// send queues a control frame and kicks.
func (s *session) send(typ frameType, id uint64, body []byte) {
	s.push(&newControl(typ, id, body).item)
	s.kick(s.underWay())
}

// sendNumbered is send for a frame with something in its handler field.
func (s *session) sendNumbered(typ frameType, handler uint16, body []byte) {
	c := newControl(typ, 0, body)
	c.handler = handler
	s.push(&c.item)
	s.kick(s.underWay())
}
