package heal

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/object"
)

const (
	scrubPage     = 200     // segments of one read
	scrubFastPage = 1000    // and when it is to be quick
	scrubParallel = 8       // drives that are read at a time
	scrubSlack    = 1.25    // how much faster than it would have to be it goes
	scrubSlowest  = 1 << 20 // bytes per second, at least
	checkTime     = 2 * time.Minute
	checkFailures = 3 // copies in a row that can't be verified, before a drive is left out
	maxETA        = 10 * 365 * 24 * time.Hour
)

// scrub is the reading of everything.
type scrub struct {
	woken  chan struct{} // has room for one
	wanted bool          // a round is to begin at once: begin sets it, then ask
	goOn   bool          // not a new one, since it was under way with the coordinator before

	mu    sync.Mutex // guards what follows, and wanted once the term runs
	known bool       // state has been read
	state control.ScrubState
	fast  bool
	began time.Time // when this term began with the round, or its pace changed
	first int64     // bytes that were read by then
	total int64     // bytes of all copies, as last known
	tally *tally
	last  *tally
}

func (s *scrub) init() { s.woken = make(chan struct{}, 1) }

// ask has a round begin now.
func (s *scrub) ask() {
	s.mu.Lock()
	s.wanted = true
	s.mu.Unlock()
	wake(s.woken)
}

// asked says whether a round is to begin.
func (s *scrub) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// scrubs does rounds, one after the other: each begins ScrubPeriod after the one
// before, or on request, and goes on where the last coordinator has noted it.
func (t *term) scrubs(ctx context.Context) {
	a, err := t.read(ctx, &control.Query{Scrub: &control.ScrubQuery{}})
	if err != nil {
		return
	}
	s := &t.scrub
	s.mu.Lock()
	if a.Scrub != nil {
		s.state = *a.Scrub
	}
	s.known = true
	if s.wanted && s.goOn && s.state.Round > 0 && s.state.Ended == 0 {
		s.wanted, s.fast = false, true
	}
	s.mu.Unlock()
	for ctx.Err() == nil {
		now, err := t.read(ctx, &control.Query{Totals: &control.TotalsQuery{}})
		if err != nil {
			return
		}
		s.mu.Lock()
		s.total = t.copiesOf(now.Totals)
		s.mu.Unlock()
		begin, wait := s.next(now.LogTime, t.o.ScrubPeriod)
		if !begin && wait > 0 {
			await(ctx, s.woken, wait)
			continue
		}
		if begin {
			s.begin(now.LogTime)
			t.note(ctx)
		}
		t.round(ctx)
	}
}

// next says whether a new round is to begin, or else how long there is nothing
// to be done; 0 is that the present one goes on.
func (s *scrub) next(now int64, period time.Duration) (begin bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted || s.state.Round == 0 {
		return true, 0
	}
	if s.state.Ended == 0 {
		return false, 0
	}
	wait = period - time.Duration(now-s.state.Started)
	return wait <= 0, wait
}

func (s *scrub) begin(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fast, s.wanted = s.wanted, false
	s.state = control.ScrubState{Round: s.state.Round + 1, Started: now}
}

// round reads on, page by page, to the end of the round.
func (t *term) round(ctx context.Context) {
	s := &t.scrub
	y := newTally("scrub")
	s.mu.Lock()
	s.last, s.tally, s.began, s.first = s.tally, y, time.Now(), s.state.Bytes
	s.mu.Unlock()
	noted := time.Now()
	for ctx.Err() == nil && !s.asked() {
		if time.Since(noted) >= t.o.NoteEvery {
			t.note(ctx)
			noted = time.Now()
		}
		more, err := t.page(ctx, y)
		if err != nil {
			return
		}
		if more {
			continue
		}
		if y.wait(ctx) != nil {
			return
		}
		a, err := t.read(ctx, &control.Query{Deployment: &control.DeploymentQuery{}})
		if err != nil {
			return
		}
		s.mu.Lock()
		s.state.Ended, s.state.After, s.fast = max(a.LogTime, s.state.Started), "", false
		s.mu.Unlock()
		t.note(ctx)
		return
	}
}

