package object

import (
	"context"
	"hash/crc32"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// copyQueue is how many chunks may wait to be written to one drive.
	copyQueue = 4
	// lagMin is how long a drive may hold up a put on its own at least, before
	// the put goes on without it; else it is half of the time so far.
	lagMin = time.Second
	// stallMax is how long too few drives may take nothing, or not come to the
	// end of their syncs, before the put fails.
	stallMax = time.Minute
)

// segment is one payload file on its way to several drives. What is written
// goes into the queue of each, and from there, by a goroutine for each, to its
// sink. A drive that fails, or that alone keeps the others waiting, is given up
// as long as enough are left. One goroutine uses a segment until end, and one
// after it.
type segment struct {
	s     *Service
	id    dataio.ID
	left  int64
	size  int64
	crc   uint32
	began time.Time

	want   int // copies that there should be
	need   int // and must be
	copies []*replica
	news   chan struct{} // capacity 1: a copy has taken a chunk, or come to an end

	mu   sync.Mutex // guards lost, and the copies' state and late
	lost error      // of the last copy that failed
}

// replica is one copy of a segment.
type replica struct {
	target
	sink   sink
	ctx    context.Context // the sink's
	cancel context.CancelCauseFunc
	queue  chan piece
	closed bool          // the queue is, by who uses the segment
	held   time.Duration // how long the put has waited for this one alone
	ended  chan struct{} // closed when its goroutine has ended

	state replicaState // guarded by segment.mu
	late  bool         // given up before its end; guarded by segment.mu
}

// replicaState is how far a copy has come. Only the first changes.
type replicaState uint8

const (
	replicaWriting replicaState = iota
	replicaSynced
	replicaFailed // or given up
)

// piece is a part of a chunk, which it holds.
type piece struct {
	chunk *chunk
	data  []byte
}

// newSegment makes a segment of the sinks that tries have opened.
func (s *Service) newSegment(id dataio.ID, left int64, pool *pool, sinks []*attempt[sink]) *segment {
	g := &segment{s: s, id: id, left: left, began: time.Now(), want: pool.want, need: pool.need, news: make(chan struct{}, 1)}
	for _, a := range sinks {
		r := &replica{target: a.target, sink: a.value, ctx: a.ctx, cancel: a.cancel,
			queue: make(chan piece, copyQueue), ended: make(chan struct{})}
		g.copies = append(g.copies, r)
		if !s.spawn(func() { g.run(r) }) {
			g.closeQueue(r)
			g.settle(r, replicaFailed, stopping())
			r.cancel(stopping())
			r.sink.Abort()
			close(r.ended)
		}
	}
	return g
}

// run writes one copy.
func (g *segment) run(r *replica) {
	defer close(r.ended)
	var err error
	fail := func() {
		r.sink.Abort()
		g.settle(r, replicaFailed, err)
	}
	for p := range r.queue {
		if err == nil {
			if _, err = r.sink.Write(p.data); err != nil {
				fail()
			}
		}
		p.chunk.release()
		g.tell()
	}
	switch {
	case err != nil:
	case !g.writing(r):
		r.sink.Abort()
	default:
		var w dataio.Written
		if w, err = r.sink.Commit(r.ctx); err == nil {
			err = checkWritten(w, g.size, g.crc)
		}
		if err != nil {
			fail()
		} else {
			g.settle(r, replicaSynced, nil)
		}
	}
	r.cancel(nil)
	g.mu.Lock()
	late := r.late
	g.mu.Unlock()
	if late {
		if r.local == nil {
			g.s.endUpload(r.node.Name, payloadRef{r.drive, g.id})
		}
		g.s.health.endLate(r.drive)
	}
	g.tell()
}

// settle gives a copy its end, and says whether it had none yet.
func (g *segment) settle(r *replica, state replicaState, err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.state != replicaWriting {
		return false
	}
	r.state = state
	if err != nil {
		g.lost = err
	}
	return true
}

func (g *segment) writing(r *replica) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return r.state == replicaWriting
}

// tell wakes who waits for the copies.
func (g *segment) tell() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// closeQueue tells a copy's goroutine that nothing more comes.
func (g *segment) closeQueue(r *replica) {
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
}

// giveUp ends a copy. Its goroutine may take as long as the drive does; what
// waits to be written is given back now.
func (g *segment) giveUp(r *replica, why error) {
	g.mu.Lock()
	if r.state == replicaWriting {
		r.state, r.late, g.lost = replicaFailed, true, why
		g.s.health.startLate(r.drive)
	}
	g.mu.Unlock()
	r.cancel(why)
	g.closeQueue(r)
	for p := range r.queue {
		p.chunk.release()
	}
}

