package grid

import (
	"context"
	"time"
)

// The life of a request at the end that makes it: a slot is taken, queued,
// written by whoever holds the writer role, completed by the reader, and
// released here. The slot's word decides who completes it; its item's state
// decides who owns the caller's memory.

// maxCallsInFlight bounds the calls of one end on one session.
const maxCallsInFlight = 1 << 20

// Request sends req to the handler h of the peer and returns its answer,
// which belongs to the caller. req is borrowed until Request returns. The
// deadline of ctx travels along; when ctx ends Request returns its error at
// once and the handler's context is cancelled. While disconnected it fails
// with ErrDisconnected at once.
func (c *Connection) Request(ctx context.Context, h HandlerID, req []byte) ([]byte, error) {
	resp, err := c.request(ctx, h, nil, req)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// AppendRequest is Request for a caller that reuses its memory: the answer
// is appended to dst, and the extended slice returned. The memory that a large
// answer arrived in is recycled. On an error dst is
// returned as it was; its spare capacity may have been written to.
func (c *Connection) AppendRequest(ctx context.Context, h HandlerID, dst, req []byte) ([]byte, error) {
	if dst == nil {
		dst = []byte{}
	}
	resp, err := c.request(ctx, h, dst, req)
	if err != nil {
		return dst, err
	}
	return resp, nil
}

func (c *Connection) request(ctx context.Context, h HandlerID, dst, req []byte) ([]byte, error) {
	hooks := &c.m.o.Hooks
	if hooks.CallStart == nil && hooks.CallEnd == nil {
		return c.doRequest(ctx, h, dst, req)
	}
	info, start := c.callInfo(h, len(req), false), c.m.elapsed()
	if hooks.CallStart != nil {
		ctx = hooks.CallStart(ctx, info)
	}
	resp, err := c.doRequest(ctx, h, dst, req)
	if hooks.CallEnd != nil {
		hooks.CallEnd(ctx, info, CallResult{Duration: c.m.elapsed() - start, Size: len(resp) - len(dst), Err: err})
	}
	return resp, err
}

func (c *Connection) callInfo(h HandlerID, size int, stream bool) CallInfo {
	info := CallInfo{Host: c.host, Handler: h, Stream: stream, Size: size, Class: ClassInteractive}
	if stream {
		info.Class = ClassStream
	}
	if reg := c.m.handlers.get(h); reg != nil {
		info.Name, info.Class = reg.Name, reg.Class
	}
	return info
}

func (c *Connection) doRequest(ctx context.Context, h HandlerID, dst, req []byte) ([]byte, error) {
	s, err := c.ready(ctx, "request", h)
	if err != nil {
		return nil, err
	}
	if len(req) > s.maxOut() {
		return nil, &Error{Op: "request", Host: c.host, Handler: h, Err: ErrTooLarge, notExecuted: true}
	}
	meta, err := encodeMetadata(ctx)
	if err != nil {
		return nil, &Error{Op: "request", Host: c.host, Handler: h, Err: err, notExecuted: true}
	}
	class := ClassInteractive
	if reg := c.m.handlers.get(h); reg != nil {
		class = reg.Class
	}
	if err := s.reserve(ctx, "request", h, int64(len(req)+itemCost)); err != nil {
		return nil, err
	}
	sl := s.slots.acquire()
	if sl == nil {
		s.room.release(int64(len(req) + itemCost))
		return nil, &Error{Op: "request", Host: c.host, Handler: h, Err: ErrOverloaded, notExecuted: true, retryAfter: time.Second}
	}
	sl.out = outMessage{
		typ: frameRequest, handler: h, id: makeID(s.origin, sl.gen, sl.index),
		payload: req, isNil: req == nil,
	}
	if meta != nil {
		sl.out.extra = &outExtra{meta: meta}
	}
	sl.out.deadline, _ = ctx.Deadline()
	sl.dst = dst
	return s.call(ctx, sl, laneOf(class, len(req)))
}

// ready gives the live session for a new call.
func (c *Connection) ready(ctx context.Context, op string, h HandlerID) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: op, Host: c.host, Handler: h, Err: err, notExecuted: true}
	}
	s := c.session.Load()
	if s == nil {
		if r := c.resolve(); r != c {
			return r.ready(ctx, op, h)
		}
		return nil, &Error{Op: op, Host: c.host, Handler: h, Err: c.whyDown(), notExecuted: true}
	}
	if s.going.Load() {
		return nil, &Error{Op: op, Host: c.host, Handler: h, Err: ErrGoingAway, notExecuted: true}
	}
	return s, nil
}

