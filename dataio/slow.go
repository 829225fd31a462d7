package dataio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Slow says when a drive counts as slow. The zero value is the defaults. An
// operation that moves bytes is allowed a second for each 32 MiB besides.
type Slow struct {
	// Degraded is how long one operation may be under way, or the quickest of
	// the slowest tenth of the last 32 may have taken, before the drive is
	// Degraded; 0 is a second.
	Degraded time.Duration
	// Offline is how long one may be under way before the drive is Offline;
	// 0 is 30 s.
	Offline time.Duration
}

// StalledMax bounds the operations of one drive that are under way for longer
// than Slow.Degraded, and the goroutines that were left with one because a
// caller's context ended. Beyond it whatever would wait for the drive is
// ErrOffline at once.
const StalledMax = 64

const (
	// allowedBytesPerSecond is what a drive moves at least that isn't slow.
	allowedBytesPerSecond = 32 << 20
	// tookMost is how many operations' times are remembered.
	tookMost = 32
)

func (s Slow) orDefaults() Slow {
	if s.Degraded <= 0 {
		s.Degraded = time.Second
	}
	if s.Offline <= 0 {
		s.Offline = 30 * time.Second
	}
	s.Offline = max(s.Offline, s.Degraded)
	return s
}

// errStalled is why a drive is offline that doesn't answer, errSlow why it is
// degraded.
var (
	errStalled = errors.New("the drive has stalled")
	errSlow    = errors.New("the drive is slow")
)

// running is an operation that the file system hasn't answered yet.
type running struct {
	kind       OpKind
	name       string
	since      time.Time
	allowed    time.Duration // besides what Slow says
	late       bool          // it has been counted as a timeout
	prev, next *running
}

// over tells by how much more than allowed the operation has taken.
func (r *running) over(now time.Time) time.Duration { return now.Sub(r.since) - r.allowed }

// runningPool holds *running.
var runningPool = sync.Pool{New: func() any { return new(running) }}

// operations are those under way on a drive, in the order in which they began,
// and what the last ones took.
type operations struct {
	slow    Slow
	refuse  atomic.Bool  // the drive has stalled
	orphans atomic.Int64 // goroutines whose callers have gone
	late    atomic.Int64 // operations that took longer than Slow.Degraded, or are at it

	mu     sync.Mutex // guards what follows
	oldest *running
	newest *running
	took   [tookMost]time.Duration // more than allowed, a ring
	ended  int                     // operations in it, then modulo its length
}

// begin adds an operation, unless the drive has stalled. A probe is always
// added: it is what finds out that the drive is back.
func (o *operations) begin(op Op, bytes int64, probe bool) (*running, error) {
	if o.refuse.Load() && !probe {
		return nil, &Error{Kind: ErrOffline, Err: errStalled}
	}
	r := runningPool.Get().(*running)
	*r = running{kind: op.Kind, name: op.Name, since: time.Now(), allowed: time.Duration(bytes) * time.Second / allowedBytesPerSecond}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stalledLocked(r.since) && !probe {
		runningPool.Put(r)
		return nil, &Error{Kind: ErrOffline, Err: fmt.Errorf("%w: %d operations are waiting for it", errStalled, StalledMax)}
	}
	if r.prev = o.newest; r.prev != nil {
		r.prev.next = r
	} else {
		o.oldest = r
	}
	o.newest = r
	return r, nil
}

// stalledLocked reports whether so many operations are over that no more may
// wait.
func (o *operations) stalledLocked(now time.Time) bool {
	n := 0
	for r := o.oldest; r != nil && now.Sub(r.since) > o.slow.Degraded; r = r.next {
		if r.over(now) > o.slow.Degraded {
			n++
		}
		if n == StalledMax {
			return true
		}
	}
	return false
}

// end takes an operation out again, and remembers its time.
func (o *operations) end(r *running) {
	over := r.over(time.Now())
	o.mu.Lock()
	defer o.mu.Unlock()
	o.judgeLocked(r, over)
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		o.oldest = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		o.newest = r.prev
	}
	o.took[o.ended%tookMost] = over
	o.ended++
	runningPool.Put(r)
}

// judgeLocked counts an operation that takes too long, once.
func (o *operations) judgeLocked(r *running, over time.Duration) {
	if over > o.slow.Degraded && !r.late {
		r.late = true
		o.late.Add(1)
	}
}

// slowest returns the operation that is most over what it is allowed, and by
// how much, and what the slowest tenth of the last took at least.
func (o *operations) slowest(now time.Time) (what string, over, p90 time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Behind one that is within the bare limit are younger ones only.
	for r := o.oldest; r != nil && now.Sub(r.since) > o.slow.Degraded; r = r.next {
		o.judgeLocked(r, r.over(now))
		if r.over(now) > over {
			over = r.over(now)
			what = fmt.Sprintf("%s %s has been under way for %s", r.kind, r.name, now.Sub(r.since).Round(time.Millisecond))
		}
	}
	if o.ended < tookMost {
		return what, over, 0
	}
	took := o.took
	slices.Sort(took[:])
	return what, over, took[tookMost-tookMost/10-1]
}

// do has an operation of the file system done, and counts its failure.
func (d *Drive) do(op Op, call func() error) error { return d.doMoving(op, op.Bytes, false, call) }

// doMoving is do for an operation that takes as long as moving so many bytes.
func (d *Drive) doMoving(op Op, bytes int64, probe bool, call func() error) error {
	if op.Kind == OpAllocate {
		bytes = 0 // none are moved
	}
	r, err := d.operations.begin(op, bytes, probe)
	if err != nil {
		return err
	}
	if i := d.options.Interceptor; i != nil {
		err = i.Intercept(op, call)
	} else {
		err = call()
	}
	d.operations.end(r)
	if err == nil || isNoSpace(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) ||
		errors.Is(err, fs.ErrClosed) {
		return err // the caller's business
	}
	d.errors.Add(1)
	if d.options.Events.Failed != nil {
		d.options.Events.Failed(d, op, err)
	}
	return err
}

// await has call done by a goroutine of its own, and returns what it returns,
// or the context's error if the context ends before. Nobody waits for the call
// then: late, if not nil, is called when it ends. A context that can't end
// costs no goroutine.
func (d *Drive) await(ctx context.Context, call func() error, late func()) error {
	if ctx.Done() == nil {
		return call()
	}
	o := &d.operations
	if o.orphans.Load() >= StalledMax {
		return &Error{Kind: ErrOffline, Err: fmt.Errorf("%w: %d calls that were given up are waiting for it", errStalled, StalledMax)}
	}
	done := make(chan error, 1)
	var left atomic.Bool // by the caller or the call, whoever comes first
	go func() {
		err := call()
		if left.CompareAndSwap(false, true) {
			done <- err
			return
		}
		o.orphans.Add(-1)
		if late != nil {
			late()
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	o.orphans.Add(1)
	if left.CompareAndSwap(false, true) {
		return ctx.Err()
	}
	o.orphans.Add(-1)
	return <-done
}
