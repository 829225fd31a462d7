package grid

import (
	"context"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/gobwas/ws"
)

// StuckError names the handlers that had not returned when Close gave up
// waiting for them, although their contexts had ended.
type StuckError struct {
	Handlers []string // "name (id) × how many"
}

// Error implements error.
func (e *StuckError) Error() string {
	return "grid: handlers ignore the end of their context: " + strings.Join(e.Handlers, ", ")
}

// Close drains until ctx ends: peers are told to open no more calls, then
// which of their calls were not taken, and running calls finish, ours and
// theirs. Then it cancels what is left and joins every goroutine. It may be
// called again. Handlers that ignore the end of their ctx are named in a
// *StuckError and not waited for.
func (m *Manager) Close(ctx context.Context) error {
	m.closing.Lock()
	defer m.closing.Unlock()
	if !m.done {
		m.draining.Store(true) // no session comes up any more
		m.drain(ctx)
		m.connMu.Lock()
		m.closed = true
		m.connMu.Unlock()
		for _, c := range *m.conns.Load() {
			c.remove(StateClosed, ErrClosed)
		}
		m.endLife(ErrClosed)
		m.done = true
	}
	m.wg.Wait()
	m.work.close()
	if m.running.n.Load() > 0 {
		grace, cancel := context.WithTimeout(context.Background(), m.o.CloseGrace)
		defer cancel()
		if !m.running.wait(grace) {
			return m.stuck()
		}
	}
	m.work.wait()
	return nil
}

// stuck lists the handlers that still run.
func (m *Manager) stuck() error {
	e := &StuckError{}
	m.handlers.each(func(reg *registration) {
		if n := reg.inFlight.Load(); n > 0 {
			e.Handlers = append(e.Handlers, fmt.Sprintf("%s (%d) × %d", reg.Name, reg.ID, n))
		}
	})
	sort.Strings(e.Handlers)
	m.logError("grid: handlers are stuck", "handlers", e.Handlers)
	return e
}

// drain runs the two phases on every session at once.
func (m *Manager) drain(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(m.life, cancel)
	defer stop()
	var wg sync.WaitGroup
	for _, c := range *m.conns.Load() {
		if s := c.session.Load(); s != nil {
			wg.Go(func() { s.drain(ctx) })
		}
	}
	wg.Wait()
}

// drain asks the peer to open no more calls, waits for its word, refuses what
// comes after, and waits for what is under way.
func (s *session) drain(ctx context.Context) {
	s.going.Store(true) // of our own calls, too
	s.sendNumbered(frameGoAway, goAwaySoon, nil)
	select {
	case <-s.ackCh:
	case <-s.dead:
	case <-ctx.Done():
	}
	s.refusing.Store(true)
	// Loaded after refusing is set: the reader takes no call beyond the count.
	s.sendNumbered(frameGoAway, goAwayFinal, binary.LittleEndian.AppendUint64(nil, s.openedIn.Load()))
	s.waitQuiet(ctx)
	f := ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "going away"))
	raw := &rawFrames{b: s.rawFrame(f), last: true, done: make(chan struct{})}
	if ctx.Err() == nil {
		s.sendRaw(raw)
		select {
		case <-raw.done:
		case <-s.dead:
		case <-ctx.Done():
		}
	}
}

// waitQuiet waits until no call is under way and nothing waits to be written.
func (s *session) waitQuiet(ctx context.Context) {
	for s.underWay() > 0 || s.room.used.Load() > 0 {
		select {
		case <-s.quiet:
		case <-s.dead:
			return
		case <-ctx.Done():
			return
		}
	}
}

// onGoAway is a phase of the peer's drain.
func (s *session) onGoAway(h header, body []byte) error {
	switch h.handler {
	case goAwaySoon:
		s.going.Store(true)
		s.sendNumbered(frameGoAway, goAwayAck, nil)
	case goAwayAck:
		s.ackOnce.Do(func() { close(s.ackCh) })
	case goAwayFinal:
		if len(body) != 8 {
			return violation("malformed going-away")
		}
		s.goneAt.Store(1 + binary.LittleEndian.Uint64(body))
	default:
		return violation("going-away phase %d", h.handler)
	}
	return nil
}
