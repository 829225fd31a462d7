package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// repeatTicks is after how many ticks a read is asked for again: the question
// or the answer may have been lost, or the leader.
const repeatTicks = 3

// rounds shares rounds of ReadIndex among the reads of a group: one is on its
// way, and whoever comes meanwhile waits for the next, since the answer to
// this one may be older than his call.
type rounds struct {
	mu        sync.Mutex // guards what follows
	flying    *round     // on its way; nil: none
	gathering *round     // will be next
	prefix    [8]byte    // random: tokens of an earlier process mean nothing
	count     uint64
}

// round is one question to the leader.
type round struct {
	token string
	done  chan struct{} // closed when index or err is set
	index uint64
	err   error
	ticks int // since it was asked for
}

// ReadIndex returns an index: a state that has applied it shows everything
// that was acknowledged before the call. It is 0 where any state does. It
// waits for a leader as long as ctx allows.
func (e *Engine) ReadIndex(ctx context.Context, g GroupID) (uint64, error) {
	r := e.groups[g]
	if r == nil {
		return 0, ErrNoGroup
	}
	if r.alone() {
		return 0, nil
	}
	w := r.reads.join(e, g)
	select {
	case <-w.done:
		return w.index, w.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.stop.Done():
		return 0, ErrClosed
	}
}

// ReadNow says that any state of the group shows everything that was
// acknowledged before the call, as a ReadIndex of 0 does, if that is known
// without asking anybody.
func (e *Engine) ReadNow(g GroupID) bool {
	r := e.groups[g]
	return r != nil && r.alone()
}

// alone tells whether this node's state shows everything that was ever
// acknowledged, or read: there are no other members, what made it so is
// applied, and so is an entry of the term that this node leads in, and with it
// all from before.
func (r *running) alone() bool {
	l := r.lonely.Load()
	return l != nil && l.term == r.appliedTerm.Load() && l.since <= r.applied.Load()
}

// join returns the round that will answer a call made now.
func (s *rounds) join(e *Engine, g GroupID) *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gathering == nil {
		s.gathering = &round{done: make(chan struct{})}
	}
	w := s.gathering
	if s.flying == nil {
		s.launchLocked(e, g)
	}
	return w
}

// launchLocked sends what has gathered on its way.
func (s *rounds) launchLocked(e *Engine, g GroupID) {
	w := s.gathering
	s.flying, s.gathering = w, nil
	if w == nil {
		return
	}
	if s.count == 0 {
		_, _ = rand.Read(s.prefix[:]) // never fails: it ends the program instead
	}
	s.count++
	w.token = string(binary.BigEndian.AppendUint64(s.prefix[:], s.count))
	e.ask(g, w.token)
}

func (e *Engine) ask(g GroupID, token string) {
	e.inbox.put(func(c *core) { c.readIndex(g, token) })
}

// resolve takes the answer to a round.
func (s *rounds) resolve(e *Engine, a readable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying == nil || s.flying.token != a.token {
		return
	}
	s.flying.index = a.index
	close(s.flying.done)
	s.launchLocked(e, a.group)
}

// repeat asks again for a round that is late. It is called with every tick.
func (s *rounds) repeat(e *Engine, g GroupID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flying == nil {
		return
	}
	if s.flying.ticks++; s.flying.ticks%repeatTicks == 0 {
		e.ask(g, s.flying.token)
	}
}

// end fails whoever waits.
func (s *rounds) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range []*round{s.flying, s.gathering} {
		if w != nil {
			w.err = ErrClosed
			close(w.done)
		}
	}
	s.flying, s.gathering = nil, nil
}
