package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/semaphore"

	"github.com/gridloom/gridloom/node/fault"
)

const (
	queuedCommands = 1024     // proposals waiting to be applied
	queuedBytes    = 64 << 20 // of their commands, those being applied included
	batchCommands  = 256      // commands of one batch, and so of one sync
	batchBytes     = 4 << 20  // a batch as large as this takes no more
)

// owner is the index on the node that holds it. Proposals go through a queue
// to one goroutine, run, which stamps them, applies as many as are waiting to
// one batch, commits that with one sync, publishes the new state, and only
// then answers. While it syncs the next batch gathers: the slower the disk,
// the larger the batches.
type owner struct {
	store   *store
	clock   func() time.Time
	hooks   Hooks
	observe func(*view) // is told every view as it becomes present

	queue  chan *proposal
	memory *semaphore.Weighted // bytes of the commands between propose and their answer
	alive  context.Context     // ends when run returns
	die    context.CancelFunc  // run's
	stop   chan struct{}       // closed by close

	machine *machine // run's alone, once that is running

	// mu guards present and the references of views, and nothing slow.
	mu      sync.Mutex
	present *view
}

// proposal is a command on its way through the queue.
type proposal struct {
	cmd   *Command
	bytes int64 // taken from owner.memory
	state atomic.Uint32
	out   *outcome // for its entry in the batch; run's until it is sent to done
	done  chan *outcome
}

// The states of a proposal. Whoever moves it away from queued decides.
const (
	proposalQueued    = iota
	proposalTaken     // run has it: it will be carried out
	proposalWithdrawn // its caller has gone: run passes over it
)

// view is one state of the index, on disk for good, for reading. It is shared
// by its readers; the last to leave one that is no longer present closes its
// snapshot.
type view struct {
	rows       pebble.Reader
	applied    uint64
	logTime    int64
	deployment string
	topology   *Topology

	close func() error
	refs  int // guarded by owner.mu; being present is one
}

// openOwner takes up where the store stands, and starts run. The store is the
// owner's from here on, also where there is an error.
func openOwner(s *store, clock func() time.Time, hooks Hooks, observe func(*view)) (*owner, error) {
	m, err := loadMachine(s.db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("index %s: %w", s.dir, err), s.close())
	}
	w := &owner{
		store:   s,
		clock:   clock,
		hooks:   hooks,
		observe: observe,
		queue:   make(chan *proposal, queuedCommands),
		memory:  semaphore.NewWeighted(queuedBytes),
		stop:    make(chan struct{}),
		machine: m,
	}
	w.alive, w.die = context.WithCancel(context.Background())
	w.publish()
	go w.run()
	return w, nil
}

// propose puts a valid command into the log and waits until it is applied and
// durable. What needs room is refused where the disk is nearly full, except
// that a retry gets the outcome of the first try. When ctx ends before run has
// taken it, it never happened; afterwards it completes without its caller.
func (w *owner) propose(ctx context.Context, cmd *Command) (*outcome, error) {
	if cmd.PutRecord != nil || cmd.CreateBucket != nil {
		if full := w.store.room(); full != nil {
			out, err := w.remembered(cmd.RequestID)
			if out == nil && err == nil {
				err = full
			}
			return out, err
		}
	}
	p := &proposal{cmd: cmd, bytes: int64(cmd.Msgsize()), done: make(chan *outcome, 1)}
	if err := w.enqueue(ctx, p); err != nil {
		return nil, err
	}
	select {
	case out := <-p.done:
		return out, nil
	case <-ctx.Done():
		if p.state.CompareAndSwap(proposalQueued, proposalWithdrawn) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the command is being carried out, and nobody waits for it: %w", ctx.Err())
	case <-w.alive.Done():
	}
	select {
	case out := <-p.done: // answered before run returned
		return out, nil
	default:
		return nil, w.gone()
	}
}

// remembered gives the outcome of a command that was carried out before, nil
// where none is known.
func (w *owner) remembered(id [16]byte) (*outcome, error) {
	v := w.acquire()
	defer w.release(v)
	var known replyRow
	switch found, err := get(v.rows, replyKey(id), &known); {
	case err != nil:
		return nil, w.unreadable(err)
	case !found:
		return nil, nil
	}
	return &known.Outcome, nil
}

// enqueue waits for room in the queue.
func (w *owner) enqueue(ctx context.Context, p *proposal) error {
	if !w.memory.TryAcquire(p.bytes) {
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(w.alive, cancel)()
		if err := w.memory.Acquire(both, p.bytes); err != nil {
			return w.waitError(ctx)
		}
	}
	select {
	case w.queue <- p:
		return nil
	case <-ctx.Done():
	case <-w.alive.Done():
	}
	w.memory.Release(p.bytes)
	return w.waitError(ctx)
}

