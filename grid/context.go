package grid

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// callContext is the context of a handler. It is made together with the
// request it comes with, in one allocation, and has neither channel nor timer
// until somebody asks for Done.
type callContext struct {
	s        *session
	id       uint64
	reg      *registration
	meta     Metadata
	deadline time.Time
	pipe     *Pipe // of a stream

	abandoned atomic.Bool // the caller has gone: nobody wants the answer

	mu    sync.Mutex
	err   error
	done  chan struct{}
	timer *time.Timer
	after map[*afterFunc]struct{}
}

type afterFunc struct{ f func() }

var errCancelledByPeer = errors.New("grid: cancelled by the caller")

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arm()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// arm starts the deadline's timer once somebody depends on it.
func (c *callContext) arm() {
	if c.err == nil && c.timer == nil && !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.finish(context.DeadlineExceeded) })
	}
}

// Err implements context.Context.
func (c *callContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.finish(context.DeadlineExceeded)
		return context.DeadlineExceeded
	}
	return err
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	switch key.(type) {
	case peerKey:
		return c.s.peer.name
	case handlerKey:
		return c.reg.ID
	case metadataKey:
		if c.meta == nil {
			return nil
		}
		return c.meta
	case noWaitKey:
		return nil
	}
	return c.s.m.values.Value(key)
}

// AfterFunc lets package context derive from this context without a
// goroutine that waits for Done.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	c.arm()
	a := &afterFunc{f}
	if c.after == nil {
		c.after = make(map[*afterFunc]struct{}, 1)
	}
	c.after[a] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waiting := c.after[a]
		delete(c.after, a)
		return waiting
	}
}

// finish ends the context; the first end counts.
func (c *callContext) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	for a := range c.after {
		go a.f()
	}
	c.after = nil
}

// abandon cancels the context of a handler whose caller, or session, is gone.
func (c *callContext) abandon() {
	c.abandoned.Store(true)
	c.finish(context.Canceled)
}

// newCallContext makes a context and the memory of its request at once.
func newCallContext(n int) (*callContext, []byte) {
	switch {
	case n == 0:
		return new(callContext), []byte{}
	case n <= 64:
		c := new(struct {
			callContext
			b [64]byte
		})
		return &c.callContext, c.b[:n:n]
	case n <= 256:
		c := new(struct {
			callContext
			b [256]byte
		})
		return &c.callContext, c.b[:n:n]
	case n <= 512:
		c := new(struct {
			callContext
			b [512]byte
		})
		return &c.callContext, c.b[:n:n]
	case n <= 1024:
		c := new(struct {
			callContext
			b [1024]byte
		})
		return &c.callContext, c.b[:n:n]
	}
	return new(callContext), nil
}

// inboundTable finds the contexts of the peer's calls by the peer's slot
// index. Only the reader adds; contexts are never used again, so that a
// pointer from here is always what it was.
type inboundTable struct {
	pages atomic.Pointer[[]*inboundPage]
}

const inboundPageLen = 64

type inboundPage [inboundPageLen]atomic.Pointer[callContext]

func (t *inboundTable) at(index uint32) *atomic.Pointer[callContext] {
	pages := t.pages.Load()
	if pages == nil || int(index/inboundPageLen) >= len(*pages) || (*pages)[index/inboundPageLen] == nil {
		return nil
	}
	return &(*pages)[index/inboundPageLen][index%inboundPageLen]
}

// add runs in the reader. index is below maxCallsInFlight.
func (t *inboundTable) add(ctx *callContext) {
	at := t.at(idIndex(ctx.id))
	if at == nil {
		t.grow(idIndex(ctx.id))
		at = t.at(idIndex(ctx.id))
	}
	if old := at.Swap(ctx); old != nil { // an end that uses an id again gives up the old call
		old.abandon()
		if old.pipe != nil {
			old.pipe.abort(errCancelledByPeer)
		}
	}
}

func (t *inboundTable) grow(index uint32) {
	var pages []*inboundPage
	if p := t.pages.Load(); p != nil {
		pages = *p
	}
	n := int(index/inboundPageLen) + 1
	grown := append([]*inboundPage(nil), pages...)
	for len(grown) < n {
		grown = append(grown, nil)
	}
	grown[n-1] = new(inboundPage)
	t.pages.Store(&grown)
}

func (t *inboundTable) get(id uint64) *callContext {
	at := t.at(idIndex(id))
	if at == nil {
		return nil
	}
	if ctx := at.Load(); ctx != nil && ctx.id == id {
		return ctx
	}
	return nil
}

// take removes the call id and returns its context.
func (t *inboundTable) take(id uint64) *callContext {
	ctx := t.get(id)
	if ctx != nil && t.remove(id, ctx) {
		return ctx
	}
	return nil
}

// remove reports whether the call was still there, so that its end is told
// once.
func (t *inboundTable) remove(id uint64, ctx *callContext) bool {
	at := t.at(idIndex(id))
	return at != nil && at.CompareAndSwap(ctx, nil)
}

func (t *inboundTable) each(f func(*callContext)) {
	pages := t.pages.Load()
	if pages == nil {
		return
	}
	for _, page := range *pages {
		if page == nil {
			continue
		}
		for i := range page {
			if ctx := page[i].Load(); ctx != nil {
				f(ctx)
			}
		}
	}
}