// join waits for the ends of all copies, until ctx ends.
func (g *segment) join(ctx context.Context) {
	for _, r := range g.copies {
		select {
		case <-r.ended:
		case <-ctx.Done():
		}
	}
}

// count says how many copies are being written, and how many are synced.
func (g *segment) count() (writing, synced int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.copies {
		switch r.state {
		case replicaWriting:
			writing++
		case replicaSynced:
			synced++
		}
	}
	return writing, synced
}

// failure is why there are too few copies.
func (g *segment) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

// write gives data, which is c's, to every copy.
func (g *segment) write(ctx context.Context, c *chunk, data []byte) error {
	g.left -= int64(len(data))
	g.size += int64(len(data))
	g.crc = crc32.Update(g.crc, castagnoli, data)
	full := g.offer(g.copies, piece{c, data})
	for {
		writing, _ := g.count()
		if writing < g.need {
			return g.failure()
		}
		if len(full) == 0 {
			return nil
		}
		if err := g.hold(ctx, full, writing-len(full) >= g.need); err != nil {
			return err
		}
		full = g.offer(full, piece{c, data})
	}
}

// offer puts a piece into the queues that have room, and returns the copies
// whose has none.
func (g *segment) offer(copies []*replica, p piece) (full []*replica) {
	for _, r := range copies {
		if !g.writing(r) {
			continue
		}
		p.chunk.hold()
		select {
		case r.queue <- p:
		default:
			p.chunk.release()
			full = append(full, r)
		}
	}
	return full
}

// hold waits for news of copies whose queues are full. If enough others could
// go on, those that have held them up for too long are given up.
func (g *segment) hold(ctx context.Context, full []*replica, spare bool) error {
	patience := stallMax
	if spare {
		for _, r := range full {
			patience = min(patience, g.lagMax()-r.held)
		}
	}
	start := time.Now()
	timer := time.NewTimer(max(patience, time.Millisecond))
	defer timer.Stop()
	select {
	case <-g.news:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		if !spare {
			return fault.New(fault.Unavailable, "mesh", "the drives of a put have taken nothing for %v", stallMax)
		}
	}
	if !spare {
		return nil
	}
	for _, r := range full {
		if r.held += time.Since(start); r.held >= g.lagMax() {
			g.s.health.distrust(r.drive)
			g.giveUp(r, fault.New(fault.Unavailable, g.s.driveName(r.node.Name, r.drive), "was too slow for a put"))
		}
	}
	return nil
}

// lagMax is how long one drive may have held up the put by now.
func (g *segment) lagMax() time.Duration { return max(lagMin, time.Since(g.began)/2) }

// end says that nothing more comes.
func (g *segment) end() {
	for _, r := range g.copies {
		g.closeQueue(r)
	}
}

// sync waits until enough copies are synced, and a moment longer for the
// others, which are then given up.
func (g *segment) sync(ctx context.Context) error {
	start, enough := time.Now(), false
	timer := time.NewTimer(stallMax)
	defer timer.Stop()
	for {
		writing, synced := g.count()
		switch {
		case synced+writing < g.need:
			return g.failure()
		case synced >= g.need && writing == 0:
			return nil
		case synced >= g.need && !enough:
			enough = true
			timer.Reset(g.s.grace(time.Since(start)))
		}
		select {
		case <-g.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			if !enough {
				return fault.New(fault.Unavailable, "mesh", "too few drives have synced a payload within %v", stallMax)
			}
			for _, r := range g.copies {
				if g.writing(r) {
					g.giveUp(r, errGivenUp)
				}
			}
			return nil
		}
	}
}

// describe is the segment as its record has it: with the drives that have
// synced it.
func (g *segment) describe() control.Segment {
	g.mu.Lock()
	defer g.mu.Unlock()
	seg := control.Segment{ID: g.id, SizeBytes: g.size, CRC32C: g.crc}
	for _, r := range g.copies {
		if r.state == replicaSynced {
			seg.Drives = append(seg.Drives, r.drive)
		}
	}
	return seg
}

// files are those that may be there.
func (g *segment) files() []placed {
	var files []placed
	for _, r := range g.copies {
		files = append(files, placed{r.node.Name, payloadRef{r.drive, g.id}})
	}
	return files
}
