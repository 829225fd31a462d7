package heal

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/gridloom/gridloom/node/control"
)

// tally is what became of the segments of one run: of a pass, a reading of the
// pending rows, a round of the scrub.
type tally struct {
	name string

	mu     sync.Mutex // guards what follows
	open   int        // in hand
	none   chan struct{}
	done   int64
	failed int64
	bytes  int64
	again  bool             // something failed that has nothing to do with the segments
	stuck  map[string]int64 // why, and how many segments
	lost   map[[16]byte]control.SegmentCopies
	why    map[[16]byte]string
	losses int64
}

func newTally(name string) *tally {
	return &tally{name: name, stuck: make(map[string]int64), lost: make(map[[16]byte]control.SegmentCopies), why: make(map[[16]byte]string)}
}

func (y *tally) begin() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.open == 0 {
		y.none = make(chan struct{})
	}
	y.open++
}

// end notes the end of a segment: in order where why is "", else stuck.
func (y *tally) end(why string, again bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if why == "" {
		y.done++
	} else {
		y.failed++
		y.again = y.again || again
		if _, known := y.stuck[why]; !known && len(y.stuck) >= listMax {
			why = "and other reasons"
		}
		y.stuck[why]++
	}
	y.endLocked()
}

// gone notes that a segment has no good copy, and says whether it is to be
// reported: the first hundred of a run are.
func (y *tally) gone(seg control.SegmentCopies, why string) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	defer y.endLocked()
	y.failed++
	if _, known := y.lost[seg.ID]; known {
		return false
	}
	y.losses++
	if len(y.lost) >= listMax {
		return false
	}
	y.lost[seg.ID], y.why[seg.ID] = seg, why
	return true
}

func (y *tally) endLocked() {
	if y.open--; y.open == 0 {
		close(y.none)
	}
}

func (y *tally) copied(bytes int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.bytes += bytes
}

// wait waits until no segment is in hand.
func (y *tally) wait(ctx context.Context) error {
	y.mu.Lock()
	none, open := y.none, y.open
	y.mu.Unlock()
	if open == 0 {
		return ctx.Err()
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// counts is what has been done so far.
func (y *tally) counts() (done, failed, bytes int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.done, y.failed, y.bytes
}

// troubled says whether something failed, and whether another run may help
// without anything else having changed.
func (y *tally) troubled() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.again
}

// report adds what is stuck and lost to a Status.
func (y *tally) report(s *Status, bucket func([16]byte) string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, why := range sortedKeys(y.stuck) {
		if len(s.Stuck) < listMax {
			s.Stuck = append(s.Stuck, Stuck{What: fmt.Sprintf("%s: %d segments", y.name, y.stuck[why]), Why: why})
		}
	}
	for id, seg := range y.lost {
		known := slices.ContainsFunc(s.Unrecoverable, func(l Lost) bool { return l.Segment == id })
		if !known && len(s.Unrecoverable) < listMax {
			s.Unrecoverable = append(s.Unrecoverable, Lost{Bucket: bucket(seg.BucketID), Key: seg.Key, Segment: id, Why: y.why[id]})
		}
	}
	s.UnrecoverableCount = max(s.UnrecoverableCount, y.losses, int64(len(s.Unrecoverable)))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
