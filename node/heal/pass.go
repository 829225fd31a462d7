package heal

import (
	"context"
	"errors"
	"time"

	"github.com/gridloom/gridloom/node/control"
)

const (
	passGap     = time.Second      // between two passes, at least, and as long as the last took
	retryMin    = time.Minute      // after a pass in which something failed; doubled
	retryMax    = time.Hour        // up to this
	pageRetry   = time.Second      // after a read that failed
	urgentKnown = 100_000          // segments that a pass remembers to have taken up as urgent
	pageLimit   = control.MaxPage  // segments of one read
	passEndWait = 10 * time.Minute // for which the last segments of a pass are waited for
)

// passProgress is the pass under way, or the last one.
type passProgress struct {
	count   uint64
	running bool
	started time.Time
	scanned int64
	total   int64
	endang  int64
	tally   *tally // nil before the first
	last    *tally // the one before, which is shown until this one has ended
}

// passes does passes: when the view changes, on request, and every PassEvery.
func (t *term) passes(ctx context.Context) {
	again := time.Duration(0) // until another try at what failed
	took := time.Duration(0)  // by the reading of the last pass
	for {
		wait := t.o.PassEvery
		if again > 0 {
			wait = min(wait, again)
		}
		if t.draining() {
			wait = min(wait, max(t.o.DrainEvery, pendingShare*took))
		}
		if !await(ctx, t.passNow, wait) {
			return
		}
		var err error
		took, err = t.onePass(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil: // copies were lost: those with one left come first
			wake(t.passNow)
			took = 0
		case t.passTroubled():
			again = min(max(2*again, retryMin), retryMax)
		default:
			again = 0
		}
		if rest(ctx, max(passGap, min(took, retryMin))) != nil {
			return
		}
	}
}

func (t *term) passTroubled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pass.tally.troubled()
}

// onePass takes up every segment that isn't as it should be, and returns how long
// finding them took. It ends early, with an error, when copies are lost
// meanwhile, since it has to begin anew then.
func (t *term) onePass(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	y := newTally("pass")
	t.mu.Lock()
	t.restart = cancel
	p := &t.pass
	p.last = p.tally
	p.count++
	p.running, p.started, p.scanned, p.total, p.tally = true, time.Now(), 0, 0, y
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.restart = nil
		t.pass.running = false
	}()
	urgent := make(map[[16]byte]bool)
	began := time.Now()
	total, err := t.count(ctx, y, urgent)
	took = time.Since(began)
	if err == nil && total > 0 {
		err = t.takeUp(ctx, y, urgent)
	}
	if err != nil {
		return took, err
	}
	wait, stop := context.WithTimeout(ctx, passEndWait)
	defer stop()
	if err := y.wait(wait); err != nil && ctx.Err() != nil {
		return took, err
	}
	return took, nil
}

// count is a pass's first run: it counts, and takes up what has one copy left.
func (t *term) count(ctx context.Context, y *tally, urgent map[[16]byte]bool) (total int64, err error) {
	var endangered int64
	left := newDrains(t.now.Load())
	err = t.pages(ctx, func(v *view, seg *control.SegmentCopies) error {
		need, live := v.assess(seg)
		if !need {
			return nil
		}
		total++
		left.add(v, seg)
		if live > 1 || v.copies(v.home(seg.Drives)) <= 1 {
			return nil
		}
		endangered++
		if len(urgent) < urgentKnown {
			urgent[seg.ID] = true
		}
		_, err := t.work.submit(ctx, &task{seg: *seg, urgent: true, tally: y})
		return err
	})
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass.total, t.pass.endang = total, endangered
	t.drains.counted(left)
	return total, nil
}

// takeUp is the second run: it takes up all others.
func (t *term) takeUp(ctx context.Context, y *tally, urgent map[[16]byte]bool) error {
	return t.pages(ctx, func(v *view, seg *control.SegmentCopies) error {
		if need, _ := v.assess(seg); !need || urgent[seg.ID] {
			return nil
		}
		_, err := t.work.submit(ctx, &task{seg: *seg, tally: y})
		t.mu.Lock()
		t.pass.scanned++
		t.mu.Unlock()
		return err
	})
}

