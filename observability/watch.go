package observability

import (
	"context"
	"slices"
	"sync"
)

// Watched is a sample that a Watcher is given.
type Watched struct {
	Resources *Resources
	// Missed is how many samples of this node were left out since the one
	// before, because whoever watches was slow.
	Missed int64
}

// Watcher holds, of each node that is watched, the newest sample that was not
// taken yet. That is its bound: one that is slow misses samples, which are
// counted, and nobody waits for it. Its methods may be called by any goroutine.
type Watcher struct {
	arrived chan struct{} // has room for one

	mu      sync.Mutex // guards what follows
	order   []string   // of nodes with a sample, by when their first one came
	pending map[string]*Watched
}

// NewWatcher returns a Watcher with nothing in it.
func NewWatcher() *Watcher {
	return &Watcher{arrived: make(chan struct{}, 1), pending: make(map[string]*Watched)}
}

// Put gives w a sample, and says how many were missed before it on its way here.
// It doesn't block.
func (w *Watcher) Put(r *Resources, missed int64) {
	w.mu.Lock()
	if p := w.pending[r.Node]; p != nil {
		p.Resources = r
		p.Missed += 1 + missed
	} else {
		w.pending[r.Node] = &Watched{Resources: r, Missed: missed}
		w.order = append(w.order, r.Node)
	}
	w.mu.Unlock()
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// Next waits for a sample and takes it: that of the node whose turn is longest
// due. It returns the context's error once that has ended.
func (w *Watcher) Next(ctx context.Context) (Watched, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Watched{}, err
		}
		w.mu.Lock()
		if len(w.order) > 0 {
			node := w.order[0]
			w.order = slices.Delete(w.order, 0, 1)
			next := *w.pending[node]
			delete(w.pending, node)
			w.mu.Unlock()
			return next, nil
		}
		w.mu.Unlock()
		select {
		case <-w.arrived:
		case <-ctx.Done():
		}
	}
}

// Feed hands samples of one node to whoever watches it. The zero value is
// ready.
type Feed struct {
	mu       sync.Mutex // guards what follows
	latest   *Resources // nil before the first
	watchers []*Watcher
}

// Publish gives every watcher a sample, and says how many were missed before it.
func (f *Feed) Publish(r *Resources, missed int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest = r
	for _, w := range f.watchers {
		w.Put(r, missed)
	}
}

// Watch gives w the latest sample, if there is one, and all that follow, until
// stop is called. left is how many watchers there are then.
func (f *Feed) Watch(w *Watcher) (stop func() (left int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers = append(f.watchers, w)
	if f.latest != nil {
		w.Put(f.latest, 0)
	}
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		if i := slices.Index(f.watchers, w); i >= 0 {
			f.watchers = slices.Delete(f.watchers, i, i+1)
		}
		return len(f.watchers)
	}
}

// Watch gives w the collector's latest sample and each one that follows, until
// stop is called. They are the very Resources that the collector publishes.
func (c *Collector) Watch(w *Watcher) (stop func()) {
	end := c.feed.Watch(w)
	return func() { end() }
}
