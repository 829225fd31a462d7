package grid

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
)

// Pipe is one end of a stream in pull form, at the caller as at the handler.
// One goroutine may send while another receives; Send, SendOwned and
// CloseSend must not overlap each other, nor may Recv and RecvAppend.
//
// The life of a stream at each end:
//
//	       END sent             END received
//	open ────────────▶ sending ended, receiving ended ──▶ finished
//	 │                                                       ▲
//	 └── cancel, error, loss: aborted, both directions ──────┘
//
// The end that serves finishes a stream by its END or ERROR; until then the
// opener's END only closes the input.
type Pipe struct {
	s       *session
	slot    *slot // opener only
	id      uint64
	handler HandlerID
	op      string
	lane    lane
	item    item
	credit  control // what our user has taken

	ctx       context.Context // opener: the stream's; ends it
	unwatch   func() bool
	accepted  chan struct{} // opener: closed by the open reply, or the end
	input     bool          // the handler takes input
	window    int           // bytes we let the other end have unread
	messages  int           // messages likewise
	recvReady chan struct{} // a token: worth looking again
	sendReady chan struct{}
	done      chan struct{} // finished or aborted
	cut       chan struct{} // aborted

	mu        sync.Mutex // guards what follows; held for copies of small messages at most
	queue     messageRing
	unread    int   // bytes received and not yet taken, queued ones included
	unreadMsg int   // messages likewise
	recvErr   error // what Recv says once the queue is empty
	sendErr   error // what Send says
	sendBytes int64 // the other end's credit; a message may overdraw it
	sendMsgs  int64
	head      *segment // waiting to be written
	tail      *segment
	waiting   int  // bytes of them
	linked    bool // item is queued, or in the writer's hands
	end       *pipeEnd
	over      bool // finished or aborted
	ended     func(error)
}

// pipeEnd is the frame that ends a direction.
type pipeEnd struct {
	typ  frameType
	body []byte
}

// maxWaiting is how much of one stream waits for the writer, in bytes.
const maxWaiting = 256 << 10

func (p *Pipe) init(s *session, id uint64, reg HandlerID, l lane) {
	p.s, p.id, p.handler, p.lane = s, id, reg, l
	p.item.kind, p.item.owner, p.item.lane = kindPipe, p, max(l, laneStream)
	p.credit.init(laneControl)
	p.credit.typ, p.credit.id = frameCredit, id
	p.window = s.m.o.StreamWindow
	p.recvReady = make(chan struct{}, 1)
	p.sendReady = make(chan struct{}, 1)
	p.done = make(chan struct{})
	p.cut = make(chan struct{})
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Done is closed when the stream has ended, cleanly or not.
func (p *Pipe) Done() <-chan struct{} { return p.done }

// Recv returns the next message, which belongs to the caller; io.EOF after a
// clean end of the other side's direction, and the cause otherwise. ctx bounds
// this call, the context of the stream the whole of it.
func (p *Pipe) Recv(ctx context.Context) ([]byte, error) {
	for {
		p.mu.Lock()
		msg, ok := p.queue.pop()
		if ok {
			p.unread -= len(msg)
			p.unreadMsg--
			p.mu.Unlock()
			p.taken(len(msg))
			return msg, nil
		}
		err := p.recvErr
		p.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-p.recvReady:
		case <-ctx.Done():
			return nil, &Error{Op: "recv", Host: p.s.peer.name, Handler: p.handler, Err: ctx.Err()}
		}
	}
}

// RecvAppend is Recv that appends the message to dst.
func (p *Pipe) RecvAppend(ctx context.Context, dst []byte) ([]byte, error) {
	msg, err := p.Recv(ctx)
	if err != nil {
		return dst, err
	}
	return append(dst, msg...), nil
}

// taken grants credit for a message that is with the user.
func (p *Pipe) taken(n int) {
	if p.credit.owe(p.s, int64(n), 1, int64(p.window/4), int64(max(p.messages/4, 1))) {
		p.s.kick(p.s.underWay())
	}
}

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
		if p.waiting >= maxWaiting {
			signal(p.sendReady)
		}
		p.waiting -= seg.size()
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

// sentEnd runs in the writer role when the end is in a batch: at the serving
// end the stream is finished with it.
func (p *Pipe) sentEnd(*pipeEnd) {
	if p.slot == nil {
		p.finish(io.EOF, ErrStreamDone)
	}
}

