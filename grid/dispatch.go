package grid

import (
	"encoding/binary"
	"time"
)

// dispatch acts on one frame. It runs in the reader: nothing here waits. An
// error is a breach of the protocol and ends the session; a frame for a call
// that is over is normal and ignored.
func (s *session) dispatch(h header, body []byte) error {
	ours := h.id&originAcceptor == s.origin
	switch h.typ {
	case frameRequest, frameOpen:
		if ours {
			return violation("a call with one of our own ids")
		}
		return s.onCall(h, body)
	case frameReply:
		return s.onReply(h, body, ours)
	case frameData:
		return s.onData(h, body, ours)
	case frameMore:
		return s.onMore(h, body, ours)
	case frameError:
		return s.onError(h, body, ours)
	case frameCancel:
		s.onCancel(h, ours)
	case frameAccept:
		return s.onAccept(h, body, ours)
	case frameEnd:
		s.onEnd(h, ours)
	case frameCredit:
		if len(body) != 8 {
			return violation("credit of %d bytes", len(body))
		}
		if p := s.pipeOf(h.id, ours); p != nil {
			p.credited(binary.LittleEndian.Uint32(body), binary.LittleEndian.Uint32(body[4:]))
		}
	case frameSessionCredit:
		if len(body) != 8 {
			return violation("session credit of %d bytes", len(body))
		}
		return s.onSessionCredit(binary.LittleEndian.Uint64(body))
	case framePing:
		if len(body) > 64 {
			return violation("ping of %d bytes", len(body))
		}
		return s.answer(newControl(framePong, 0, append([]byte(nil), body...)))
	case framePong:
		s.keep.pong(body)
	case frameGoAway:
		return s.onGoAway(h, body)
	case frameRealm:
		return s.onRealm(string(body))
	default:
		return violation("frame type %d", h.typ)
	}
	return nil
}

func (s *session) onSessionCredit(n uint64) error {
	if n > 1<<40 || s.bulkCredit.Add(int64(n)) > 1<<40 {
		return violation("session credit overflows")
	}
	if s.blocked.Load() {
		s.kickWriter()
	}
	return nil
}

// bulkIn accounts for bulk bytes that are off the socket.
func (s *session) bulkIn(n int) {
	worth := int64(s.m.o.SessionWindow / 2)
	if s.bulkOwed.owe(s, int64(n), 0, worth, 1<<62) {
		s.kicked = true
	}
}

// pipeOf finds the stream of an id, if it is still open here.
func (s *session) pipeOf(id uint64, ours bool) *Pipe {
	if ours {
		if sl := s.slots.at(idIndex(id)); sl != nil {
			if p := sl.pipe.Load(); p != nil && p.id == id {
				return p
			}
		}
		return nil
	}
	if ctx := s.inbound.get(id); ctx != nil {
		return ctx.pipe
	}
	return nil
}

// partial is a message of which frames are still to come.
type partial struct {
	h        header
	total    int
	budget   int    // of the session's reassembly budget; streams have their window
	buf      []byte // from newBuffer; larger messages of streams grow it
	deadline time.Time
	meta     []byte
	window   [2]uint32
}

// partialKey is the same for all generations of a slot: a new message in it
// shows that the old one was given up.
func partialKey(id uint64) uint64 { return id&originAcceptor | uint64(idIndex(id)) }

// begin starts to put a message together.
func (s *session) begin(h header, f first) error {
	if old := s.partials[partialKey(h.id)]; old != nil {
		s.drop(old.h.id)
	}
	p := &partial{h: h, total: int(f.total), deadline: s.deadlineIn(f.remainingMicros)}
	room := min(p.total, 1<<20)
	if h.typ != frameData {
		if s.partialIn > 0 && s.partialIn+p.total > s.m.o.ReassemblyBudget {
			return violation("a message of %d bytes beside %d unfinished ones", p.total, s.partialIn)
		}
		p.budget, room = p.total, p.total
	}
	if f.meta != nil {
		p.meta = append([]byte(nil), f.meta...)
	}
	p.window = [2]uint32{f.windowBytes, f.windowMessages}
	p.buf = append(newBuffer(room)[:0], f.payload...)
	if s.partials == nil {
		s.partials = make(map[uint64]*partial)
	}
	s.partials[partialKey(h.id)] = p
	s.partialIn += p.budget
	return nil
}

// drop forgets an unfinished message.
func (s *session) drop(id uint64) {
	if len(s.partials) == 0 {
		return
	}
	if p := s.partials[partialKey(id)]; p != nil && p.h.id == id {
		s.partialIn -= p.budget
		delete(s.partials, partialKey(id))
	}
}

