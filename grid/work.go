package grid

import (
	"sync"
	"time"
)

// workPool runs handlers in goroutines that are parked, not ended, between
// calls. Its rule: while calls are queued, at least one worker is on its way
// to the queue and not in user code. A worker that takes a call and leaves
// others behind wakes the next worker before it runs the handler, and at most
// one is being woken at a time. So a burst of quick handlers is served by few
// wake-ups, and a handler that blocks delays nobody.
type workPool struct {
	mu     sync.Mutex
	queue  ring[*servedCall]
	idle   []worker
	waking bool
	low    int // fewest idle since the last trim
	trim   *time.Timer
	closed bool
	wg     sync.WaitGroup
}

// worker is where a parked worker waits: true is a call to look at the
// queue, false the end.
type worker chan bool

// trimEvery is how often workers that were not needed are let go.
const trimEvery = 5 * time.Second

// submit queues calls, in order.
func (p *workPool) submit(calls []*servedCall) {
	p.mu.Lock()
	for _, c := range calls {
		p.queue.push(c)
	}
	w := p.nextLocked()
	p.mu.Unlock()
	if w != nil {
		w <- true
	}
}

// nextLocked picks the worker to wake, if one has to be; a new one is started
// here.
func (p *workPool) nextLocked() worker {
	if p.waking || p.queue.n == 0 {
		return nil
	}
	p.waking = true
	n := len(p.idle)
	if n == 0 {
		w := make(worker, 1)
		p.wg.Add(1)
		go p.work(w)
		return nil
	}
	w := p.idle[n-1]
	p.idle = p.idle[:n-1]
	p.low = min(p.low, n-1)
	return w
}

func (p *workPool) work(w worker) {
	defer p.wg.Done()
	woken := true
	for {
		p.mu.Lock()
		if woken {
			p.waking, woken = false, false
		}
		c, ok := p.queue.pop()
		if !ok {
			if p.closed {
				p.mu.Unlock()
				return
			}
			p.idle = append(p.idle, w)
			p.armLocked()
			p.mu.Unlock()
			if !<-w {
				return
			}
			woken = true
			continue
		}
		next := p.nextLocked()
		p.mu.Unlock()
		if next != nil {
			next <- true
		}
		c.run()
	}
}

// armLocked sees to it that idle workers are let go some time.
func (p *workPool) armLocked() {
	if p.trim == nil && !p.closed {
		p.low = len(p.idle)
		p.trim = time.AfterFunc(trimEvery, p.trimIdle)
	}
}

func (p *workPool) trimIdle() {
	p.mu.Lock()
	n := min(p.low, len(p.idle))
	leaving := append([]worker(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.trim = nil
	if len(p.idle) > 0 {
		p.armLocked()
	}
	p.mu.Unlock()
	for _, w := range leaving {
		w <- false
	}
}

// close lets the idle workers go; those that run handlers follow when these
// return. wait joins them.
func (p *workPool) close() {
	p.mu.Lock()
	p.closed = true
	leaving := p.idle
	p.idle = nil
	if p.trim != nil {
		p.trim.Stop()
		p.trim = nil
	}
	p.mu.Unlock()
	for _, w := range leaving {
		w <- false
	}
}

func (p *workPool) wait() { p.wg.Wait() }
