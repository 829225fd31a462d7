package heal

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// The bounds of the work in hand.
const (
	tasksMax     = 8000                   // segments in hand that aren't urgent
	urgentMax    = 2000                   // and that are
	batchesMax   = 8                      // under way
	perDriveMax  = 4                      // of them, to one drive
	batchItems   = 64                     // copies or checks in one
	batchBytes   = 256 << 20              // of payload in one, unless a single item has more
	triesMax     = 5                      // of a segment in one run
	retryFirst   = time.Second            // before the second try; doubled
	refusedPause = 10 * time.Second       // after the index has refused a change
	retryLook    = 250 * time.Millisecond // between two looks for what is due
	proposeLimit = 2 * time.Minute
)

// task is a segment in hand. Its fields are guarded by work.mu where more than
// one goroutine may use it: while copies or checks of it are under way.
type task struct {
	seg     control.SegmentCopies
	bad     map[string]string // drives whose copy is bad, and how
	failed  map[string]bool   // drives that didn't take a copy at the last try
	pending bool              // it has a heal row
	urgent  bool
	fixed   bool // plan was made by who submitted it, and is tried once
	tally   *tally
	tries   int
	due     time.Time // of the next try

	plan     plan
	suspect  bool             // sources aren't what they should be: each is checked before the next plan
	under    int              // jobs queued or under way
	made     map[string]bool  // drives that have a new copy by this plan
	errs     map[string]error // drives that haven't
	verified bool             // plan.verify is good
	birth    int64            // log time before the first of the copies was begun
}

// job is one thing to do on one drive for a task.
type job struct {
	*task
	replace bool
}

// lane is a queue of jobs: copies to a drive, or checks of copies on it.
type lane struct {
	drive string
	check bool
}

// queue is the jobs of a lane, in order.
type queue struct{ urgent, rest []job }

func (q *queue) empty() bool { return len(q.urgent)+len(q.rest) == 0 }

// work carries plans out.
type work struct {
	o    *Options
	log  *slog.Logger
	view func() *view
	pace *pace
	rate *meter // bytes copied
	name func(ctx context.Context, bucket [16]byte) string

	ended func(seg *control.SegmentCopies, why string) // a task has; "" is in order
	freed func(drive string, bytes int64)              // a copy is off a drive's list

	ctx     context.Context // of the term
	batches sync.WaitGroup
	holds   holds
	slots   chan struct{}
	urgent  chan struct{}
	stirred chan struct{} // has room for one: commit should look
	delayed chan struct{} // has room for one: retry should look

	mu       sync.Mutex // guards what follows
	tasks    map[[16]byte]*task
	lanes    map[lane]*queue
	order    []lane // those that have a queue, in turn
	running  int
	perDrive map[string]int
	waiting  []*task // for their next try
	commits  []*task // that have something to say to the index
}

func newWork(ctx context.Context, h *Healer, view func() *view) *work {
	return &work{
		o: &h.o, log: h.log, view: view, pace: &h.pace, rate: &h.rate, name: h.bucketName, ctx: ctx,
		slots: make(chan struct{}, tasksMax), urgent: make(chan struct{}, urgentMax), stirred: make(chan struct{}, 1), delayed: make(chan struct{}, 1),
		tasks: make(map[[16]byte]*task), lanes: make(map[lane]*queue), perDrive: make(map[string]int),
	}
}

