package heal

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/control"
)

const (
	// band is how far from the mean use, as a share of a drive's size, a drive
	// or pool may be without being evened out.
	band = 0.02
	// freedFor is for how long what was moved off a drive is taken to be there
	// still by those that measure: garbage is removed ten minutes later.
	freedFor = 15 * time.Minute
)

// rebalance is the evening out of drives and pools, on request.
type rebalance struct {
	woken chan struct{} // has room for one

	mu      sync.Mutex // guards what follows; begin sets wanted before the term runs
	wanted  bool
	stop    context.CancelFunc // of the run under way
	shown   Rebalance
	rate    meter // segments looked at
	tally   *tally
	off     map[string]int64 // bytes moved off drives by the last run
	offTime time.Time
}

func (r *rebalance) init() {
	r.woken, r.off = make(chan struct{}, 1), make(map[string]int64)
}

// askRebalance has a run begin, or the one under way end.
func (t *term) askRebalance(start bool) {
	r := &t.rebalance
	r.mu.Lock()
	defer r.mu.Unlock()
	if start {
		r.wanted = r.stop == nil // else it is under way
		wake(r.woken)
		return
	}
	r.wanted = false
	if r.stop != nil {
		r.shown.Why = "it was stopped"
		r.stop()
	}
}

// rebalances does runs on request.
func (t *term) rebalances(ctx context.Context) {
	r := &t.rebalance
	for {
		r.mu.Lock()
		wanted := r.wanted
		r.mu.Unlock()
		if wanted {
			t.evenOut(ctx)
		}
		if !await(ctx, r.woken, time.Hour) {
			return
		}
	}
}

// evenOut is one run over all segments. The use of drives is measured once, at
// the beginning, and kept up with what is moved: it ends where it would begin to
// move things back.
func (t *term) evenOut(ctx context.Context) {
	r := &t.rebalance
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	y := newTally("rebalancing")
	r.mu.Lock()
	r.wanted, r.stop, r.tally = false, cancel, y
	r.shown = Rebalance{Running: true, Started: time.Now()}
	old := r.off
	if time.Since(r.offTime) > freedFor {
		old = nil
	}
	r.off = make(map[string]int64)
	r.mu.Unlock()
	b := newBalance(t.now.Load(), old)
	for after, more := "", true; more && ctx.Err() == nil; {
		a, err := t.read(ctx, &control.Query{Copies: &control.CopiesQuery{After: after, Limit: pageLimit}})
		if err != nil {
			break
		}
		for i := range a.Copies {
			if err := t.shift(ctx, b, &a.Copies[i], y); err != nil {
				break
			}
		}
		r.rate.add(int64(len(a.Copies)))
		r.mu.Lock()
		r.shown.Scanned += int64(len(a.Copies))
		r.mu.Unlock()
		after, more = a.Next, a.More
	}
	_ = y.wait(ctx) // what is under way when it is stopped goes on
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown.Running, r.shown.Ended, r.stop = false, time.Now(), nil
	r.shown.Moved, r.shown.Failed, r.shown.Bytes = y.counts()
	r.off, r.offTime = b.off, time.Now()
}

// shift has a segment moved if that evens something out.
func (t *term) shift(ctx context.Context, b *balance, seg *control.SegmentCopies, y *tally) error {
	v := t.now.Load()
	if need, _ := v.assess(seg); need || t.work.has(seg.ID) {
		return ctx.Err() // it isn't as it should be: the passes' business
	}
	p, ok := b.move(v, seg)
	if !ok {
		return ctx.Err()
	}
	_, err := t.work.submit(ctx, &task{seg: *seg, fixed: true, plan: p, tally: y})
	return err
}

// balance is how full drives are, and will be when everything is done that was
// begun.
type balance struct {
	used map[string]int64
	off  map[string]int64 // bytes that this run moves off drives
}

func newBalance(v *view, off map[string]int64) *balance {
	b := &balance{used: make(map[string]int64), off: make(map[string]int64)}
	for id, d := range v.drives {
		b.used[id] = max(0, d.UsedBytes-off[id])
	}
	return b
}

// takes says whether a drive may be given something.
func takes(d *drive) bool { return d.writable && d.counts() }

// mean is how full the drives are that pass, together.
func (b *balance) mean(v *view, pass func(*drive) bool) float64 {
	var used, total int64
	for id, d := range v.drives {
		if d.counts() && d.well && d.TotalBytes > 0 && pass(d) {
			used, total = used+b.used[id], total+d.TotalBytes
		}
	}
	if total == 0 {
		return 0
	}
	return float64(used) / float64(total)
}

