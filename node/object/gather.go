package object

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// slowAfter is how long nothing may happen before a further drive is asked
// beside those that don't answer.
const slowAfter = 500 * time.Millisecond

// openGrace times CopyGrace is how long a put waits at least for further drives
// to open a file, once a majority has. Most need no time for it, and a put that
// has begun with a majority fails with the first of them that does.
const openGrace = 4

// grace is how long those that are late are waited for, once enough have come,
// which took a time.
func (s *Service) grace(took time.Duration) time.Duration { return max(s.o.CopyGrace, took/2) }

// errGivenUp is why something ends that nobody waits for any more.
var errGivenUp = errors.New("object: the other copies were enough, and this one was late")

// attempt is a try at getting something from a drive.
type attempt[T any] struct {
	target
	ctx    context.Context // of the try; value may live on in it
	cancel context.CancelCauseFunc

	// Guarded by gatherer.mu.
	over  bool // value or err is set
	value T
	err   error
	noted bool // the error was
}

// gatherer tries drives side by side, until enough of them have given
// something. One goroutine uses it.
type gatherer[T any] struct {
	s      *Service
	pool   *pool
	picker *picker
	// start begins a try. It is called at once; what it returns, in a goroutine
	// of the try's own.
	start func(t target) (run func(ctx context.Context) (T, error))
	// opening says that the copies are only begun: one that isn't there now is
	// none, whatever becomes of the others, so that more is waited for it.
	opening bool
	// late gets what a try gives after gather has returned.
	late func(a *attempt[T])

	refused refusals
	news    chan struct{} // capacity 1: a try has ended

	mu    sync.Mutex // guards what follows
	tries []*attempt[T]
	ended bool // gather has returned, or is about to
}

// gather asks as many drives at once as there are to be copies, and further
// ones in the place of those that refuse; a drive that isn't quite well only if
// there would be too few without it. Once enough have given something it waits
// for the others a moment longer, and then gives them up. It returns those that
// did. Without an error they are enough. The caller cancels each of them.
func (g *gatherer[T]) gather(ctx context.Context) ([]*attempt[T], error) {
	g.news = make(chan struct{}, 1)
	timer := time.NewTimer(slowAfter)
	defer timer.Stop()
	began, slow := time.Now(), 0
	enough := false
	for {
		got, pending := g.collect()
		slow = min(slow, pending)
		pending += g.ask(ctx, got, pending, slow)
		switch {
		case ctx.Err() != nil:
			return g.end(), context.Cause(ctx)
		case pending == 0, got >= g.pool.want:
			if found := g.end(); len(found) >= g.pool.need {
				return found, nil
			} else {
				return found, g.refused.err()
			}
		case got < g.pool.need:
			if time.Since(began) > stallMax {
				return g.end(), fault.New(fault.Unavailable, "pool "+g.pool.name, "too few drives have answered within %v", stallMax)
			}
			timer.Reset(slowAfter)
		case !enough:
			enough = true
			timer.Reset(g.grace(time.Since(began)))
		}
		select {
		case <-g.news:
		case <-ctx.Done():
		case <-timer.C:
			if enough {
				return g.end(), nil
			}
			slow++
		}
	}
}

// grace is how long those that are late are waited for.
func (g *gatherer[T]) grace(took time.Duration) time.Duration {
	if g.opening {
		return max(openGrace*g.s.o.CopyGrace, took/2)
	}
	return g.s.grace(took)
}

// ask begins tries where there are too few, and says how many.
func (g *gatherer[T]) ask(ctx context.Context, got, pending, slow int) (begun int) {
	for ctx.Err() == nil {
		worst := tierBad
		switch n := got + pending + begun; {
		case n-slow < g.pool.need:
		case n < g.pool.want:
			worst = tierGood
		default:
			return begun
		}
		t, ok := g.picker.next(worst)
		if !ok {
			return begun
		}
		g.try(ctx, t)
		begun++
	}
	return begun
}

// try begins one.
func (g *gatherer[T]) try(ctx context.Context, t target) {
	a := &attempt[T]{target: t}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	g.mu.Lock()
	g.tries = append(g.tries, a)
	g.mu.Unlock()
	run := g.start(t)
	work := func() {
		v, err := run(a.ctx)
		g.finish(a, v, err)
	}
	if !g.s.spawn(work) {
		a.cancel(stopping())
		work()
	}
}

// finish notes the end of a try.
func (g *gatherer[T]) finish(a *attempt[T], v T, err error) {
	g.mu.Lock()
	a.over, a.value, a.err = true, v, err
	late := g.ended
	g.mu.Unlock()
	if late {
		g.s.health.endLate(a.drive)
		if err == nil {
			g.late(a)
		}
		return
	}
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// collect counts the tries that have given something and those under way, and
// notes the refusals.
func (g *gatherer[T]) collect() (got, pending int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.tries {
		switch {
		case !a.over:
			pending++
		case a.err == nil:
			got++
		case !a.noted:
			a.noted = true
			a.cancel(nil)
			g.refused.add(a.err)
			g.picker.use(&a.target, -1)
		}
	}
	return got, pending
}

// end gives up the tries under way, and returns those that gave something.
func (g *gatherer[T]) end() []*attempt[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	var found []*attempt[T]
	for _, a := range g.tries {
		switch {
		case !a.over:
			g.s.health.startLate(a.drive)
			if g.opening {
				g.s.health.distrust(a.drive)
			}
			a.cancel(errGivenUp)
		case a.err == nil:
			found = append(found, a)
		}
	}
	return found
}

// unsure returns the drives that may have something of a try that wasn't found
// to have given it: all of whose end nothing is known, and those that failed as
// certain says of none.
func (g *gatherer[T]) unsure(certain func(t target, err error) bool) []target {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []target
	for _, a := range g.tries {
		if !a.over || a.err != nil && !certain(a.target, a.err) {
			all = append(all, a.target)
		}
	}
	return all
}