// credited adds to what may be sent.
func (p *Pipe) credited(bytes, messages uint32) {
	p.mu.Lock()
	p.sendBytes = min(p.sendBytes+int64(bytes), 1<<40)
	p.sendMsgs = min(p.sendMsgs+int64(messages), 1<<40)
	p.mu.Unlock()
	signal(p.sendReady)
}

// deliver queues a message for the user. It runs in the reader.
func (p *Pipe) deliver(msg []byte) error {
	p.mu.Lock()
	if p.over || p.recvErr != nil {
		p.mu.Unlock()
		return nil
	}
	if p.unread > p.window || p.unreadMsg >= p.messages {
		p.mu.Unlock()
		return violation("a stream exceeds its window")
	}
	wake := p.queue.push(msg)
	p.unread += len(msg)
	p.unreadMsg++
	p.mu.Unlock()
	if wake {
		signal(p.recvReady)
	}
	return nil
}

// inputEnd is the opener's END at the serving end.
func (p *Pipe) inputEnd() {
	p.mu.Lock()
	if p.recvErr == nil {
		p.recvErr = io.EOF
	}
	p.mu.Unlock()
	signal(p.recvReady)
}

// remoteEnd is the END (nil) or the ERROR of the serving end at the opener:
// what was received stays readable.
func (p *Pipe) remoteEnd(err error) {
	if err == nil {
		err = io.EOF
	}
	p.finish(err, ErrStreamDone)
}

// finish ends the stream in the orderly way.
func (p *Pipe) finish(recv, send error) { p.close(recv, p.failed("send", send), false) }

// abort ends the stream at once: nothing more is received or sent.
func (p *Pipe) abort(cause error) {
	err, ok := cause.(*Error)
	if !ok {
		err = p.failed("stream", cause)
	}
	p.close(err, err, true)
}

// close does the work of finish and abort; the first of them counts.
func (p *Pipe) close(recv, send error, abrupt bool) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	p.over = true
	if p.recvErr == nil || abrupt { // messages are dropped: no clean end any more
		p.recvErr = recv
	}
	if abrupt {
		p.queue.clear()
		close(p.cut)
	}
	p.sendErr = send
	ended := p.ended
	dropped := 0
	for p.head != nil {
		seg := p.head
		p.head = seg.next
		dropped += seg.size()
		seg.free()
	}
	p.tail, p.waiting, p.end = nil, 0, nil
	p.mu.Unlock()
	if dropped > 0 {
		p.s.room.release(int64(dropped))
	}
	if p.slot != nil {
		p.releaseSlot(abrupt)
	} else if ctx := p.s.inbound.get(p.id); ctx != nil {
		p.s.inbound.remove(p.id, ctx)
	}
	close(p.done)
	signal(p.recvReady)
	signal(p.sendReady)
	if p.unwatch != nil {
		p.unwatch()
	}
	if ended != nil {
		ended(p.endError())
	}
}

// endError is how the stream ended: nil if cleanly.
func (p *Pipe) endError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recvErr == io.EOF {
		return nil
	}
	return p.recvErr
}

// releaseSlot gives up the opener's slot, and tells the other end of a stream
// that it did not end itself.
func (p *Pipe) releaseSlot(cancel bool) {
	sl := p.slot
	select {
	case <-p.accepted:
	default:
		close(p.accepted)
	}
	linked, started, _ := sl.detach()
	if cancel && started && !p.s.isDead() {
		p.s.send(frameCancel, p.id, nil)
	}
	if !linked {
		p.s.slots.release(sl)
	}
}

func (p *Pipe) failed(op string, err error) *Error {
	return &Error{Op: op, Host: p.s.peer.name, Handler: p.handler, Err: err}
}

// Cancel ends the stream; the other end sees a cancelled context. A stream
// that has ended is left as it is.
func (p *Pipe) Cancel() { p.abort(context.Canceled) }

// messageRing is a FIFO of received messages that gives back large memory.
type messageRing struct {
	buf  [][]byte
	head int
	n    int
}

// push reports whether the ring was empty.
func (r *messageRing) push(msg []byte) bool {
	if r.n == len(r.buf) {
		grown := make([][]byte, max(8, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)%len(r.buf)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = msg
	r.n++
	return r.n == 1
}

func (r *messageRing) pop() ([]byte, bool) {
	if r.n == 0 {
		return nil, false
	}
	msg := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	return msg, true
}

func (r *messageRing) clear() { *r = messageRing{} }