// pages gives fn every segment that isn't as it should be by the view of the
// moment when its page was read.
func (t *term) pages(ctx context.Context, fn func(*view, *control.SegmentCopies) error) error {
	for after := ""; ; {
		v := t.now.Load()
		q := &control.CopiesQuery{After: after, Limit: pageLimit, Good: v.good, Want: uint8(v.want)}
		if len(v.good) == 0 {
			q.Good = []string{"-"} // none is good; an empty list asks for all
		}
		a, err := t.read(ctx, &control.Query{Copies: q})
		if err != nil {
			return err
		}
		for i := range a.Copies {
			if err := fn(v, &a.Copies[i]); err != nil {
				return err
			}
		}
		if after = a.Next; !a.More {
			return nil
		}
	}
}

// read reads from the index, again and again until it can or ctx ends.
func (t *term) read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	for told := false; ; told = true {
		a, err := t.o.Index.Read(ctx, q)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !told && !errors.Is(err, context.Canceled) {
			t.log.Warn("healing waits for the index", "err", err)
		}
		if err := rest(ctx, pageRetry); err != nil {
			return nil, err
		}
	}
}

// assess says whether anything is to be done about a segment, and how many of
// its copies are on drives that are well.
func (v *view) assess(seg *control.SegmentCopies) (need bool, live int) {
	home := v.home(seg.Drives)
	moves := v.pools[home] == nil || v.pools[home].copies == 0
	count := 0
	for _, id := range seg.Drives {
		d := v.drives[id]
		if d == nil || !d.counts() || !moves && d.Pool != home {
			need = true
		} else {
			count++
		}
		if d != nil && d.well {
			live++
		}
	}
	return need || count != v.copies(home), live
}

// pendingProgress is how the reading of the heal rows goes.
type pendingProgress struct {
	rows  int64
	tally *tally // of the last reading that has ended; nil before the first
}

const (
	pendingBackoff = time.Minute // the longest pause while segments fail
	pendingShare   = 10          // a reading takes at most one of so many parts of the time
)

// pendings reads the heal rows, over and over.
func (t *term) pendings(ctx context.Context) {
	pause := t.o.PendingEvery
	for await(ctx, t.pendNow, pause) {
		began := time.Now()
		y, err := t.onePending(ctx)
		if err != nil {
			continue // the term ends
		}
		least := max(t.o.PendingEvery, pendingShare*time.Since(began))
		if y.troubled() {
			pause = min(max(least, 2*pause), pendingBackoff)
		} else {
			pause = least
		}
	}
}

// onePending takes up every segment with a heal row, and waits for them.
func (t *term) onePending(ctx context.Context) (*tally, error) {
	y := newTally("missing copies")
	rows := int64(0)
	for after := ""; ; {
		a, err := t.read(ctx, &control.Query{Copies: &control.CopiesQuery{After: after, Limit: pageLimit, Pending: true}})
		if err != nil {
			return nil, err
		}
		v := t.now.Load()
		for i := range a.Copies {
			rows++
			_, live := v.assess(&a.Copies[i])
			if _, err := t.work.submit(ctx, &task{seg: a.Copies[i], pending: true, urgent: live <= 1, tally: y}); err != nil {
				return nil, err
			}
		}
		if after = a.Next; !a.More {
			break
		}
	}
	if t.o.Hooks.Pending != nil {
		t.o.Hooks.Pending(rows)
	}
	t.mu.Lock()
	t.pending.rows = rows
	t.mu.Unlock()
	if err := y.wait(ctx); err != nil {
		return nil, err
	}
	done, _, _ := y.counts()
	t.mu.Lock()
	t.pending.rows, t.pending.tally = max(0, rows-done), y
	t.mu.Unlock()
	return y, nil
}
