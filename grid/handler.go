package grid

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// HandlerID names a handler on the wire. Ids belong to the package that
// registers them; an incompatible change of a handler is a new id.
type HandlerID uint16

// Class is the scheduling class of a call and of its replies.
type Class uint8

// The classes in the order in which the writer looks at them. Each has a
// share of every write, so that none starves.
const (
	ClassDefault     Class = iota // interactive for singles, stream for streams
	ClassControl                  // first of all: consensus, membership; keep it small
	ClassInteractive              // somebody waits for the answer
	ClassStream                   // flows of messages
	ClassBulk                     // whatever is left of the line
)

// Handler is one registration. With neither function it only declares a
// remote handler: its name, its class and, by Stream.InCapacity, whether it
// takes input, so that NewStream need not wait for the open reply.
type Handler struct {
	ID            HandlerID
	Name          string // for traces and metrics
	Class         Class  // scheduling class of the call and of its replies
	MaxConcurrent int    // beyond it callers get ErrOverloaded; 0 is the default
	Inline        bool   // cheap and never blocks: may run in the reader
	Single        SingleHandler
	Stream        *StreamHandler
}

// SingleHandler answers one message with one message. req belongs to the
// handler for good. The returned slice may be shared (the same one returned
// for ever), but must not be changed afterwards. ctx ends with the caller's
// deadline, when the caller cancels, when the session dies, and when the
// handler returns.
type SingleHandler func(ctx context.Context, req []byte) ([]byte, error)

// StreamHandler serves one stream, by channels or by a Pipe.
type StreamHandler struct {
	// Handle is the channel form. out is closed by the grid, never by the
	// handler. in is nil where InCapacity is 0; it closes at the caller's end
	// of input, and on loss or cancellation only after ctx is done: a handler
	// that commits what it has read checks ctx.Err() after its loop. A slice
	// sent on out must not be changed afterwards.
	Handle func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error

	// Pull is the form without channels and goroutines between: the handler
	// calls p.Recv and p.Send itself. At most one of Handle and Pull is set.
	Pull func(ctx context.Context, payload []byte, p *Pipe) error

	// InCapacity and OutCapacity are the windows, in messages, of the two
	// directions. InCapacity 0 means that there is no input. OutCapacity is
	// at least 1.
	InCapacity, OutCapacity int
}

// Register adds a handler. A second registration of an id, a handler with
// both functions and a capacity out of range are errors. Handlers may be
// registered while calls are running.
func (m *Manager) Register(h Handler) error {
	if err := h.validate(); err != nil {
		return fmt.Errorf("grid: register %d %q: %w", h.ID, h.Name, err)
	}
	reg := &registration{Handler: h}
	if h.Stream != nil {
		st := *h.Stream
		st.OutCapacity = max(st.OutCapacity, 1)
		reg.Stream = &st
	}
	if reg.Class == ClassDefault {
		reg.Class = ClassInteractive
		if h.Stream != nil {
			reg.Class = ClassStream
		}
	}
	if reg.MaxConcurrent == 0 {
		reg.MaxConcurrent = m.o.MaxConcurrent
	}
	if !m.handlers.add(reg) {
		return fmt.Errorf("grid: register %d %q: the id is taken", h.ID, h.Name)
	}
	return nil
}

// maxCapacity bounds a stream's window in messages.
const maxCapacity = 1 << 20

func (h *Handler) validate() error {
	switch st := h.Stream; {
	case h.ID == 0:
		return errors.New("id 0 is reserved")
	case h.Class > ClassBulk:
		return fmt.Errorf("class %d does not exist", h.Class)
	case h.MaxConcurrent < 0:
		return errors.New("MaxConcurrent is negative")
	case h.Single != nil && st != nil:
		return errors.New("both a single and a stream handler")
	case st != nil && st.Handle != nil && st.Pull != nil:
		return errors.New("both Handle and Pull")
	case st != nil && (st.InCapacity < 0 || st.InCapacity > maxCapacity || st.OutCapacity < 0 || st.OutCapacity > maxCapacity):
		return fmt.Errorf("capacities %d and %d are not within 0 to %d", st.InCapacity, st.OutCapacity, maxCapacity)
	case st != nil && (st.Handle != nil || st.Pull != nil) && st.OutCapacity == 0:
		return errors.New("OutCapacity must be at least 1")
	case h.Inline && h.Single == nil:
		return errors.New("only a single handler can be inline")
	}
	return nil
}

// registration is a handler with its defaults filled in and its counters.
type registration struct {
	Handler
	inFlight atomic.Int64
}

func (r *registration) servesStream() bool {
	return r.Stream != nil && (r.Stream.Handle != nil || r.Stream.Pull != nil)
}

// handlerTable finds registrations by id without a lock: two levels, of which
// only the pages in use exist.
type handlerTable struct {
	pages [256]atomic.Pointer[handlerPage]
}

type handlerPage [256]atomic.Pointer[registration]

func (t *handlerTable) get(id HandlerID) *registration {
	page := t.pages[id>>8].Load()
	if page == nil {
		return nil
	}
	return page[id&0xff].Load()
}

func (t *handlerTable) add(reg *registration) bool {
	slot := &t.pages[reg.ID>>8]
	if slot.Load() == nil {
		slot.CompareAndSwap(nil, new(handlerPage))
	}
	return slot.Load()[reg.ID&0xff].CompareAndSwap(nil, reg)
}

// each calls f on every registration.
func (t *handlerTable) each(f func(*registration)) {
	for i := range t.pages {
		page := t.pages[i].Load()
		if page == nil {
			continue
		}
		for j := range page {
			if reg := page[j].Load(); reg != nil {
				f(reg)
			}
		}
	}
}
