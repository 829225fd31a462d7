package grid

import (
	"context"
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
	queue     ring[[]byte]
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

// RecvAppend is Recv that appends the message to dst. The memory that a large
// message arrived in is recycled.
func (p *Pipe) RecvAppend(ctx context.Context, dst []byte) ([]byte, error) {
	msg, err := p.Recv(ctx)
	if err != nil {
		return dst, err
	}
	dst = append(dst, msg...)
	Recycle(msg)
	return dst, nil
}

// taken grants credit for a message that is with the user, half a window at a
// time.
func (p *Pipe) taken(n int) {
	if p.credit.owe(p.s, int64(n), 1, int64(p.window/2), int64(max(p.messages/2, 1))) {
		p.s.kickCredit()
	}
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
	} else if cause := endOf(p.ctx, err); cause != nil {
		err = p.failed("stream", cause)
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
	if p.end != nil {
		dropped += itemCost
	}
	p.tail, p.waiting, p.end = nil, 0, nil
	p.mu.Unlock()
	if dropped > 0 {
		p.s.room.release(int64(dropped))
		p.s.noteQuiet()
	}
	if p.slot != nil {
		p.releaseSlot(abrupt)
	} else if p.s.inbound.take(p.id) != nil && abrupt && !p.s.isDead() {
		w := wireErrorOf(recv) // we gave up, not the opener, who does not know yet
		p.s.send(frameError, p.id, w.encode())
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
	if linked {
		return // the writer's: see takeCall
	}
	if cancel && started && !p.s.isDead() {
		p.s.send(frameCancel, p.id, nil)
	}
	p.s.slots.release(sl)
}

func (p *Pipe) failed(op string, err error) *Error {
	return &Error{Op: op, Host: p.s.peer.name, Handler: p.handler, Err: err}
}

// Cancel ends the stream. At the opening end it cancels the handler's context;
// at the serving end the opener gets a *RemoteError with CodeCanceled. A
// stream that has ended is left as it is.
func (p *Pipe) Cancel() { p.abort(context.Canceled) }
