package grid

import (
	"context"
	"encoding/binary"
)

// Send sends one message. msg is borrowed until Send returns. It waits for
// the receiver's window, for ctx and for the end of the stream; a receiver
// that has finished gives ErrStreamDone.
func (p *Pipe) Send(ctx context.Context, msg []byte) error { return p.send(ctx, msg, false) }

// SendOwned is Send for a buffer handed over for good: it may be written by
// reference, and must not be changed by anybody any more.
func (p *Pipe) SendOwned(ctx context.Context, msg []byte) error { return p.send(ctx, msg, true) }

func (p *Pipe) send(ctx context.Context, msg []byte, owned bool) error {
	if len(msg) > p.s.maxOut() {
		return p.failed("send", ErrTooLarge)
	}
	p.mu.Lock()
	if p.sendErr == nil && (p.sendBytes <= 0 || p.sendMsgs <= 0) && p.isAccepted() {
		p.s.count.streamWaits.Add(1)
	}
	for p.sendErr != nil || p.sendBytes <= 0 || p.sendMsgs <= 0 || p.waiting >= maxWaiting {
		if err := p.waitToSend(ctx); err != nil {
			p.mu.Unlock()
			return err
		}
	}
	p.sendBytes -= int64(len(msg))
	p.sendMsgs--
	if headerLen+len(msg) <= chunkSegment {
		p.coalesce(msg)
		p.linkAndUnlock()
		return nil
	}
	p.mu.Unlock()
	return p.sendLarge(ctx, msg, owned)
}

// isAccepted says that the other end has given its first credit.
func (p *Pipe) isAccepted() bool {
	if p.slot == nil {
		return true
	}
	select {
	case <-p.accepted:
		return true
	default:
		return false
	}
}

// waitToSend waits for a change, with mu held before and after.
func (p *Pipe) waitToSend(ctx context.Context) error {
	if p.sendErr != nil {
		return p.sendErr
	}
	if ctx.Value(noWaitKey{}) != nil {
		return p.failed("send", ErrOverloaded)
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-p.sendReady:
		return nil
	case <-ctx.Done():
		return p.failed("send", ctx.Err())
	}
}

// coalesce encodes a small message at the end of what waits.
func (p *Pipe) coalesce(msg []byte) {
	n := headerLen + len(msg)
	seg := p.tail
	if seg == nil || seg.ext != nil || cap(seg.b)-len(seg.b) < n {
		want := n
		if seg != nil {
			want = max(n, chunkSegment) // a burst: the next one is larger
		}
		seg = newSegment(want)
		p.enqueue(seg)
	}
	h := header{typ: frameData, length: uint32(len(msg)), id: p.id}
	if msg == nil {
		h.flags = flagNil
	}
	seg.b = append(appendHeader(seg.b, h), msg...)
	seg.bulk += len(msg)
	seg.messages++
	p.waiting += n
	p.s.room.used.Add(int64(n))
}

func (p *Pipe) enqueue(seg *segment) {
	if p.tail == nil {
		p.head = seg
	} else {
		p.tail.next = seg
	}
	p.tail = seg
}

// linkAndUnlock gives the stream to the writer if it is not there already.
func (p *Pipe) linkAndUnlock() {
	link := !p.linked
	p.linked = true
	p.mu.Unlock()
	if link {
		p.s.push(&p.item)
		p.s.kickWriter()
	}
}

// sendLarge cuts a message into frames, at the pace of the writer.
func (p *Pipe) sendLarge(ctx context.Context, msg []byte, owned bool) error {
	for off := 0; off < len(msg); {
		n := min(len(msg)-off, maxChunkLen)
		var seg *segment
		if owned {
			seg = newSegment(0)
			seg.ext = msg[off : off+n]
		} else {
			seg = newSegment(headerLen + 4 + n)
		}
		h := header{typ: frameMore, length: uint32(n), id: p.id}
		if off+n < len(msg) {
			h.flags |= flagMore
		}
		if off == 0 {
			h.typ = frameData
			seg.messages = 1
			if h.flags&flagMore != 0 {
				h.length += 4
			}
		}
		seg.b = appendHeader(seg.b, h)
		if off == 0 && h.flags&flagMore != 0 {
			seg.b = binary.LittleEndian.AppendUint32(seg.b, uint32(len(msg)))
		}
		if !owned {
			seg.b = append(seg.b, msg[off:off+n]...)
		}
		seg.bulk = n
		if err := p.sendSegment(ctx, seg, off > 0); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// sendSegment queues a segment. In the middle of a message the end of ctx
// ends the stream: half a message can't be taken back.
func (p *Pipe) sendSegment(ctx context.Context, seg *segment, middle bool) error {
	p.mu.Lock()
	for p.sendErr != nil || p.waiting >= maxWaiting {
		if err := p.waitToSend(ctx); err != nil {
			p.mu.Unlock()
			seg.free()
			if middle {
				p.abort(err)
			}
			return err
		}
	}
	p.enqueue(seg)
	p.waiting += seg.size()
	p.s.room.used.Add(int64(seg.size()))
	p.linkAndUnlock()
	return nil
}

// CloseSend ends this direction. Only the opening end has a use for it: the
// handler's direction ends when the handler returns.
func (p *Pipe) CloseSend() error {
	if p.slot == nil {
		return nil
	}
	p.mu.Lock()
	if p.sendErr != nil {
		p.mu.Unlock()
		return nil
	}
	p.sendErr = p.failed("send", ErrStreamDone)
	p.mu.Unlock()
	p.sendEnd(&pipeEnd{typ: frameEnd})
	return nil
}

// sendEnd queues the end behind everything that was sent.
func (p *Pipe) sendEnd(end *pipeEnd) {
	p.mu.Lock()
	if p.over || p.end != nil {
		p.mu.Unlock()
		return
	}
	p.end = end
	p.s.room.used.Add(itemCost)
	if p.slot != nil && p.messages == 0 {
		p.mu.Unlock() // behind the open reply: an end must not overtake the opening
		return
	}
	p.linkAndUnlock()
}

// take gives the writer the next segment, and the end after the last. full
// says that the segment does not fit and may wait; again that there is more.
func (p *Pipe) take(room int, mayWait bool) (seg *segment, end *pipeEnd, again, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		p.linked = false
		return nil, nil, false, false
	}
	seg = p.head
	if seg != nil {
		if mayWait && seg.size() > room {
			return nil, nil, true, true
		}
		p.head = seg.next
		seg.next = nil
		if p.head == nil {
			p.tail = nil
		}
		over := p.waiting >= maxWaiting/2
		if p.waiting -= seg.size(); over && p.waiting < maxWaiting/2 {
			signal(p.sendReady)
		}
	}
	if p.head != nil {
		return seg, nil, true, false
	}
	p.linked = false
	if p.end != nil {
		end, p.end = p.end, nil
	}
	return seg, end, false, false
}