// waitError says why waiting has ended without success.
func (w *owner) waitError(ctx context.Context) error {
	if w.alive.Err() != nil {
		return w.gone()
	}
	return ctx.Err()
}

// gone is the answer once run has ended.
func (w *owner) gone() error {
	if err := w.store.failure(); err != nil {
		return &fault.Error{Kind: fault.Unavailable, Subject: "index", Detail: "its store has failed, and the node is stopping", Err: err}
	}
	return fault.New(fault.Unavailable, "index", "the node is stopping")
}

// run applies what is proposed until close, or until the store fails.
func (w *owner) run() {
	defer w.die()
	for {
		select {
		case <-w.stop:
			return
		case p := <-w.queue:
			if err := w.commit(p); err != nil {
				w.store.fail(err)
				return
			}
		}
	}
}

// commit applies first and what else is waiting, makes it durable, and
// answers. After an error nothing of it is answered, and the machine is not
// to be used again.
func (w *owner) commit(first *proposal) (err error) {
	started := time.Now()
	b := w.store.db.NewIndexedBatch()
	defer closeInto(&err, b)
	taken := make([]*proposal, 0, batchCommands)
	for p := first; p != nil; p = w.next(len(taken), b) {
		if !p.state.CompareAndSwap(proposalQueued, proposalTaken) {
			w.memory.Release(p.bytes)
			continue
		}
		e := entry{Index: w.machine.meta.Applied + 1, Stamp: w.clock().UnixNano(), Command: p.cmd}
		if p.out, err = w.machine.apply(b, &e); err != nil {
			return err
		}
		taken = append(taken, p)
	}
	if len(taken) == 0 {
		return nil
	}
	if err := w.machine.seal(b); err != nil {
		return err
	}
	size := b.Len()
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	// A commit that fails is only told to the store's logger.
	if err := w.store.failure(); err != nil {
		return err
	}
	w.publish()
	if w.hooks.Committed != nil {
		w.hooks.Committed(len(taken), size, time.Since(started))
	}
	for _, p := range taken {
		w.memory.Release(p.bytes)
		p.done <- p.out
	}
	return nil
}

// next gives the next proposal that is waiting already, nil where there is
// none or the batch is full.
func (w *owner) next(taken int, b *pebble.Batch) *proposal {
	if taken >= batchCommands || b.Len() >= batchBytes {
		return nil
	}
	select {
	case p := <-w.queue:
		return p
	default:
		return nil
	}
}

// publish makes the machine's state the present view. It is called when all
// of that is durable: a read must not show what a crash could take back.
func (w *owner) publish() {
	snapshot := w.store.db.NewSnapshot()
	v := &view{
		rows:       snapshot,
		applied:    w.machine.meta.Applied,
		logTime:    w.machine.meta.LogTime,
		deployment: w.machine.identity.Deployment,
		topology:   w.machine.topology,
		close:      snapshot.Close,
		refs:       1,
	}
	w.mu.Lock()
	old := w.present
	w.present = v
	w.mu.Unlock()
	w.observe(v)
	if old != nil {
		w.release(old)
	}
}

// acquire gives the present view, which its user releases.
func (w *owner) acquire() *view {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.present.refs++
	return w.present
}

func (w *owner) release(v *view) {
	w.mu.Lock()
	v.refs--
	last := v.refs == 0
	w.mu.Unlock()
	if last {
		if err := v.close(); err != nil {
			w.store.fail(err)
		}
	}
}

// read answers a valid query from the present view, which shows everything
// that was acknowledged before the call.
func (w *owner) read(ctx context.Context, q *Query) (*Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.alive.Err() != nil {
		return nil, w.gone()
	}
	v := w.acquire()
	defer w.release(v)
	a, err := v.answer(q)
	if err == nil && q.Begin != nil {
		err = w.store.room() // before the payload is sent, rather than after
	}
	if err != nil {
		if _, refused := refusal(err); !refused {
			err = w.unreadable(err)
		}
		return nil, err
	}
	// A put's birth must not lie as far back as the last command.
	a.LogTime = max(a.LogTime, w.clock().UnixNano())
	return a, nil
}

// unreadable is the answer where a row can't be read.
func (w *owner) unreadable(err error) error {
	w.store.log.Error("the index can't be read", "dir", w.store.dir, "error", err)
	return &fault.Error{Kind: fault.Corrupted, Subject: "index", Detail: "a part of it can't be read", Err: err}
}

// halt ends run after the batch it is at. What is queued is not carried out.
func (w *owner) halt() {
	close(w.stop)
	<-w.alive.Done()
}

// close closes the store. It comes after halt, and after the last reader.
func (w *owner) close() error {
	w.release(w.present)
	return w.store.close()
}
