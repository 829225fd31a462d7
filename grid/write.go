package grid

import "runtime"

// The writer is a role, not a goroutine. Whoever pushes an item and finds the
// role free takes it: on a quiet link the caller itself writes its request,
// without a switch to another goroutine. It never blocks in that: what the
// socket does not take at once goes, with the role, to the session's writer
// goroutine, which may block.

func yield() { runtime.Gosched() }

// push queues an item; the caller kicks afterwards.
func (s *session) push(it *item) { s.pushed[it.lane].push(it) }

// kick sees to it that what was pushed gets written. others is how many
// calls, beside the kicker's own, are under way: with company it lets them
// run first, so that their frames share its system call.
func (s *session) kick(others int64) {
	if !s.role.CompareAndSwap(0, 1) {
		return
	}
	if s.direct == nil {
		s.wakeWriter()
		return
	}
	if others > 0 {
		yield()
	}
	s.flushDirect()
}

// kickWriter is kick for data that can wait for the writer goroutine and is
// better off there: streams, which go on meanwhile.
func (s *session) kickWriter() {
	if s.role.CompareAndSwap(0, 1) {
		s.wakeWriter()
	}
}

// wakeWriter passes the role, which the caller holds, to the writer goroutine.
func (s *session) wakeWriter() { s.writerWake <- struct{}{} }

// others is the number of calls under way on the session.
func (s *session) underWay() int64 { return s.slots.used.Load() + s.serving.Load() }

// flushDirect writes small frames from the goroutine of whoever kicked.
func (s *session) flushDirect() {
	for pass := 0; ; pass++ {
		s.collect()
		if pass == 2 || s.lists[laneStream].head != nil || s.lists[laneBulk].head != nil || s.rawOut.Load() != nil {
			s.wakeWriter()
			return
		}
		if !s.fill(false) {
			if s.leave() {
				return
			}
			continue
		}
		n := s.seal()
		wrote, err := s.direct.write(s.batch.vector[0])
		if err != nil {
			s.fail(lost("write", err))
			return // keeping the role: nothing is written any more
		}
		if wrote < n {
			s.rest = s.batch.vector[0][wrote:]
			s.restLen = n
			s.wakeWriter()
			return
		}
		s.wrote(n)
	}
}

// writeLoop is the writer goroutine.
func (s *session) writeLoop() {
	for {
		select {
		case <-s.writerWake:
		case <-s.dead:
			return
		}
		if !s.flushBlocking() {
			return
		}
	}
}

// flushBlocking writes until nothing is left that may go, then leaves the
// role. It reports whether the session is alive.
func (s *session) flushBlocking() bool {
	for {
		if s.rest != nil {
			if !s.writeRest() {
				return false
			}
		}
		yield() // let those run who are about to push: one write for all of them
		s.collect()
		any := s.fill(true)
		if raw := s.rawOut.Load(); raw != nil && !(raw.last && any) {
			s.rawOut.CompareAndSwap(raw, nil)
			if !s.writeRaw(raw) {
				return false
			}
		}
		if !any {
			if s.leave() {
				return true
			}
			continue
		}
		n := s.seal()
		s.writeMark.Add(1)
		var err error
		if len(s.batch.vector) == 1 {
			_, err = s.conn.Write(s.batch.vector[0])
		} else {
			_, err = s.batch.vector.WriteTo(s.conn)
		}
		s.writeMark.Add(1)
		if err != nil {
			s.fail(lost("write", err))
			return false
		}
		s.wrote(n)
	}
}

// writeRest ends a batch that a direct write began.
func (s *session) writeRest() bool {
	s.writeMark.Add(1)
	_, err := s.conn.Write(s.rest)
	s.writeMark.Add(1)
	s.rest = nil
	if err != nil {
		s.fail(lost("write", err))
		return false
	}
	s.wrote(s.restLen)
	return true
}

// writeRaw sends ready WebSocket control frames: a pong, a close.
func (s *session) writeRaw(raw *rawFrames) bool {
	s.writeMark.Add(1)
	_, err := s.conn.Write(raw.b)
	s.writeMark.Add(1)
	if raw.done != nil {
		close(raw.done)
	}
	if err != nil {
		s.fail(lost("write", err))
		return false
	}
	return true
}

// rawFrames are WebSocket frames outside any batch.
type rawFrames struct {
	b    []byte
	last bool          // nothing follows: it waits for all that is to be written
	done chan struct{} // closed when they are written, if not nil
}

// sendRaw queues a WebSocket control frame; a newer one may replace it.
func (s *session) sendRaw(raw *rawFrames) {
	s.rawOut.Store(raw)
	s.kickWriter()
}

