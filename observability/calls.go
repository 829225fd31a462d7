package observability

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callsQueued is how many calls wait for one who watches and is slow.
	callsQueued = 1024
	// MaxWatches bounds those who watch calls at once.
	MaxWatches = 32
)

// Call is a request that has ended.
type Call struct {
	Node     string // set by whoever gathers calls of several nodes
	API      string // "other" where it has none
	Proto    string // "http" or "grpc"
	Method   string // of HTTP, or the full name of the gRPC method
	Start    time.Time
	TTFB     time.Duration
	Duration time.Duration
	Status   string // "404" of HTTP, "NotFound" of gRPC
	Class    string // "4xx", for both
	Kind     string // of its error; "" where there is none
	Received int64  // bytes of bodies
	Sent     int64
	Bucket   string
	Key      string
	User     string
	TraceID  string // "" where it has no trace
}

// Calls shows requests as they end. Its zero value is ready; while nobody
// watches it costs a request one atomic load.
type Calls struct {
	watches atomic.Pointer[[]*CallWatch] // nil: nobody watches
	mu      sync.Mutex                   // of those who begin and end
}

// CallWatch is one who watches. What doesn't find room in its queue is counted
// and lost: no request waits for it.
type CallWatch struct {
	calls   *Calls
	wanted  func(*Call) bool
	queue   chan *Call
	dropped atomic.Uint64
}

// Watch begins to watch the calls that wanted says, which must be quick, is
// called by many goroutines at once and may not keep what it is given. It is nil
// where MaxWatches do already. The caller ends it with Close.
func (c *Calls) Watch(wanted func(*Call) bool) *CallWatch {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now []*CallWatch
	if p := c.watches.Load(); p != nil {
		now = *p
	}
	if len(now) >= MaxWatches {
		return nil
	}
	w := &CallWatch{calls: c, wanted: wanted, queue: make(chan *Call, callsQueued)}
	now = append(slices.Clip(now), w)
	c.watches.Store(&now)
	return w
}

// Close ends the watch. It may be called again.
func (w *CallWatch) Close() {
	c := w.calls
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.watches.Load()
	if p == nil {
		return
	}
	left := slices.DeleteFunc(slices.Clone(*p), func(o *CallWatch) bool { return o == w })
	if len(left) == 0 {
		c.watches.Store(nil)
		return
	}
	c.watches.Store(&left)
}

// C gives the calls. It is never closed.
func (w *CallWatch) C() <-chan *Call { return w.queue }

// Dropped is how many calls found no room so far.
func (w *CallWatch) Dropped() uint64 { return w.dropped.Load() }

// publish shows a request that has ended.
func (c *Calls) publish(ctx context.Context, q *request, o outcome) {
	watches := c.watches.Load()
	if watches == nil {
		return
	}
	call := &Call{
		API: q.api.Load().name, Proto: q.proto.name, Method: q.method,
		Start: q.start, TTFB: q.ttfb, Duration: o.took,
		Status: o.code, Class: classNames[o.class], Kind: o.kind,
		Received: q.receivedUpTo.Load(), Sent: q.sentUpTo.Load(),
		Bucket: q.bucket, Key: q.key, User: q.user, TraceID: TraceID(ctx),
	}
	if o.status != 0 {
		call.Status = strconv.Itoa(o.status)
	}
	for _, w := range *watches {
		if !w.wanted(call) {
			continue
		}
		select {
		case w.queue <- call:
		default:
			w.dropped.Add(1)
		}
	}
}
