package replica

import "time"

// Stepper is an Engine in which nothing happens by itself, for simulations:
// there are no goroutines and no clock, and whoever has it says what comes
// next. What then happens is what happens in an Engine. Its methods, and those
// of the Engine in it, must not overlap; ReadIndex, which waits, is Ask here.
type Stepper struct {
	*Engine
	ticks int
	begun []func() // fetches
}

// OpenStepped is Open for a simulation. now is what times are taken from.
func OpenStepped(o Options, now func() time.Time) (*Stepper, error) {
	e, err := newEngine(o)
	if err != nil {
		return nil, err
	}
	s := &Stepper{Engine: e, ticks: 1}
	e.now = now
	e.start = func(f func()) { s.begun = append(s.begun, f) }
	e.dispatch(e.core.pump())
	return s, nil
}

// Tick lets the time of one tick pass.
func (s *Stepper) Tick() {
	s.tick(s.ticks)
	s.ticks++
	s.dispatch(s.core.pump())
}

// Step takes in what has come from other nodes, from the log and from the
// machines, and tells whether there was anything.
func (s *Stepper) Step() bool {
	all := s.inbox.take()
	if len(all) == 0 {
		return false
	}
	for _, do := range all {
		do(s.core)
	}
	s.dispatch(s.core.pump())
	return true
}

// Write writes to the log what has gathered, and tells whether there was
// anything.
func (s *Stepper) Write() (bool, error) {
	if s.writes.waiting() == 0 && s.cuts.waiting() == 0 {
		return false, nil
	}
	return true, s.writeOnce()
}

// Apply does the next thing that a group's machine has to do, and tells whether
// there was one.
func (s *Stepper) Apply(g GroupID) (bool, error) {
	r := s.groups[g]
	a, ok := r.applies.next()
	if !ok {
		return false, nil
	}
	return true, s.applyOne(r, a)
}

// Fetch fetches the snapshot that has been waiting longest, and tells whether
// there was one.
func (s *Stepper) Fetch() bool {
	if len(s.begun) == 0 {
		return false
	}
	next := s.begun[0]
	s.begun = s.begun[1:]
	next()
	return true
}

// Ask is ReadIndex without the waiting: answered gives the index when it is
// known.
func (s *Stepper) Ask(g GroupID) (answered func() (index uint64, ok bool)) {
	r := s.groups[g]
	if r.alone() {
		return func() (uint64, bool) { return 0, true }
	}
	w := r.reads.join(s.Engine, g)
	return func() (uint64, bool) {
		select {
		case <-w.done:
			return w.index, w.err == nil
		default:
			return 0, false
		}
	}
}

// Progress is how far a group has come on this node.
type Progress struct {
	Term, Commit, Applied, First, Last uint64
}

// Progress gives a group's.
func (s *Stepper) Progress(g GroupID) (p Progress) {
	r := s.groups[g]
	hard := r.raw.BasicStatus().HardState
	p.Term, p.Commit, p.Applied = hard.GetTerm(), hard.GetCommit(), r.applied.Load()
	p.First, _ = r.storage.FirstIndex() // the memory's: no error comes of it
	p.Last, _ = r.storage.LastIndex()
	return p
}