// leave gives the role back. It reports false when something turned up
// meanwhile and the caller has the role again.
func (s *session) leave() bool {
	s.batch.idle()
	s.role.Store(0)
	return !s.pending() || !s.role.CompareAndSwap(0, 1)
}

// pending reports that there is something to write for which nobody may be
// on the way.
func (s *session) pending() bool {
	for i := range s.pushed {
		if s.pushed[i].head.Load() != nil {
			return true
		}
	}
	return s.rawOut.Load() != nil || s.blocked.Load() && s.bulkCredit.Load() > 0
}

// collect moves what was pushed into the writer's lists. The control lane is
// emptied last: what was pushed before data must not come out after it.
func (s *session) collect() {
	for l := int(laneCount) - 1; l >= 0; l-- {
		if s.pushed[l].head.Load() != nil {
			s.lists[l].append(s.pushed[l].takeAll())
		}
	}
}

func (s *session) seal() int {
	n := s.batch.seal(s.crc, s.maskOut, s.maskKey)
	if s.batch.bulk > 0 {
		s.bulkCredit.Add(-int64(s.batch.bulk))
	}
	return n
}

// wrote accounts for a batch that is with the kernel.
func (s *session) wrote(n int) {
	s.batch.written()
	s.count.bytesOut.Add(uint64(n))
	s.count.batchesOut.Add(1)
	s.count.messagesOut.Add(s.batch.messages)
	if s.batch.freed > 0 {
		s.room.release(s.batch.freed)
		s.noteQuiet()
	}
}

// The shares of one batch, in bytes at which a lane's turn ends. Together,
// with the last item of each, they stay below maxBatchLen.
const (
	controlShare     = 16 << 10
	interactiveShare = 32 << 10
	flowShare        = maxChunkLen // stream and bulk together

	streamWeight = 3 // of the flow share, while both want it
	bulkWeight   = 1
)

// fill puts the next batch together and reports whether there is anything in
// it. Without flows only the two lanes of small messages are looked at.
func (s *session) fill(flows bool) bool {
	b := &s.batch
	b.reset()
	b.mayRefer = s.refs && flows // a direct write takes one piece
	s.fillSmall(laneControl, controlShare)
	s.fillSmall(laneInteractive, b.size()+interactiveShare)
	// A stream's messages must not come before its open reply, of which there
	// may be more than a batch has room for.
	if flows && (s.lists[laneControl].head == nil || s.accepts.Load() == 0) {
		s.fillFlows()
	}
	return !b.empty()
}

// fillSmall takes whole items until the batch has upTo bytes.
func (s *session) fillSmall(l lane, upTo int) {
	for s.batch.size() < upTo {
		it := s.lists[l].pop()
		if it == nil {
			return
		}
		switch it.kind {
		case kindControl:
			c := it.owner.(*control)
			c.encode(&s.batch)
			if c.typ == frameAccept {
				s.accepts.Add(-1)
			}
		case kindCall:
			s.takeCall(it.owner.(*slot), maxChunkLen)
		case kindReply:
			s.takeReply(it.owner.(*servedCall), maxChunkLen)
		case kindPipe:
			s.takePipe(it.owner.(*Pipe), flowShare, false)
		}
	}
}

// fillFlows takes chunks from streams and large messages, round robin within
// a lane and by weight between the two, as far as the session window allows.
func (s *session) fillFlows() {
	start := s.batch.size()
	for {
		room := flowShare - (s.batch.size() - start)
		if room <= 0 {
			return
		}
		l, ok := s.pickFlow()
		if !ok {
			s.blocked.Store(false)
			return
		}
		if s.bulkCredit.Load()-int64(s.batch.bulk) <= 0 {
			if !s.blocked.Swap(true) {
				s.count.windowWaits.Add(1)
			}
			return
		}
		list := &s.lists[l]
		it := list.pop()
		alone := list.head == nil && s.lists[laneStream].head == nil
		before := s.batch.size()
		again, full := s.takeFlow(it, room, alone)
		switch {
		case full: // its next segment is for the next batch
			it.next = list.head
			list.head = it
			if list.tail == nil {
				list.tail = it
			}
			return
		case again && s.batch.size() == before: // waits for the peer's reassembly budget
			s.parked[l-laneStream].pushBack(it)
		case again:
			list.pushBack(it)
		}
		s.flowSent[l-laneStream] += s.batch.size() - before
	}
}

// pickFlow chooses between the stream and the bulk lane.
func (s *session) pickFlow() (lane, bool) {
	stream, bulk := s.lists[laneStream].head != nil, s.lists[laneBulk].head != nil
	if stream && bulk {
		if s.flowSent[0]*bulkWeight <= s.flowSent[1]*streamWeight {
			return laneStream, true
		}
		return laneBulk, true
	}
	s.flowSent = [2]int{}
	if stream {
		return laneStream, true
	}
	return laneBulk, bulk
}

