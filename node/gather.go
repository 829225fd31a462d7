package node

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// askAgain is when a node that doesn't answer is asked again.
const askAgain = 2 * time.Second

// gather asks all nodes at once, and gives send what comes. A node that can't be
// asked, or ends, is told of once; with again it is asked until it answers, and
// who has joined is asked as well, within namesEvery, and who has left no more.
// Without again it ends when all of them have.
func gather[T any](ctx context.Context, names func() []string, again bool,
	ask func(ctx context.Context, name string, give func(T) error) error, failed func(name string, err error) T, send func(T) error,
) error {
	inner, cancel := context.WithCancel(ctx)
	g := &gathering[T]{ctx: inner, again: again, ask: ask, failed: failed, events: make(chan T), ended: make(chan struct{}), asked: map[string]context.CancelFunc{}}
	defer func() {
		cancel()
		g.all.Wait()
	}()
	g.follow(names())
	look := time.NewTicker(namesEvery)
	defer look.Stop()
	for left := len(g.asked); again || left > 0; {
		select {
		case e := <-g.events:
			if err := send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-g.ended:
			left--
		case <-look.C:
			if again {
				g.follow(names())
			}
		}
	}
	return nil
}

// gathering is a call of gather. One goroutine a node asks it.
type gathering[T any] struct {
	ctx    context.Context // ends them all
	again  bool
	ask    func(ctx context.Context, name string, give func(T) error) error
	failed func(name string, err error) T
	events chan T
	ended  chan struct{} // one from each that has ended by itself

	asked map[string]context.CancelFunc // gather's alone
	all   sync.WaitGroup
}

// follow has these nodes asked, and no others.
func (g *gathering[T]) follow(names []string) {
	for name, stop := range g.asked {
		if !slices.Contains(names, name) {
			stop()
			delete(g.asked, name)
		}
	}
	for _, name := range names {
		if g.asked[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(g.ctx)
		g.asked[name] = stop
		g.all.Go(func() {
			defer stop()
			g.run(ctx, name)
			select {
			case g.ended <- struct{}{}:
			case <-g.ctx.Done():
			}
		})
	}
}

// run asks a node until ctx ends, or once.
func (g *gathering[T]) run(ctx context.Context, name string) {
	give := func(e T) error {
		select {
		case g.events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for silent := false; ctx.Err() == nil; {
		err := g.ask(ctx, name, func(e T) error {
			silent = false
			return give(e)
		})
		if err == nil || err == io.EOF {
			if !g.again {
				return
			}
			err = fault.New(fault.Unavailable, "node "+name, "has ended the stream")
		}
		if ctx.Err() != nil || !silent && give(g.failed(name, told(err))) != nil || !g.again {
			return
		}
		silent = true
		timer := time.NewTimer(askAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