func (b *balance) fill(d *drive) float64 {
	if d.TotalBytes <= 0 {
		return 1
	}
	return float64(b.used[d.ID]) / float64(d.TotalBytes)
}

// move decides where a segment's copies, which are as they should be, would be
// better: in another pool, on other nodes, or on emptier drives; false where they
// are well where they are.
func (b *balance) move(v *view, seg *control.SegmentCopies) (plan, bool) {
	for _, id := range seg.Drives {
		if d := v.drives[id]; d == nil || !d.well {
			return plan{}, false
		}
	}
	home := v.home(seg.Drives)
	if p, ok := b.across(v, seg, home); ok {
		return p, true
	}
	drives := slices.Clone(seg.Drives)
	slices.SortFunc(drives, func(x, y string) int { return cmp.Compare(b.fill(v.drives[y]), b.fill(v.drives[x])) })
	mean := b.mean(v, func(d *drive) bool { return d.Pool == home })
	spread := v.spread(seg.Drives)
	for _, from := range drives {
		rest := slices.DeleteFunc(slices.Clone(seg.Drives), func(id string) bool { return id == from })
		fill := b.fill(v.drives[from])
		best, bestSpread := "", 0
		for _, to := range v.ids {
			d := v.drives[to]
			if d.Pool != home || !takes(d) || slices.Contains(seg.Drives, to) || !b.room(d, seg.SizeBytes) {
				continue
			}
			s := v.spread(append(slices.Clip(rest), to))
			evens := uneven(fill, b.fill(d), mean)
			if s < spread || s == spread && !evens {
				continue
			}
			if best == "" || s > bestSpread || s == bestSpread && b.fill(d) < b.fill(v.drives[best]) {
				best, bestSpread = to, s
			}
		}
		if best != "" {
			b.note(seg.SizeBytes, []string{from}, []string{best})
			return b.plan(v, seg, rest, []string{from}, []string{best}), true
		}
	}
	return plan{}, false
}

// uneven says whether something is to move from one that is so full to another:
// one on each side of the mean, and one of them too far from it.
func uneven(from, to, mean float64) bool {
	return from > mean && to < mean && (from > mean+band || to < mean-band)
}

// across moves all of a segment's copies to the emptiest pool, if its own is
// fuller than all are together and that one emptier.
func (b *balance) across(v *view, seg *control.SegmentCopies, home string) (plan, bool) {
	all := b.mean(v, func(*drive) bool { return true })
	fill := func(pool string) float64 { return b.mean(v, func(d *drive) bool { return d.Pool == pool }) }
	full := fill(home)
	target, least := "", full
	for _, name := range sortedKeys(v.pools) {
		if p := v.pools[name]; name != home && p.copies > 0 && p.copies >= v.pools[home].copies {
			if f := fill(name); f < least && uneven(full, f, all) {
				target, least = name, f
			}
		}
	}
	if target == "" {
		return plan{}, false
	}
	var add []string
	for len(add) < v.pools[target].copies {
		best := ""
		for _, id := range v.ids {
			d := v.drives[id]
			if d.Pool != target || !takes(d) || slices.Contains(add, id) || !b.room(d, seg.SizeBytes) {
				continue
			}
			if best == "" {
				best = id
				continue
			}
			s, o := v.spread(append(slices.Clip(add), id)), v.spread(append(slices.Clip(add), best))
			if s > o || s == o && b.fill(d) < b.fill(v.drives[best]) {
				best = id
			}
		}
		if best == "" {
			return plan{}, false
		}
		add = append(add, best)
	}
	b.note(seg.SizeBytes, seg.Drives, add)
	return b.plan(v, seg, nil, seg.Drives, add), true
}

// room says whether a drive has room for a copy, and some more.
func (b *balance) room(d *drive, bytes int64) bool {
	return d.FreeBytes-(b.used[d.ID]-d.UsedBytes) > 2*bytes
}

// note keeps up with a move.
func (b *balance) note(bytes int64, from, to []string) {
	for _, id := range from {
		b.used[id] -= bytes
		b.off[id] += bytes
	}
	for _, id := range to {
		b.used[id] += bytes
	}
}

func (b *balance) plan(v *view, seg *control.SegmentCopies, keep, remove, add []string) plan {
	p := plan{want: len(keep) + len(add), keep: keep, add: slices.Clone(add), remove: slices.Clone(remove)}
	p.from = slices.Clone(seg.Drives)
	p.sources(v, seg)
	return p
}

// progress describes the run.
func (r *rebalance) progress(total int64) Rebalance {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shown
	if s.Running && r.tally != nil {
		s.Moved, s.Failed, s.Bytes = r.tally.counts()
		s.ETA = r.rate.left(total - s.Scanned)
	}
	return s
}
