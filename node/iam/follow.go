package iam

import (
	"fmt"
	"sync"
	"time"
)

// follower is one open stream or body.
type follower struct {
	recheck func(Principal) error
	cancel  func(error)

	mu   sync.Mutex // held while it is looked at and ended
	p    Principal
	seen *gateState // what p was last looked at on
	done bool
}

// Follow has an open stream or body looked at again whenever users, keys or root
// keys change, till stop is called. recheck is given the principal as it is by
// then and says whether it still may do what it does: it asks Authorize again.
// Once it may not, or is nobody any more, cancel is called with the reason, once.
// That the key's, token's or link's time is up is no reason: see
// Principal.ExpiresAt.
//
// Both are called by whoever makes the change, so neither may block or call stop.
// Neither is called once stop has returned: what cancel ends may be somebody
// else's by then. There is one follower for each open stream, which the doors
// bound.
func (g *Gate) Follow(p Principal, recheck func(now Principal) error, cancel func(error)) (stop func()) {
	if p.is == nil {
		return func() {}
	}
	f := &follower{recheck: recheck, cancel: cancel, p: p}
	g.mu.Lock()
	g.followers[f] = struct{}{}
	g.mu.Unlock()
	g.look(f, nil) // what p was let in by may have changed since
	return func() {
		g.forget(f)
		f.mu.Lock()
		f.done = true
		f.mu.Unlock()
	}
}

// Still looks once at what Follow would end, and gives the reason to: for what
// needs no time.
func (g *Gate) Still(p Principal, recheck func(now Principal) error) error {
	if p.is == nil {
		return nil
	}
	next, err := g.state.Load().renew(p)
	if err != nil || next.is == p.is {
		return err
	}
	return recheck(next)
}

// Recheck is for the node to call every few seconds: it ends what is open when
// the copy of users and keys has gone stale, since a revocation wouldn't be
// heard of. The root key needs no copy, and goes on.
func (g *Gate) Recheck() {
	var stale error
	if g.stale() {
		stale = fmt.Errorf("%w: what was open is ended", ErrStale)
	}
	g.recheck(stale)
}

// Following is how many streams and bodies are followed.
func (g *Gate) Following() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.followers)
}

// recheck looks at all that is open. It is no error that some has ended since.
func (g *Gate) recheck(stale error) {
	g.mu.Lock()
	open := make([]*follower, 0, len(g.followers))
	for f := range g.followers {
		open = append(open, f)
	}
	g.mu.Unlock()
	for _, f := range open {
		g.look(f, stale)
	}
}

func (g *Gate) forget(f *follower) {
	g.mu.Lock()
	delete(g.followers, f)
	g.mu.Unlock()
}

// look decides on one follower, and ends it if it has to.
func (g *Gate) look(f *follower, stale error) {
	if f.end(g, stale) {
		g.forget(f)
	}
}

// end ends f if there is a reason to, once.
func (f *follower) end(g *Gate, stale error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return false
	}
	err := f.look(g, stale)
	if err == nil {
		return false
	}
	f.done = true
	f.cancel(err)
	return true
}

// look gives the reason to end f. f.mu is held.
func (f *follower) look(g *Gate, stale error) error {
	if stale != nil && f.p.is.root == nil {
		return stale
	}
	state := g.state.Load() // in here, so that it is never older than the last one
	if f.seen == state {
		return nil
	}
	f.seen = state
	next, err := state.renew(f.p)
	if err != nil {
		return err
	}
	if next.is == f.p.is {
		return nil
	}
	f.p = next
	return f.recheck(next)
}

// renew is p as it is by now; with the same identity if nothing has changed
// that could matter to it.
func (s *gateState) renew(p Principal) (Principal, error) {
	if p.is.root != nil {
		for _, r := range s.roots {
			if r == p.is.root {
				return p, nil
			}
		}
		return Principal{}, fmt.Errorf("%w: the root key was replaced", ErrUnauthenticated)
	}
	if s.snapshot == nil {
		return Principal{}, ErrNotReady
	}
	is, err := s.snapshot.renew(p.is, s.at)
	if err != nil {
		return Principal{}, err
	}
	if is.entry != nil {
		p.Service, p.ExpiresAt = is.entry.key.Service, sooner(p, is)
	}
	p.is = is
	return p, nil
}

// sooner is when p ends by now: a token or link of its own has its own end.
func sooner(p Principal, is *identity) time.Time {
	end := unixTime(is.entry.key.Expires)
	if p.Via == ViaKey {
		return end
	}
	return earlier(p.ExpiresAt, end)
}
