package grid

import (
	"context"
	"encoding/binary"
)

// OpenPipe is NewStream without channels: the caller sends and receives
// itself.
func (c *Connection) OpenPipe(ctx context.Context, h HandlerID, payload []byte) (*Pipe, error) {
	hooks := &c.m.o.Hooks
	if hooks.CallStart == nil && hooks.CallEnd == nil {
		return c.openPipe(ctx, h, payload)
	}
	info, start := c.callInfo(h, len(payload), true), c.m.elapsed()
	if hooks.CallStart != nil {
		ctx = hooks.CallStart(ctx, info)
	}
	p, err := c.openPipe(ctx, h, payload)
	if hooks.CallEnd == nil {
		return p, err
	}
	if err != nil {
		hooks.CallEnd(ctx, info, CallResult{Duration: c.m.elapsed() - start, Err: err})
		return p, err
	}
	p.onEnd(func(err error) {
		hooks.CallEnd(ctx, info, CallResult{Duration: c.m.elapsed() - start, Err: err})
	})
	return p, nil
}

func (c *Connection) openPipe(ctx context.Context, h HandlerID, payload []byte) (*Pipe, error) {
	s, err := c.ready(ctx, "open", h)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Pipe, error) {
		return nil, &Error{Op: "open", Host: c.host, Handler: h, Err: err, notExecuted: true}
	}
	if len(payload) > s.maxOut() {
		return fail(ErrTooLarge)
	}
	meta, err := encodeMetadata(ctx)
	if err != nil {
		return fail(err)
	}
	class, declared := ClassStream, (*registration)(nil)
	if reg := c.m.handlers.get(h); reg != nil {
		class = reg.Class
		if reg.Stream != nil {
			declared = reg
		}
	}
	cost := int64(len(payload) + itemCost)
	if err := s.reserve(ctx, "open", h, cost); err != nil {
		return nil, err
	}
	sl := s.slots.acquire()
	if sl == nil {
		s.room.release(cost)
		return fail(ErrOverloaded)
	}
	p := &Pipe{slot: sl, ctx: ctx, accepted: make(chan struct{})}
	p.init(s, makeID(s.origin, sl.gen, sl.index), h, laneOf(class, 0))
	sl.out = outMessage{
		typ: frameOpen, handler: h, id: p.id, isNil: payload == nil,
		payload: append([]byte(nil), payload...), owned: true,
		extra: &outExtra{meta: meta},
	}
	sl.out.deadline, _ = ctx.Deadline()
	binary.LittleEndian.PutUint32(sl.out.extra.fixed[:], uint32(p.window))
	if declared != nil {
		p.input = declared.Stream.InCapacity > 0
	}
	p.start(laneOf(class, len(payload)))
	if declared == nil {
		if err := p.waitAccepted(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// start queues the opening. The context is watched from here on.
func (p *Pipe) start(l lane) {
	sl, s := p.slot, p.s
	sl.item.lane = l
	sl.item.state.Store(itemQueued)
	sl.pipe.Store(p)
	sl.word.Store(slotWord(sl.gen, slotStream))
	p.mu.Lock()
	p.unwatch = context.AfterFunc(p.ctx, func() { p.abort(p.ctx.Err()) })
	p.mu.Unlock()
	s.push(&sl.item)
	s.kick(s.underWay() - 1)
	if s.isDead() {
		p.abort(s.deathError("open", p.handler, false))
	}
}

// waitAccepted waits for the open reply; a refusal is its error.
func (p *Pipe) waitAccepted(ctx context.Context) error {
	select {
	case <-p.accepted:
	case <-ctx.Done():
		p.abort(ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over && p.recvErr != nil && p.messages == 0 {
		return p.recvErr
	}
	return nil
}

// onAccept is the open reply at the opener.
func (p *Pipe) onAccept(input bool, windowBytes, windowMessages, outMessages uint32) {
	p.mu.Lock()
	if p.over || p.messages != 0 {
		p.mu.Unlock()
		return
	}
	p.messages = int(min(max(outMessages, 1), 1<<20))
	p.input = input
	if input {
		p.sendBytes, p.sendMsgs = int64(windowBytes), int64(windowMessages)
	} else if p.sendErr == nil {
		p.sendErr = p.failed("send", ErrNoInput)
	}
	close(p.accepted)
	signal(p.sendReady)
	if p.end != nil {
		p.linkAndUnlock()
		return
	}
	p.mu.Unlock()
}

// accept makes the serving end of a stream and answers the opening. It runs
// in the reader.
func (s *session) accept(c *servedCall, f first) {
	st := c.reg.Stream
	p := &Pipe{}
	p.init(s, c.ctx.id, c.reg.ID, laneOf(c.reg.Class, 0))
	p.messages = st.InCapacity
	p.input = st.InCapacity > 0
	p.sendBytes, p.sendMsgs = int64(f.windowBytes), int64(st.OutCapacity)
	if f.windowMessages != 0 {
		p.sendMsgs = min(p.sendMsgs, int64(f.windowMessages))
	}
	body := make([]byte, 12)
	binary.LittleEndian.PutUint32(body, uint32(p.window))
	binary.LittleEndian.PutUint32(body[4:], uint32(st.InCapacity))
	binary.LittleEndian.PutUint32(body[8:], uint32(st.OutCapacity))
	reply := newControl(frameAccept, p.id, body)
	if p.input {
		reply.flags = flagInput
	}
	c.ctx.pipe = p
	s.accepts.Add(1)
	s.push(&reply.item)
	s.kicked = true
}

// onEnd calls f once when the stream has ended.
func (p *Pipe) onEnd(f func(error)) {
	p.mu.Lock()
	if !p.over {
		p.ended = f
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	f(p.endError())
}
