package heal

import (
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/control"
)

// What was tried five times and failed, and what has no good copy, is found
// again by every run. It is left alone for a while, longer each time: the runs
// only take down that it is still so.
const (
	holdFirst = time.Minute // doubled
	holdMost  = 6 * time.Hour
	holdMax   = 10_000 // segments
)

// holds are segments that are left alone.
type holds struct {
	mu   sync.Mutex // guards what follows
	held map[[16]byte]*hold
}

type hold struct {
	until  time.Time
	last   time.Duration
	why    string
	lost   bool
	drives []string // as they were
}

// put has a segment left alone.
func (o *holds) put(seg *control.SegmentCopies, why string, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.held[seg.ID]
	if h == nil {
		if o.held == nil {
			o.held = make(map[[16]byte]*hold)
		}
		if len(o.held) >= holdMax {
			return
		}
		h = &hold{last: holdFirst / 2}
		o.held[seg.ID] = h
	}
	h.last = min(2*h.last, holdMost)
	h.until, h.why, h.lost, h.drives = time.Now().Add(h.last), why, lost, append([]string(nil), seg.Drives...)
}

// of says whether a segment is to be left alone, and why.
func (o *holds) of(seg *control.SegmentCopies) (h hold, held bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.held[seg.ID]
	if p == nil || time.Now().After(p.until) || !sameDrives(p.drives, seg.Drives) {
		return hold{}, false
	}
	return *p, true
}

// drop forgets a segment, which is well, or gone.
func (o *holds) drop(id [16]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.held, id)
}

// clear has everything tried again: drives have come or gone, or somebody asks
// for it.
func (o *holds) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.held)
}
