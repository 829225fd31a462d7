package heal

import (
	"time"
)

// status describes the term.
func (t *term) status() *Status {
	v := t.now.Load()
	s := &Status{Leader: t.o.Self, Scrub: t.scrub.progress(), RatePerSecond: int64(t.h.rate.perSecond())}
	t.mu.Lock()
	p := t.pass
	s.Pending = t.pending.rows
	tallies := []*tally{p.tally, t.pending.tally}
	if p.running && p.last != nil {
		tallies[0] = p.last // until this one has seen everything
	}
	s.Draining = t.progressLocked(v)
	t.mu.Unlock()

	s.Pass, s.Passing, s.Scanned, s.Total, s.Endangered = p.count, p.running, p.scanned, p.total, p.endang
	if p.tally != nil {
		s.Done, s.Failed, s.Bytes = p.tally.counts()
		if p.running && s.Done > 0 {
			took := time.Since(p.started)
			s.ETA = (took * time.Duration(max(0, s.Total-s.Done-s.Failed)) / time.Duration(s.Done)).Round(time.Second)
		}
	}
	s.Rebalance = t.rebalance.progress(t.segments())
	t.scrub.mu.Lock()
	scrub := t.scrub.tally
	if t.scrub.state.Ended == 0 && t.scrub.last != nil {
		tallies = append(tallies, t.scrub.last)
	}
	t.scrub.mu.Unlock()
	t.rebalance.mu.Lock()
	tallies = append(tallies, scrub, t.rebalance.tally)
	t.rebalance.mu.Unlock()
	for _, y := range tallies {
		if y != nil {
			y.report(s, t.h.knownName)
		}
	}
	t.setPhase(s)
	return s
}

// segments is how many there are, as far as the last round of the scrub knows.
func (t *term) segments() int64 {
	t.scrub.mu.Lock()
	defer t.scrub.mu.Unlock()
	return t.scrub.state.Segments
}

// setPhase says what healing is at, and since when that was first seen.
func (t *term) setPhase(s *Status) {
	busy := s.Passing && s.Total > s.Done+s.Failed || s.Pending > 0
	draining := false
	for _, d := range s.Draining {
		draining = draining || !d.Counted || d.LeftSegments > 0
	}
	phase := PhaseIdle
	switch {
	case draining:
		phase = PhaseDraining
	case busy:
		phase = PhaseCopying
	case s.Rebalance.Running:
		phase = PhaseRebalancing
	case s.Scrub.Running && s.Scrub.Fast:
		phase = PhaseScrubbing
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase != phase {
		t.phase, t.since = phase, time.Now()
	}
	s.Phase, s.Since = t.phase, t.since
}
