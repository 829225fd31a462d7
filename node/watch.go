package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// watchCall streams a node's samples to another.
var watchCall = grid.NewStreamOf[watchRequest, watchRequest, watchReply](310, "telemetry.watch")

const (
	// maxWatches bounds the calls of Watch that a node serves at once.
	maxWatches = 64
	// watchAhead is how many samples may be on their way to another node.
	watchAhead = 4
	// silentAfter is how long a node that is watched may say nothing until it
	// is reported as down: the second between two samples, and askTimeout.
	silentAfter = time.Second + askTimeout
	// watchAgain is how long a node that is down is left alone.
	watchAgain = time.Second
	// namesEvery is how often a watch of all nodes looks which there are.
	namesEvery = 5 * time.Second
)

// watching is the samples of other nodes that somebody here watches. Each of
// those nodes is asked once, however many watch it.
type watching struct {
	every time.Duration // between two looks at which nodes there are; 0: namesEvery

	mu     sync.Mutex // guards what follows
	calls  int        // of Watch
	relays map[string]*relay
}

// relay brings another node's samples here.
type relay struct {
	feed  observability.Feed
	users int // under watching.mu
	end   context.CancelFunc
	ended chan struct{}
}

// registerWatch serves this node's samples to others.
func (m *mesh) registerWatch() error {
	return watchCall.Register(m.grid, 0, watchAhead, func(ctx context.Context, _ *watchRequest, p *grid.TypedPipe[watchReply, watchRequest, *watchReply, *watchRequest]) error {
		w := observability.NewWatcher()
		defer m.collector.Watch(w)()
		for {
			next, err := w.Next(ctx)
			if err != nil {
				return err
			}
			if err := p.Send(ctx, &watchReply{Resources: next.Resources, Missed: next.Missed}); err != nil {
				return err
			}
		}
	})
}

// Watch gives send the samples of the node of that name, of this one ("local"),
// or of all (""), as they are taken.
func (m *mesh) Watch(ctx context.Context, node string, send func(observability.Watched) error) error {
	names, err := m.selected(node)
	if err != nil {
		return err
	}
	if err := m.watching.begin(); err != nil {
		return err
	}
	defer m.watching.done()
	w := observability.NewWatcher()
	stops := map[string]func(){}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	follow := func() {
		for name, stop := range stops {
			if !slices.Contains(names, name) {
				stop()
				delete(stops, name)
			}
		}
		for _, name := range names {
			if stops[name] == nil {
				stops[name] = m.watchNode(ctx, name, w)
			}
		}
	}
	follow()
	look := time.Now().Add(m.watching.lookEvery())
	for {
		next, err := nextBefore(ctx, w, look)
		switch {
		case err == nil:
			if err := send(next); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if now := time.Now(); !now.Before(look) {
			look = now.Add(m.watching.lookEvery())
			if node == "" {
				names = m.names()
				follow()
			}
		}
	}
}

func nextBefore(ctx context.Context, w *observability.Watcher, until time.Time) (observability.Watched, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return w.Next(ctx)
}

func (w *watching) lookEvery() time.Duration { return cmp.Or(w.every, namesEvery) }

func (w *watching) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls >= maxWatches {
		return fault.New(fault.Overloaded, "watches", "all %d of this node are in use", maxWatches)
	}
	w.calls++
	return nil
}

func (w *watching) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls--
}

// watchNode gives w the samples of one node until stop is called.
func (m *mesh) watchNode(ctx context.Context, name string, w *observability.Watcher) (stop func()) {
	if name == m.self {
		return m.collector.Watch(w)
	}
	return m.watching.join(ctx, name, w, func(ctx context.Context, publish func(*observability.Resources, int64)) error {
		return m.receive(ctx, name, publish)
	})
}

// join has w watch a node by its relay. The first to join starts that, with
// receive, the last to stop ends it and waits for its end.
func (s *watching) join(ctx context.Context, name string, w *observability.Watcher, receive func(context.Context, func(*observability.Resources, int64)) error) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.relays[name]
	if r == nil {
		if s.relays == nil {
			s.relays = make(map[string]*relay)
		}
		// It outlives this watch, if others join, and is nobody's request.
		relayCtx, end := context.WithCancel(context.Background())
		r = &relay{end: end, ended: make(chan struct{})}
		s.relays[name] = r
		go r.run(relayCtx, name, receive)
	}
	r.users++
	leave := r.feed.Watch(w)
	return func() {
		leave()
		s.mu.Lock()
		r.users--
		last := r.users == 0
		if last {
			delete(s.relays, name)
		}
		s.mu.Unlock()
		if last {
			r.end()
			<-r.ended
		}
	}
}

// run passes on what is received, and says so when the node is down, until ctx
// ends.
func (r *relay) run(ctx context.Context, name string, receive func(context.Context, func(*observability.Resources, int64)) error) {
	defer close(r.ended)
	for {
		err := receive(ctx, r.feed.Publish)
		if ctx.Err() != nil {
			return
		}
		r.feed.Publish(observability.Down(name, err), 0)
		pause := time.NewTimer(watchAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// receive publishes a node's samples until it falls silent, or the connection is
// lost.
func (m *mesh) receive(ctx context.Context, name string, publish func(*observability.Resources, int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silentAfter, func() { cancel(errSilent) })
	defer silence.Stop()
	explain := func(err error) error {
		if errors.Is(context.Cause(ctx), errSilent) {
			return errSilent
		}
		return err
	}
	p, err := watchCall.Open(ctx, m.conn(name), &watchRequest{})
	if err != nil {
		return explain(err)
	}
	defer p.Cancel()
	for {
		reply, err := p.Recv(ctx)
		if err != nil {
			return explain(err)
		}
		silence.Reset(silentAfter)
		if reply.Resources != nil {
			publish(reply.Resources, reply.Missed)
		}
	}
}

var errSilent = errors.New("it has sent no sample for " + silentAfter.String())