// takeFlow takes one chunk of an item. again says that more of it is to come,
// full that it was not touched because the batch has no room for it.
func (s *session) takeFlow(it *item, room int, alone bool) (again, full bool) {
	limit := chunkLen
	if alone {
		limit = maxChunkLen
	}
	limit = min(limit, room)
	switch it.kind {
	case kindCall:
		if it.owner.(*slot).out.waitsFor(room) {
			return true, true
		}
		return s.takeCall(it.owner.(*slot), limit), false
	case kindReply:
		if it.owner.(*servedCall).out.waitsFor(room) {
			return true, true
		}
		return s.takeReply(it.owner.(*servedCall), limit), false
	case kindPipe:
		return s.takePipe(it.owner.(*Pipe), room, room < flowShare)
	case kindControl:
		it.owner.(*control).encode(&s.batch)
	}
	return false, false
}

// takeCall encodes the next chunk of a call; true when more is to come.
func (s *session) takeCall(sl *slot, limit int) bool {
	m := &sl.out
	state := &sl.item.state
	if !state.CompareAndSwap(itemQueued, itemBusy) && !state.CompareAndSwap(itemPartial, itemBusy) {
		// Cancelled while queued: this is where the slot becomes free again.
		// The peer hears of it before anything else may use the slot's index,
		// or the room that the message had in its reassembly budget.
		if m.started {
			s.batch.appendControl(header{typ: frameCancel, id: m.id}, nil)
			s.partialEnded(m)
		}
		s.batch.freed += int64(m.cost())
		s.slots.release(sl)
		return false
	}
	if !m.started {
		if !s.mayBegin(m) {
			state.Store(itemQueued)
			return true
		}
		s.openedOut++
		sl.seq = s.openedOut
	}
	if !s.batch.appendMessage(m, limit) {
		state.Store(itemPartial)
		return true
	}
	s.ended(m)
	state.Store(itemSent)
	return false
}

// mayBegin claims the peer's reassembly budget for a message in chunks.
func (s *session) mayBegin(m *outMessage) bool {
	if len(m.payload) <= chunkLen {
		return true
	}
	if s.partialOut > 0 && s.partialOut+len(m.payload) > s.peer.reassembly {
		return false
	}
	s.partialOut += len(m.payload)
	return true
}

// ended accounts for a message that was taken whole.
func (s *session) ended(m *outMessage) {
	s.partialEnded(m)
	s.batch.freed += int64(m.cost())
	s.batch.messages++
}

// partialEnded gives the peer's reassembly budget back, and lets those have a
// go that wait for it.
func (s *session) partialEnded(m *outMessage) {
	if len(m.payload) <= chunkLen {
		return
	}
	s.partialOut -= len(m.payload)
	for l := range s.parked {
		parked := &s.parked[l]
		s.lists[int(laneStream)+l].append(parked.head, parked.tail)
		*parked = itemList{}
	}
}

// waitsFor says that the message is not worth cutting: it is small, and fits
// the next batch.
func (m *outMessage) waitsFor(room int) bool {
	return len(m.payload) <= chunkLen && len(m.payload) > room
}

// itemCost is what an item weighs in the queue beside its payload.
const itemCost = 256

func (m *outMessage) cost() int { return len(m.payload) + itemCost }

// takeReply encodes the next chunk of an answer; true when more is to come.
func (s *session) takeReply(c *servedCall, limit int) bool {
	m := &c.out
	if len(m.payload) > chunkLen {
		if c.ctx.abandoned.Load() {
			if m.started {
				s.partialEnded(m)
				s.batch.appendControl(header{typ: frameCancel, id: m.id}, nil)
			}
			s.batch.freed += int64(m.cost())
			c.recycle()
			return false
		}
		if !m.started && !s.mayBegin(m) {
			return true
		}
	}
	if !s.batch.appendMessage(m, limit) {
		return true
	}
	if len(m.payload) > chunkLen {
		s.inbound.remove(m.id, c.ctx)
	}
	s.ended(m)
	c.recycle()
	return false
}

// takePipe encodes a stream's next segment, and its end after the last.
func (s *session) takePipe(p *Pipe, room int, mayWait bool) (again, full bool) {
	seg, end, again, full := p.take(room, mayWait)
	if full {
		return true, true
	}
	if seg != nil {
		s.batch.appendSegment(seg)
	}
	if end != nil {
		s.batch.appendControl(header{typ: end.typ, id: p.id}, end.body)
		s.batch.freed += itemCost
		p.sentEnd(end)
	}
	return again, false
}