// maxOut is the largest payload both ends allow.
func (s *session) maxOut() int { return min(s.peer.maxMessage, s.m.o.MaxMessage) }

// reserve takes room in the session's queue, waiting in line if need be.
func (s *session) reserve(ctx context.Context, op string, h HandlerID, n int64) error {
	if s.room.tryTake(n) {
		return nil
	}
	s.count.queueWaits.Add(1)
	fail := func(err error) error {
		return &Error{Op: op, Host: s.peer.name, Handler: h, Err: err, notExecuted: true}
	}
	if ctx.Value(noWaitKey{}) != nil {
		return &Error{Op: op, Host: s.peer.name, Handler: h, Err: ErrOverloaded, notExecuted: true, retryAfter: 100 * time.Millisecond}
	}
	w := s.room.enter(n)
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		s.room.giveUp(w)
		return fail(ctx.Err())
	case <-s.dead:
		s.room.giveUp(w)
		return fail(s.cause)
	}
}

// call queues a filled slot, waits for its answer and releases it.
func (s *session) call(ctx context.Context, sl *slot, l lane) ([]byte, error) {
	waiting, h := slotWord(sl.gen, slotWaiting), sl.out.handler
	sl.item.lane = l
	sl.item.state.Store(itemQueued)
	sl.word.Store(waiting)
	s.push(&sl.item)
	s.kick(s.underWay() - 1)
	if s.isDead() && sl.word.CompareAndSwap(waiting, slotWord(sl.gen, slotDelivered)) {
		err := s.deathOf(sl) // the teardown may have passed by before us
		s.abandon(sl)
		return nil, err
	}
	ended := ctx.Done()
	if ended == nil {
		<-sl.done // a select of one costs a third of a call
		return s.complete(sl)
	}
	select {
	case <-sl.done:
	case <-ended:
		if sl.word.CompareAndSwap(waiting, slotWord(sl.gen, slotDelivered)) {
			notExecuted := s.abandon(sl)
			return nil, &Error{Op: "request", Host: s.peer.name, Handler: h, Err: ctx.Err(), notExecuted: notExecuted}
		}
		<-sl.done // the reader is just putting the answer in
	}
	resp, err := s.complete(sl)
	if cause := endOf(ctx, err); cause != nil {
		return nil, &Error{Op: "request", Host: s.peer.name, Handler: h, Err: cause, notExecuted: NotExecuted(err)}
	}
	return resp, err
}

// endOf is the error of a context that has ended. One whose deadline has
// passed counts as ended where a call has failed: the peer may have noticed
// before our own timer ran.
func endOf(ctx context.Context, failure error) error {
	if err := ctx.Err(); err != nil || failure == nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// complete takes the outcome out of a delivered slot and releases it.
func (s *session) complete(sl *slot) ([]byte, error) {
	resp, err := sl.resp, sl.err
	if sl.whole {
		resp = append(sl.dst, sl.resp...)
		Recycle(sl.resp)
	}
	if err == nil && sl.item.state.Load() == itemSent {
		s.slots.release(sl)
	} else {
		s.abandon(sl)
	}
	return resp, err
}

// abandon gives up a slot whose call is over for its caller, who may have
// his memory back when it returns. The peer is told where it knows of the
// call. It reports whether the call provably did not execute.
func (s *session) abandon(sl *slot) (notExecuted bool) {
	id := sl.out.id
	answered := sl.err != nil
	linked, started, complete := sl.detach()
	if linked {
		return true // the writer's: see takeCall
	}
	if started && !(complete && answered) && !s.isDead() {
		s.send(frameCancel, id, nil)
	}
	s.slots.release(sl)
	return !complete
}

// waits reports whether the call id still has a caller.
func (t *slotTable) waits(id uint64) bool {
	s := t.at(idIndex(id))
	return s != nil && s.word.Load() == slotWord(idGeneration(id), slotWaiting)
}
