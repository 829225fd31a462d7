package disk

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tidyInterval lies between the end of one tidying and the next.
const tidyInterval = 10 * time.Second

// tidying is the state of Tidy. ctx ends with Close, which joins what runs.
type tidying struct {
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	busy bool
	last time.Time // when one ended; guarded by mu, as busy is
}

// Tidy asks for the rows from start to end to be rid of those that were deleted:
// whoever has had to step over many of them says so. It returns at once; the work
// is done in the background, one range at a time, others that are named meanwhile
// have to be named again. Pebble does the same by itself for what is in tables, and
// never for what isn't flushed yet. It must not overlap Close.
func (s *Store) Tidy(start, end []byte) {
	t := &s.tidying
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy || !t.last.IsZero() && time.Since(t.last) < tidyInterval || s.Room() != nil {
		return
	}
	t.busy = true
	t.ended.Go(func() {
		began := time.Now()
		err := s.Compact(t.ctx, start, end, false)
		switch {
		case err == nil:
			s.log.Debug("index store: a range was rid of what is deleted", "dir", s.dir, "took", time.Since(began))
		case !errors.Is(err, context.Canceled):
			s.log.Warn("index store: a range can't be rid of what is deleted", "dir", s.dir, "error", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.busy, t.last = false, time.Now()
	})
}

// end ends what Tidy has begun. A compaction that runs by then is joined by
// Pebble's Close.
func (t *tidying) end() {
	t.cancel()
	t.ended.Wait()
}
