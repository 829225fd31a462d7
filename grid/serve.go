package grid

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
	"unicode/utf8"
)

// servedCall carries a request of the peer's from the reader to a worker and
// its answer from the worker to the writer. It is pooled: user code sees the
// context and the payload, never this.
type servedCall struct {
	item    item
	s       *session
	reg     *registration
	ctx     *callContext
	user    context.Context // ctx, or what ServeStart made of it
	payload []byte
	cost    int64 // of the session's inbound budget
	out     outMessage
	start   time.Duration // Manager.elapsed, for ServeEnd
	inline  bool          // runs in the reader
}

var servedPool = sync.Pool{New: func() any {
	c := new(servedCall)
	c.item.kind, c.item.owner = kindReply, c
	return c
}}

func (c *servedCall) recycle() {
	c.s, c.reg, c.ctx, c.user, c.payload, c.inline = nil, nil, nil, nil, nil, false
	c.out = outMessage{}
	servedPool.Put(c)
}

// admit takes in a whole call, or refuses it. It runs in the reader.
func (s *session) admit(h header, f first, deadline time.Time, owned bool) error {
	reg := s.m.handlers.get(HandlerID(h.handler))
	refusal := s.refusal(h, reg, f)
	if refusal.Kind == kindNone && reg.inFlight.Add(1) > int64(reg.MaxConcurrent) {
		reg.inFlight.Add(-1)
		refusal = wireError{Kind: kindOverloaded, RetryAfterMS: 50, NotExecuted: true}
	}
	if refusal.Kind != kindNone {
		return s.refuse(h.id, refusal)
	}
	meta, err := decodeMetadata(f.meta)
	if err != nil {
		reg.inFlight.Add(-1)
		return s.refuse(h.id, wireError{Kind: kindMalformed, Message: err.Error(), NotExecuted: true})
	}
	c := servedPool.Get().(*servedCall)
	c.s, c.reg = s, reg
	c.cost = int64(len(f.payload)) + itemCost
	s.budget.Add(c.cost)
	switch {
	case h.flags&flagNil != 0:
		c.ctx, _ = newCallContext(0)
		c.payload = nil
	case owned:
		c.ctx, _ = newCallContext(0)
		c.payload = f.payload
	default:
		c.ctx, c.payload = newCallContext(len(f.payload))
		if c.payload == nil {
			c.payload = newMessage(f.payload)
		} else {
			copy(c.payload, f.payload)
		}
	}
	ctx := c.ctx
	ctx.s, ctx.id, ctx.reg, ctx.meta, ctx.deadline = s, h.id, reg, meta, deadline
	c.user = ctx
	if h.typ == frameOpen {
		s.accept(c, f)
	}
	s.inbound.add(ctx)
	s.serving.Add(1)
	s.m.running.add(1)
	if reg.Inline && reg.Single != nil && s.room.used.Load() < s.room.limit/2 {
		c.inline = true
		c.serveSingle()
		return nil
	}
	s.tasks = append(s.tasks, c)
	return nil
}

// refusal says why a call can't be taken, if so.
func (s *session) refusal(h header, reg *registration, f first) wireError {
	stream := h.typ == frameOpen
	switch {
	case s.refusing.Load():
		return wireError{Kind: kindGoingAway, NotExecuted: true}
	case reg == nil || reg.Single == nil && !reg.servesStream():
		return wireError{Kind: kindUnknownHandler, NotExecuted: true}
	case stream && reg.Single != nil:
		return wireError{Kind: kindUnknownHandler, Message: "the handler takes requests, not streams", NotExecuted: true}
	case !stream && reg.Single == nil:
		return wireError{Kind: kindUnknownHandler, Message: "the handler takes streams, not requests", NotExecuted: true}
	case s.budget.Load()+int64(len(f.payload)) > int64(s.m.o.InboundBudget) && s.budget.Load() > 0:
		return wireError{Kind: kindOverloaded, RetryAfterMS: 100, NotExecuted: true}
	}
	return wireError{}
}

// refuse answers a call that reached no handler.
func (s *session) refuse(id uint64, w wireError) error {
	return s.answer(newControl(frameError, id, w.encode()))
}

// run serves the call in a worker.
func (c *servedCall) run() {
	if c.ctx.abandoned.Load() {
		c.discard() // cancelled, or lost with its session, before its turn came
		return
	}
	if c.ctx.pipe != nil {
		c.serveStream()
		return
	}
	c.serveSingle()
}

// serveSingle calls the handler and queues its answer.
func (c *servedCall) serveSingle() {
	s, inline := c.s, c.inline
	c.begin()
	resp, err := c.invokeSingle()
	if err == nil && len(resp) > s.maxOut() {
		err = ErrTooLarge
	}
	c.end(len(resp), err)
	queued := c.queueAnswer(resp, err)
	s.served() // not before its answer is in the queue, or a drain would pass it by
	switch {
	case !queued:
	case inline:
		s.kicked = true
	default:
		s.kick(s.underWay())
	}
}