// onMore adds to an unfinished message and delivers it when it is whole.
func (s *session) onMore(h header, body []byte, ours bool) error {
	s.bulkIn(len(body))
	p := s.partials[partialKey(h.id)]
	if p == nil || p.h.id != h.id {
		return nil // its call is over, or it was refused
	}
	left := p.total - len(p.buf)
	if len(body) > left || (h.flags&flagMore != 0) != (len(body) < left) || len(body) == 0 {
		return violation("a message is not as long as announced")
	}
	p.buf = append(p.buf, body...)
	if h.flags&flagMore != 0 {
		return nil
	}
	s.drop(h.id)
	msg := p.buf // ours alone
	switch p.h.typ {
	case frameReply:
		s.deliverReply(p.h.id, msg, true, false)
	case frameData:
		if pipe := s.pipeOf(h.id, ours); pipe != nil {
			return pipe.deliver(msg)
		}
	default:
		f := first{meta: p.meta, payload: msg, total: uint32(p.total), windowBytes: p.window[0], windowMessages: p.window[1]}
		return s.admit(p.h, f, p.deadline, true)
	}
	return nil
}

func (s *session) onCall(h header, body []byte) error {
	f, ok := parseFirst(h, body)
	if !ok || idIndex(h.id) >= maxCallsInFlight {
		return violation("malformed call")
	}
	s.openedIn.Add(1)
	if h.flags&flagMore == 0 {
		return s.admit(h, f, s.deadlineIn(f.remainingMicros), false)
	}
	if int(f.total) > s.m.o.MaxMessage {
		return s.refuse(h.id, wireError{Kind: kindTooLarge, NotExecuted: true})
	}
	return s.begin(h, f)
}

// deadlineIn makes a deadline of what remains of a call's time. All calls of a
// batch arrive at once: the clock is read for the first of them.
func (s *session) deadlineIn(micros uint64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	if s.arrived.IsZero() {
		s.arrived = time.Now()
	}
	return s.arrived.Add(time.Duration(min(micros, 1<<50)) * time.Microsecond)
}

func (s *session) onReply(h header, body []byte, ours bool) error {
	f, ok := parseFirst(h, body)
	if !ok || !ours {
		return violation("malformed reply")
	}
	if h.flags&flagMore == 0 {
		s.drop(h.id)
		s.deliverReply(h.id, f.payload, false, h.flags&flagNil != 0)
		return nil
	}
	if int(f.total) > s.m.o.MaxMessage {
		return violation("a reply of %d bytes", f.total)
	}
	if !s.slots.waits(h.id) {
		s.drop(h.id)
		return nil // the caller has gone; the sender will hear of it
	}
	return s.begin(h, f)
}

// deliverReply completes a call. owned says that msg may be given away.
func (s *session) deliverReply(id uint64, msg []byte, owned, isNil bool) {
	sl := s.slots.claim(id)
	if sl == nil {
		return
	}
	switch {
	case isNil:
		sl.resp = sl.dst
	case owned:
		sl.resp = msg
		sl.whole = sl.dst != nil // the caller copies, not the reader
	case sl.dst == nil:
		sl.resp = newMessage(msg)
	default:
		sl.resp = append(sl.dst, msg...)
	}
	sl.deliver()
}

func (s *session) onData(h header, body []byte, ours bool) error {
	f, ok := parseFirst(h, body)
	if !ok {
		return violation("malformed stream message")
	}
	s.bulkIn(len(f.payload))
	p := s.pipeOf(h.id, ours)
	if p == nil {
		s.drop(h.id)
		return nil
	}
	if h.flags&flagMore != 0 {
		if int(f.total) > s.m.o.MaxMessage {
			return violation("a stream message of %d bytes", f.total)
		}
		return s.begin(h, f)
	}
	if h.flags&flagNil != 0 {
		return p.deliver(nil)
	}
	return p.deliver(newMessage(f.payload))
}

func (s *session) onError(h header, body []byte, ours bool) error {
	var w wireError
	if err := w.decode(body); err != nil || !ours {
		return violation("malformed error")
	}
	s.drop(h.id)
	if p := s.pipeOf(h.id, true); p != nil {
		p.remoteEnd(w.error("stream", s.peer.name, p.handler))
		return nil
	}
	if sl := s.slots.claim(h.id); sl != nil {
		sl.err = w.error("request", s.peer.name, sl.out.handler)
		sl.resp = sl.dst
		sl.deliver()
	}
	return nil
}

func (s *session) onCancel(h header, ours bool) {
	s.drop(h.id)
	if ours {
		return // the peer gave up a reply whose caller had gone
	}
	if ctx := s.inbound.take(h.id); ctx != nil {
		ctx.abandon()
		if ctx.pipe != nil {
			ctx.pipe.abort(errCancelledByPeer)
		}
	}
}

func (s *session) onAccept(h header, body []byte, ours bool) error {
	if !ours || len(body) != 12 {
		return violation("malformed accept")
	}
	if p := s.pipeOf(h.id, true); p != nil {
		p.onAccept(h.flags&flagInput != 0, binary.LittleEndian.Uint32(body),
			binary.LittleEndian.Uint32(body[4:]), binary.LittleEndian.Uint32(body[8:]))
	}
	return nil
}

func (s *session) onEnd(h header, ours bool) {
	if p := s.pipeOf(h.id, ours); p != nil {
		if ours {
			p.remoteEnd(nil)
		} else {
			p.inputEnd()
		}
	}
}