// note puts how far the scrub has come into the index. What fails is done by
// the next note.
func (t *term) note(ctx context.Context) {
	t.scrub.mu.Lock()
	state := t.scrub.state
	t.scrub.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	if _, err := t.o.Index.Propose(ctx, &control.Command{NoteScrub: &control.NoteScrub{Scrub: state}}); err != nil && ctx.Err() == nil {
		t.log.Warn("how far the scrub has come isn't noted", "err", err)
	}
}

// page has the copies of one page of segments verified, and what is bad taken
// up; it says whether there is more.
func (t *term) page(ctx context.Context, y *tally) (more bool, err error) {
	s := &t.scrub
	s.mu.Lock()
	after, fast := s.state.After, s.fast
	s.mu.Unlock()
	limit := scrubPage
	if fast {
		limit = scrubFastPage
	}
	began := time.Now()
	a, err := t.read(ctx, &control.Query{Copies: &control.CopiesQuery{After: after, Limit: limit}})
	if err != nil {
		return false, err
	}
	v := t.now.Load()
	byDrive := make(map[string][]*control.SegmentCopies)
	var bytes int64
	for i := range a.Copies {
		seg := &a.Copies[i]
		for _, id := range seg.Drives {
			if d := v.drives[id]; d != nil && d.well {
				byDrive[id] = append(byDrive[id], seg)
				bytes += seg.SizeBytes
			}
		}
	}
	bad, err := t.verify(ctx, byDrive)
	if err != nil {
		return false, err
	}
	if err := t.mendSome(ctx, a.Copies, bad, y); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.state.After = a.Next
	s.state.Segments += int64(len(a.Copies))
	s.state.Bytes += bytes
	for _, of := range bad {
		s.state.Bad += int64(len(of))
	}
	s.mu.Unlock()
	if !a.More {
		return false, nil
	}
	if !fast {
		await(ctx, s.woken, t.scrubPause(ctx, bytes, time.Since(began)))
	}
	return true, ctx.Err()
}

// scrubPause is how long to rest after so many bytes so that the round takes
// somewhat less than ScrubPeriod.
func (t *term) scrubPause(ctx context.Context, bytes int64, took time.Duration) time.Duration {
	a, err := t.o.Index.Read(ctx, &control.Query{Totals: &control.TotalsQuery{}, MaxAge: time.Minute})
	if err != nil {
		return pageRetry
	}
	total := t.copiesOf(a.Totals)
	t.scrub.mu.Lock()
	t.scrub.total = total
	t.scrub.mu.Unlock()
	rate := max(scrubSlowest, scrubSlack*float64(total)/t.o.ScrubPeriod.Seconds())
	return time.Duration(float64(bytes)/rate*float64(time.Second)) - took
}

// copiesOf is how many bytes the copies of all objects have together, about.
func (t *term) copiesOf(totals *control.Totals) int64 {
	if totals == nil {
		return 0
	}
	return totals.Bytes * int64(max(1, t.now.Load().want))
}

// verify has copies verified on the drives where they are, and returns how those
// are bad that are, by segment and drive. What can't be asked isn't bad: the next
// round asks again.
func (t *term) verify(ctx context.Context, byDrive map[string][]*control.SegmentCopies) (map[[16]byte]map[string]object.BadCopy, error) {
	bad := make(map[[16]byte]map[string]object.BadCopy)
	var mu sync.Mutex // guards bad
	var g errgroup.Group
	g.SetLimit(scrubParallel)
	for id, segs := range byDrive {
		g.Go(func() error {
			t.verifyDrive(ctx, id, segs, func(seg *control.SegmentCopies, b object.BadCopy) {
				mu.Lock()
				defer mu.Unlock()
				of := bad[seg.ID]
				if of == nil {
					of = make(map[string]object.BadCopy)
					bad[seg.ID] = of
				}
				of[id] = b
			})
			return nil
		})
	}
	_ = g.Wait() // none fails
	return bad, ctx.Err()
}

