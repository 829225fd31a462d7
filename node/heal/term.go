package heal

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// term is this node's time as the one who coordinates.
type term struct {
	h    *Healer
	o    *Options
	log  *slog.Logger
	work *work

	ctx    context.Context
	cancel context.CancelFunc
	group  *errgroup.Group
	began  time.Time

	now atomic.Pointer[view]

	passNow   chan struct{} // has room for one: a pass is wanted
	pendNow   chan struct{} // has room for one: the heal rows are to be read
	sweepNow  chan struct{} // has room for one: a drive is gone
	scrub     scrub
	rebalance rebalance

	// mu guards what follows.
	mu      sync.Mutex
	restart context.CancelFunc // of the pass under way
	pass    passProgress
	pending pendingProgress
	drains  drains
	gone    map[string]bool // drives that were there and are no more
	phase   string          // as last shown, and since when
	since   time.Time
}

func newTerm(ctx context.Context, h *Healer, v *view) *term {
	t := &term{
		h: h, o: &h.o, log: h.log, began: time.Now(), gone: make(map[string]bool),
		passNow: make(chan struct{}, 1), pendNow: make(chan struct{}, 1), sweepNow: make(chan struct{}, 1),
		phase: PhaseIdle, since: time.Now(),
	}
	t.ctx, t.cancel = context.WithCancel(ctx)
	t.now.Store(v)
	t.scrub.init()
	t.rebalance.init()
	t.work = newWork(t.ctx, h, t.now.Load)
	t.work.ended = t.ended
	t.work.freed = t.freed
	t.drains.reset(v)
	wake(t.passNow)
	wake(t.sweepNow)
	return t
}

// run starts the term's goroutines.
func (t *term) run() {
	var ctx context.Context
	t.group, ctx = errgroup.WithContext(t.ctx)
	for _, loop := range []func(context.Context){
		t.passes, t.pendings, t.scrubs, t.rebalances, t.sweeps, t.work.retry, t.work.commit,
	} {
		t.group.Go(func() error { loop(ctx); return nil })
	}
}

// end ends them, and waits for their end and that of the batches.
func (t *term) end() {
	t.cancel()
	_ = t.group.Wait()
	t.work.batches.Wait()
}

// look takes a new view of the drives, and has done what follows from it.
func (t *term) look(v *view) {
	old := t.now.Swap(v)
	if old.sameWork(v) {
		return
	}
	t.mu.Lock()
	for _, id := range old.ids {
		if v.drives[id] == nil {
			t.gone[id] = true
			wake(t.sweepNow)
		}
	}
	for _, id := range v.ids {
		delete(t.gone, id)
	}
	t.drains.reset(v)
	restart := t.restart
	t.mu.Unlock()
	t.work.holds.clear()
	if restart != nil && old.loses(v) {
		restart() // what has one copy left by now comes first
	}
	wake(t.passNow)
	wake(t.pendNow)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start does as StartRequest says.
func (t *term) start(req StartRequest) {
	t.work.holds.clear()
	wake(t.passNow)
	wake(t.pendNow)
	if req.Verify {
		t.scrub.ask()
	}
}

// await waits for a while, or until woken; it says whether ctx goes on.
func await(ctx context.Context, woken <-chan struct{}, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