// submit takes a segment in hand, waiting for room. One that is in hand
// already is left to that.
func (w *work) submit(ctx context.Context, t *task) (taken bool, err error) {
	slots := w.slots
	if t.urgent {
		slots = w.urgent
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	w.mu.Lock()
	if w.tasks[t.seg.ID] != nil {
		w.mu.Unlock()
		<-slots
		return false, nil
	}
	w.tasks[t.seg.ID] = t
	w.mu.Unlock()
	t.tally.begin()
	if h, held := w.holds.of(&t.seg); held && len(t.bad) == 0 && !t.fixed {
		w.release(t)
		if h.lost {
			t.tally.gone(t.seg, h.why)
		} else {
			t.tally.end(h.why, false)
		}
		w.ended(&t.seg, h.why)
		return true, nil
	}
	w.prepare(t)
	return true, nil
}

// has says whether a segment is in hand.
func (w *work) has(id [16]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[id] != nil
}

// release gives a task's place free.
func (w *work) release(t *task) {
	w.mu.Lock()
	delete(w.tasks, t.seg.ID)
	w.mu.Unlock()
	if t.urgent {
		<-w.urgent
	} else {
		<-w.slots
	}
}

// end ends a task: in order where why is "".
func (w *work) end(t *task, why string, again bool) {
	w.release(t)
	switch {
	case why == "":
		w.holds.drop(t.seg.ID)
	case again && !t.fixed:
		w.holds.put(&t.seg, why, false)
	}
	t.tally.end(why, again)
	w.ended(&t.seg, why)
	if why != "" && w.o.Hooks.Failed != nil {
		w.o.Hooks.Failed(1)
	}
}

// prepare plans a task that nothing is under way for, and begins what is to be
// done.
func (w *work) prepare(t *task) {
	if t.suspect && len(t.plan.from) > 0 {
		w.enqueue(t, nil, nil, t.plan.from)
		return
	}
	t.suspect = false
	if !t.fixed {
		v := w.view()
		t.plan = v.plan(&t.seg, t.bad, t.failed, w.o.Objects.PlaceCopy)
		if t.plan.blocked != "" && len(t.failed) > 0 {
			t.plan = v.plan(&t.seg, t.bad, nil, w.o.Objects.PlaceCopy) // better that drive again than none
		}
	}
	t.failed, t.made, t.errs, t.verified, t.birth = nil, nil, nil, false, 0
	p := &t.plan
	switch {
	case p.lost:
		w.conclude(t)
	case p.idle() && !(t.pending && len(p.keep)+len(p.away) >= p.want):
		w.end(t, p.blocked, false)
	case len(p.add)+len(p.replace) > 0:
		w.enqueue(t, p.add, p.replace, nil)
	case p.verify != "":
		w.enqueue(t, nil, nil, []string{p.verify})
	default:
		w.conclude(t)
	}
}

// enqueue queues a task's jobs.
func (w *work) enqueue(t *task, add, replace, check []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.under = len(add) + len(replace) + len(check)
	for _, id := range add {
		w.queueLocked(lane{drive: id}, job{task: t})
	}
	for _, id := range replace {
		w.queueLocked(lane{drive: id}, job{task: t, replace: true})
	}
	for _, id := range check {
		w.queueLocked(lane{drive: id, check: true}, job{task: t})
	}
	w.startLocked()
}

func (w *work) queueLocked(l lane, j job) {
	q := w.lanes[l]
	if q == nil {
		q = &queue{}
		w.lanes[l] = q
		w.order = append(w.order, l)
	}
	if j.urgent {
		q.urgent = append(q.urgent, j)
	} else {
		q.rest = append(q.rest, j)
	}
}

// startLocked begins as many batches as may be under way: first of the lanes
// with something urgent, and among these in turn.
func (w *work) startLocked() {
	for w.running < batchesMax && w.ctx.Err() == nil {
		next := w.nextLocked(true)
		if next < 0 {
			next = w.nextLocked(false)
		}
		if next < 0 {
			return
		}
		l := w.order[next]
		w.order = append(w.order[:next], w.order[next+1:]...)
		q := w.lanes[l]
		batch := q.take()
		if q.empty() {
			delete(w.lanes, l)
		} else {
			w.order = append(w.order, l)
		}
		w.running++
		w.perDrive[l.drive]++
		w.batches.Go(func() {
			w.carryOut(l, batch)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.running--
			if w.perDrive[l.drive]--; w.perDrive[l.drive] == 0 {
				delete(w.perDrive, l.drive)
			}
			w.startLocked()
		})
	}
}

func (w *work) nextLocked(urgent bool) int {
	for i, l := range w.order {
		if w.perDrive[l.drive] < perDriveMax && (!urgent || len(w.lanes[l].urgent) > 0) {
			return i
		}
	}
	return -1
}

// take takes a batch off a queue.
func (q *queue) take() []job {
	var batch []job
	var bytes int64
	for len(batch) < batchItems && !q.empty() {
		from := &q.urgent
		if len(*from) == 0 {
			from = &q.rest
		}
		j := (*from)[0]
		if len(batch) > 0 && bytes+j.seg.SizeBytes > batchBytes {
			break
		}
		bytes += j.seg.SizeBytes
		batch = append(batch, j)
		*from = (*from)[1:]
	}
	return batch
}

// again takes a task up once more after a pause, unless it was often enough.
func (w *work) again(t *task, why string) { w.later(t, why, retryFirst<<t.tries) }

// later is again with a pause of one's own.
func (w *work) later(t *task, why string, pause time.Duration) {
	if t.tries++; t.tries >= triesMax || t.fixed {
		w.end(t, why, true)
		return
	}
	t.due = time.Now().Add(pause)
	w.mu.Lock()
	w.waiting = append(w.waiting, t)
	w.mu.Unlock()
	wake(w.delayed)
}

// retry takes up what is due, until ctx ends.
func (w *work) retry(ctx context.Context) {
	for wait := time.Hour; await(ctx, w.delayed, wait); {
		now := time.Now()
		wait = time.Hour
		var due []*task
		w.mu.Lock()
		left := w.waiting[:0]
		for _, t := range w.waiting {
			if t.due.After(now) {
				left = append(left, t)
				wait = min(wait, t.due.Sub(now))
			} else {
				due = append(due, t)
			}
		}
		clear(w.waiting[len(left):])
		w.waiting = left
		w.mu.Unlock()
		for _, t := range due {
			w.prepare(t)
		}
		wait = max(wait, retryLook)
	}
}

// conclude ends a task's round of jobs: what has changed goes to the index, the
// rest is tried again.
func (w *work) conclude(t *task) {
	if t.suspect { // its sources have been checked, those that can be
		t.suspect = false
		w.again(t, "a source of it can't be read as it should be")
		return
	}
	if t.plan.lost || t.change() != nil {
		w.mu.Lock()
		w.commits = append(w.commits, t)
		w.mu.Unlock()
		wake(w.stirred)
		return
	}
	w.settle(t)
}

// settle ends a task for which the index knows everything by now, or has it
// tried again.
func (w *work) settle(t *task) {
	why := ""
	for _, id := range sortedKeys(t.errs) {
		err := t.errs[id]
		why = w.view().name(id) + ": " + err.Error()
		if t.failed == nil {
			t.failed = make(map[string]bool)
		}
		t.failed[id] = true
		t.suspect = t.suspect || fault.KindOf(err) == fault.Corrupted
	}
	for id := range t.made {
		delete(t.bad, id)
	}
	switch {
	case why != "":
		w.again(t, why)
	case t.plan.verify != "" && !t.verified:
		w.again(t, "the copy that is to stay on "+w.view().name(t.plan.verify)+" is bad")
	default:
		w.end(t, t.plan.blocked, false)
	}
}

// change is what the index is to be told of a task: nil is nothing.
func (t *task) change() *control.CopyChange {
	p := &t.plan
	c := &control.CopyChange{ID: t.seg.ID, Drop: p.drop, Seen: t.seg.Drives}
	for _, id := range p.add {
		if t.made[id] {
			c.Add = append(c.Add, id)
		}
	}
	well := len(p.keep) + len(t.made) // each in made is one of add or replace
	if t.fixed && well < p.want {
		return nil // it stays where it is
	}
	if well >= p.want && (t.verified || len(t.made) > 0 || t.harmless()) {
		c.Remove = p.remove
	}
	c.Settled = well+len(p.away) >= p.want
	if len(c.Add)+len(c.Remove)+len(c.Drop) == 0 && !(t.pending && c.Settled) {
		return nil
	}
	return c
}

// harmless says that no copy which may be good is taken away.
func (t *task) harmless() bool {
	for _, id := range t.plan.remove {
		if _, isBad := t.bad[id]; !isBad {
			return false
		}
	}
	return true
}

// applied notes a change that the index has made.
func (t *task) applied(c *control.CopyChange) {
	gone := make(map[string]bool, len(c.Remove)+len(c.Drop))
	for _, id := range c.Remove {
		gone[id] = true
	}
	for _, id := range c.Drop {
		gone[id] = true
	}
	var now []string
	for _, id := range t.seg.Drives {
		if !gone[id] {
			now = append(now, id)
		}
	}
	t.seg.Drives = append(now, c.Add...)
	t.pending = t.pending && !c.Settled
}
