package grid

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// queueRoom bounds the bytes that wait to be written. Who finds it full waits
// in line, and a release takes room on behalf of those at the head: one is
// woken for each that can go on, and nobody overtakes.
type queueRoom struct {
	limit   int64
	used    atomic.Int64
	waiting atomic.Int32 // length of line; written under mu

	mu   sync.Mutex
	line list.List // of *roomWaiter
}

// roomWaiter is a place in the line.
type roomWaiter struct {
	n       int64
	granted chan struct{} // closed, under mu, when room was taken on its behalf
	place   *list.Element // nil once granted; guarded by mu
}

// tryTake takes n bytes if there is room and nobody waits for some.
func (r *queueRoom) tryTake(n int64) bool { return r.waiting.Load() == 0 && r.take(n) }

// take takes n bytes if there is room; an empty queue takes anything. It never
// takes what it must give back: that would be a release nobody hears of.
func (r *queueRoom) take(n int64) bool {
	for {
		used := r.used.Load()
		if used > 0 && used+n > r.limit {
			return false
		}
		if r.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// enter waits in line for n bytes.
func (r *queueRoom) enter(n int64) *roomWaiter {
	w := &roomWaiter{n: n, granted: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	w.place = r.line.PushBack(w)
	r.waiting.Add(1) // from here on a release looks at the line; one before is seen here
	r.serveLocked()
	return w
}

// giveUp leaves the line. What was granted already is released again.
func (r *queueRoom) giveUp(w *roomWaiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.place == nil {
		r.used.Add(-w.n)
	} else {
		r.removeLocked(w)
	}
	r.serveLocked() // the next may be a smaller one
}

func (r *queueRoom) release(n int64) {
	r.used.Add(-n)
	if r.waiting.Load() != 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.serveLocked()
	}
}

// serveLocked grants room to the head of the line, for as long as there is.
func (r *queueRoom) serveLocked() {
	for e := r.line.Front(); e != nil; e = r.line.Front() {
		w := e.Value.(*roomWaiter)
		if !r.take(w.n) {
			return
		}
		r.removeLocked(w)
		close(w.granted)
	}
}

func (r *queueRoom) removeLocked(w *roomWaiter) {
	r.line.Remove(w.place)
	w.place = nil
	r.waiting.Add(-1)
}