// queueAnswer hands the outcome to the writer. It reports false where nobody
// wants it any more; otherwise the call is the writer's.
func (c *servedCall) queueAnswer(resp []byte, err error) bool {
	s, ctx, reg := c.s, c.ctx, c.reg
	large := err == nil && len(resp) > chunkLen
	wanted := !ctx.abandoned.Load()
	if wanted && !large { // a large answer stays cancellable until it is written
		wanted = s.inbound.remove(ctx.id, ctx)
	}
	if !wanted || s.isDead() {
		c.recycle()
		return false
	}
	c.out = outMessage{typ: frameReply, id: ctx.id, payload: resp, isNil: resp == nil, owned: true}
	if err != nil {
		w := wireErrorOf(err)
		c.out = outMessage{typ: frameError, id: ctx.id, payload: w.encode()}
	}
	if c.inline {
		s.room.used.Add(int64(c.out.cost())) // the reader never waits
	} else if !s.room.tryTake(int64(c.out.cost())) && s.reserve(context.Background(), "reply", reg.ID, int64(c.out.cost())) != nil {
		c.recycle()
		return false
	}
	c.item.lane = laneOf(reg.Class, len(c.out.payload))
	s.push(&c.item)
	return true
}

// served takes note that a call of the peer's is over but for the writing.
func (s *session) served() {
	s.serving.Add(-1)
	s.noteQuiet()
}

// begin and end frame the handler, for hooks, limits and Close.
func (c *servedCall) begin() {
	hooks := &c.s.m.o.Hooks
	if hooks.ServeEnd != nil {
		c.start = c.s.m.elapsed()
	}
	if hooks.ServeStart != nil {
		c.user = hooks.ServeStart(c.ctx, c.info())
	}
}

func (c *servedCall) end(size int, err error) {
	s := c.s
	if hooks := &s.m.o.Hooks; hooks.ServeEnd != nil {
		hooks.ServeEnd(c.user, c.info(), CallResult{Duration: s.m.elapsed() - c.start, Size: size, Err: err})
	}
	c.leave()
}

// leave gives back what the call has taken but its place in a drain.
func (c *servedCall) leave() {
	c.ctx.finish(context.Canceled)
	c.reg.inFlight.Add(-1)
	c.s.budget.Add(-c.cost)
	c.s.m.running.add(-1)
}

// discard ends a call whose handler has not been and will not be run.
func (c *servedCall) discard() {
	s := c.s
	c.leave()
	c.s.inbound.remove(c.ctx.id, c.ctx)
	c.recycle()
	s.served()
}

func (c *servedCall) info() CallInfo {
	return CallInfo{
		Host: c.s.peer.name, Handler: c.reg.ID, Name: c.reg.Name, Class: c.reg.Class,
		Stream: c.ctx.pipe != nil, Size: len(c.payload),
	}
}

func (c *servedCall) invokeSingle() (resp []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			resp, err = nil, c.panicked(v)
		}
	}()
	return c.reg.Single(c.user, c.payload)
}

// panicked makes a remote error of a handler's panic.
func (c *servedCall) panicked(v any) error {
	stack := debug.Stack()
	if hooks := &c.s.m.o.Hooks; hooks.HandlerPanic != nil {
		hooks.HandlerPanic(c.info(), v, stack)
	}
	c.s.m.logError("grid: handler panicked", "handler", c.reg.ID, "name", c.reg.Name, "panic", v, "stack", string(stack))
	return &RemoteError{Code: CodePanic, Message: "handler panicked"}
}

// wireErrorOf says what a handler's error is for the other end.
func wireErrorOf(err error) wireError {
	var remote *RemoteError
	switch {
	case errors.As(err, &remote):
		return wireError{Kind: kindHandler, Code: remote.Code, Message: clip(remote.Message)}
	case errors.Is(err, ErrTooLarge):
		return wireError{Kind: kindTooLarge, Message: clip(err.Error())}
	case errors.Is(err, ErrOverloaded):
		retry, _ := RetryAfter(err)
		return wireError{Kind: kindOverloaded, Message: clip(err.Error()), RetryAfterMS: uint32(retry.Milliseconds())}
	case errors.Is(err, ErrUnknownHandler): // of a call that the handler made itself, like the next two
		return wireError{Kind: kindUnknownHandler, Message: clip(err.Error())}
	case errors.Is(err, ErrUnknownHost):
		return wireError{Kind: kindUnknownHost, Message: clip(err.Error())}
	case errors.Is(err, ErrDisconnected):
		return wireError{Kind: kindDisconnected, Message: clip(err.Error())}
	case errors.Is(err, context.Canceled):
		return wireError{Kind: kindHandler, Code: CodeCanceled, Message: clip(err.Error())}
	case errors.Is(err, context.DeadlineExceeded):
		return wireError{Kind: kindHandler, Code: CodeDeadline, Message: clip(err.Error())}
	}
	return wireError{Kind: kindHandler, Code: CodeUnspecified, Message: clip(err.Error())}
}

// maxErrorText bounds the text of an error on the wire, in bytes.
const maxErrorText = 4 << 10

func clip(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	cut := maxErrorText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}