// verifyDrive has one drive's copies verified, and tells of those that are bad.
// Where a batch fails its copies are asked for one by one, so that one that
// can't be told about doesn't hide the others; after a few of these in a row the
// drive is left out.
func (t *term) verifyDrive(ctx context.Context, id string, segs []*control.SegmentCopies, bad func(*control.SegmentCopies, object.BadCopy)) {
	single, failed := 0, 0
	for len(segs) > 0 && ctx.Err() == nil {
		most := batchItems
		if single > 0 {
			most = 1
		}
		n, bytes := 0, int64(0)
		items := make([]object.CheckItem, 0, min(len(segs), most))
		for n < len(segs) && n < most && (n == 0 || bytes+segs[n].SizeBytes <= batchBytes) {
			items = append(items, object.CheckItem{ID: segs[n].ID, SizeBytes: segs[n].SizeBytes, CRC32C: segs[n].CRC32C})
			bytes += segs[n].SizeBytes
			n++
		}
		found, err := t.checkSome(ctx, id, items, bytes)
		switch {
		case err != nil && n > 1:
			single = n
			continue
		case err != nil:
			t.log.Warn("a copy can't be verified", "drive", id, "key", segs[0].Key, "err", err)
			if failed++; failed == checkFailures {
				t.log.Warn("the scrub leaves out a drive's copies", "drive", id, "copies", len(segs)-1)
				return
			}
		default:
			failed = 0
		}
		for _, b := range found {
			if b.Index >= 0 && b.Index < n {
				bad(segs[b.Index], b)
			}
		}
		segs = segs[n:]
		single = max(0, single-n)
	}
}

func (t *term) checkSome(ctx context.Context, drive string, items []object.CheckItem, bytes int64) (_ []object.BadCopy, err error) {
	if err := t.h.pace.take(ctx, bytes); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime+time.Duration(bytes/slowestBytes)*time.Second)
	defer cancel()
	ctx, end := t.o.Hooks.span(ctx, "scrub.verify", drive, len(items)) // without the wait for its turn
	defer func() { end(err) }()
	return t.o.Objects.Check(ctx, drive, items, true, 0)
}

// mendSome takes up those of some segments that have to be, as they are by now:
// reading them has taken its time.
func (t *term) mendSome(ctx context.Context, segs []control.SegmentCopies, bad map[[16]byte]map[string]object.BadCopy, y *tally) error {
	v := t.now.Load()
	q := &control.CopiesQuery{}
	for i := range segs {
		if need, _ := v.assess(&segs[i]); need || len(bad[segs[i].ID]) > 0 {
			q.IDs = append(q.IDs, segs[i].ID)
		}
	}
	if len(q.IDs) == 0 {
		return nil
	}
	a, err := t.read(ctx, &control.Query{Copies: q})
	if err != nil {
		return err
	}
	for i := range a.Copies {
		seg := &a.Copies[i]
		of := bad[seg.ID]
		for drive := range of {
			if !slices.Contains(seg.Drives, drive) {
				delete(of, drive)
			}
		}
		if err := t.mend(ctx, v, seg, of, y); err != nil {
			return err
		}
	}
	return nil
}

// mend takes a segment up if a copy of it is bad, or if it has other copies than
// it should.
func (t *term) mend(ctx context.Context, v *view, seg *control.SegmentCopies, bad map[string]object.BadCopy, y *tally) error {
	need, live := v.assess(seg)
	if len(bad) == 0 && !need {
		return nil
	}
	k := &task{seg: *seg, tally: y, urgent: len(bad) > 0 && live-len(bad) <= 1}
	for id, b := range bad {
		k.mark(id, b)
		t.work.found(k, id, b)
	}
	taken, err := t.work.submit(ctx, k)
	if err == nil && !taken && len(bad) > 0 {
		for id := range bad { // whoever has it in hand doesn't know
			t.h.reports.add(reportItem{ID: seg.ID, Drive: id, Why: k.bad[id]})
		}
	}
	return err
}

// progress describes the round.
func (s *scrub) progress() ScrubProgress {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	p := ScrubProgress{
		Round: st.Round, Running: s.known && st.Round > 0 && st.Ended == 0, Fast: s.fast || s.wanted,
		Segments: st.Segments, Bytes: st.Bytes, Total: s.total, Bad: st.Bad,
	}
	if st.Started > 0 {
		p.Started = time.Unix(0, st.Started)
	}
	if st.Ended > 0 {
		p.Ended = time.Unix(0, st.Ended)
	}
	if read := st.Bytes - s.first; p.Running && read > 0 && s.total > st.Bytes {
		share := float64(s.total-st.Bytes) / float64(read)
		p.ETA = time.Duration(min(share*float64(time.Since(s.began)), float64(maxETA))).Round(time.Second)
	}
	return p
}
