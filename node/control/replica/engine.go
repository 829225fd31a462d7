package replica

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Times, in their defaults. An election begins one to two times electionTicks
// after the leader was last heard of, at random.
const (
	tickInterval   = 50 * time.Millisecond
	electionTicks  = 14 // 0.7 s
	heartbeatTicks = 2
	// earlyTicks is between the attempts of one voter to become leader when it
	// has started and heard of none. Where there is one the others refuse it.
	earlyTicks = 3
	// lastResortTicks is how long no leader is heard of until one stands that
	// shouldn't: some elections' length.
	lastResortTicks = 80 // 4 s

	// Stalled is how long a write of the log may take. After that the node has
	// to end: it promises things that it can't keep, and holds up the others.
	Stalled = 5 * time.Second
)

// Bounds of the queues and of the log.
const (
	maxInbox = 8192     // messages and calls waiting for run, and proposals
	logBytes = 32 << 20 // of a group; then it is cut
	logWaits = 8        // times that for whoever fetches a snapshot, and no more
	cutEvery = 20       // ticks between looking
)

// Options configures Open. Functions must not block, and may be called from
// several goroutines at once.
type Options struct {
	ID     uint64     // this node's raft id; neither 0 nor one of the two largest
	Log    *pebble.DB // of all groups; the caller closes it after Close
	Groups []GroupOptions

	// LogFailed is asked after every write of Log, and what it returns is
	// final: Pebble tells its Logger of a failed write and the writer nothing,
	// if that doesn't end the process. Nil: it does.
	LogFailed func() error

	// Send passes a batch on to a node, or drops it.
	Send func(to uint64, batch []byte)
	// Fetch makes dir with the snapshot that node from offers, or what is
	// missing of it in a dir that is there in part, of that same snapshot. It
	// may take long.
	Fetch func(ctx context.Context, from uint64, g GroupID, at Position, dir string) error
	// SnapshotDir is for snapshots on their way; what is in it when Open is
	// called is removed.
	SnapshotDir string
	FS          vfs.FS // of SnapshotDir; nil is the real one

	// Stand tells whether this node should become leader where there are other
	// voters; nil: always. Where nobody else can, it does all the same.
	Stand func() bool
	// Starved tells that Log's disk has no room for further entries; nil: never.
	// A follower then takes none, and goes on with what it has.
	Starved func() bool
	// Changed is told every change of leadership, in order for every group.
	Changed func(GroupID, Leadership)
	// Failed is called when a group's log or machine fails, once.
	Failed func(error)

	// LogBytes is how large a group's log gets before its machine is made to
	// Sync; it is cut back to half of that, from three quarters on where the
	// machine has made enough durable by itself. 0 is 32 MiB.
	LogBytes int64
	Tick     time.Duration // 0 is 50 ms
	Logger   *slog.Logger  // nil is silent
}

// GroupOptions is one group.
type GroupOptions struct {
	ID      GroupID
	Name    string
	Machine Machine // at its position; the caller closes it after Close
}

// Engine runs groups. All methods may be called from many goroutines at once.
type Engine struct {
	o       Options
	log     *logbook
	core    *core // run's
	groups  map[GroupID]*running
	sorted  []*running
	stalled time.Duration // Stalled, but for tests
	now     func() time.Time

	inbox     *mailbox[func(*core)]
	proposals *mailbox[proposal]
	writes    *mailbox[appending]
	cuts      *mailbox[cut]

	stop    context.Context // ends with Close, or a failure
	cancel  context.CancelFunc
	start   func(func()) // starts a goroutine that joined counts
	joined  sync.WaitGroup
	stepped chan struct{} // run has returned; nil: there is none
	once    sync.Once     // fail
	failed  chan struct{}
	err     error // written before failed is closed

	stranded atomic.Bool // Close has left write behind

	mu     sync.Mutex // guards what follows
	closed bool       // by Close: spawn starts nothing any more
}

// running is what an Engine keeps for a group beside its core.
type running struct {
	*group
	applies *mailbox[applying]
	applyMu sync.Mutex // held while the machine works
	reads   rounds
	copies  copies

	lead        atomic.Pointer[Leadership]
	lonely      atomic.Pointer[lonely]
	appliedTerm atomic.Uint64 // of the last entry applied
	applied     atomic.Uint64
}

// lonely says that this node leads a group that has no other members.
type lonely struct {
	term  uint64 // that it leads in
	since uint64 // the entry that made it so; it may not be applied yet
}

// cut asks write to drop entries: durable are in the state up to there.
type cut struct {
	r       *running
	durable uint64
}

// Open starts the groups at where their logs and machines are. A group whose
// machine has no membership yet waits for a leader to find it.
func Open(o Options) (*Engine, error) {
	e, err := newEngine(o)
	if err != nil {
		return nil, err
	}
	e.launch()
	return e, nil
}

// newEngine makes an Engine in which nothing runs yet.
func newEngine(o Options) (*Engine, error) {
	if !validID(o.ID) {
		return nil, fmt.Errorf("replica: %x can't be a node's raft id", o.ID)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Tick == 0 {
		o.Tick = tickInterval
	}
	if o.LogBytes == 0 {
		o.LogBytes = logBytes
	}
	if o.LogFailed == nil {
		o.LogFailed = func() error { return nil }
	}
	e := &Engine{
		o: o, log: newLogbook(o.Log, o.LogFailed), core: &core{id: o.ID}, groups: map[GroupID]*running{},
		stalled: Stalled, now: time.Now,
		inbox: newMailbox[func(*core)](), proposals: newMailbox[proposal](), writes: newMailbox[appending](), cuts: newMailbox[cut](),
		failed: make(chan struct{}),
	}
	e.start = e.joined.Go
	if err := o.FS.RemoveAll(o.SnapshotDir); err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.SnapshotDir, 0o700); err != nil {
		return nil, err
	}
	e.stop, e.cancel = context.WithCancel(context.Background())
	for _, g := range o.Groups {
		if err := e.add(g); err != nil {
			e.cancel()
			return nil, err
		}
	}
	return e, nil
}

func (e *Engine) add(o GroupOptions) (err error) {
	defer func() {
		if r := recover(); r != nil { // raft's way to say that the log isn't what it must be
			err = fmt.Errorf("raft group %s: %v", o.Name, r)
		}
	}()
	if e.groups[o.ID] != nil {
		return fmt.Errorf("raft group %s: its id is another's, too", o.Name)
	}
	at := o.Machine.Position()
	s, err := e.log.open(o.ID, at)
	if err != nil {
		return err
	}
	g, err := newGroup(e.o.ID, o.ID, o.Name, s, o.Machine, timing{electionTicks, heartbeatTicks}, raftLogger{e.o.Logger.With("group", o.Name)})
	if err != nil {
		return err
	}
	r := &running{group: g, applies: newMailbox[applying]()}
	r.lead.Store(&Leadership{Term: g.term})
	r.applied.Store(at.Index)
	r.copies.open(e, r)
	s.offer = r.copies.offer
	e.core.groups = append(e.core.groups, g)
	e.groups[o.ID] = r
	e.sorted = append(e.sorted, r)
	if g.conf.sole {
		return g.raw.Campaign() // nobody else could win: don't wait for a timeout
	}
	return nil
}

// launch starts the goroutines.
func (e *Engine) launch() {
	e.stepped = make(chan struct{})
	e.joined.Go(func() { e.guard("raft", e.run) })
	e.joined.Go(func() { e.guard("raft log", e.write) })
	for _, r := range e.sorted {
		e.joined.Go(func() { e.guard("group "+r.name, func() { e.apply(r) }) })
	}
}

// spawn starts a goroutine that Close waits for, unless Close has begun.
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.start(f)
	return true
}

// guard runs one of the goroutines. What panics in it is raft saying that the
// log isn't what it must be.
func (e *Engine) guard(what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			e.fail(fmt.Errorf("%s: %v\n%s", what, r, debug.Stack()))
		}
	}()
	f()
}

// fail ends the engine. The first reason is kept.
func (e *Engine) fail(err error) {
	e.once.Do(func() {
		e.err = err
		e.o.Logger.Error("the index has failed, the node must stop", "error", err)
		close(e.failed)
		e.cancel()
		if e.o.Failed != nil {
			e.o.Failed(err)
		}
	})
}

// Done is closed when the engine can't go on. Err says why.
func (e *Engine) Done() <-chan struct{} { return e.failed }

// Err is why Done is closed, nil while it isn't.
func (e *Engine) Err() error {
	select {
	case <-e.failed:
		return e.err
	default:
		return nil
	}
}

// Close ends the groups and waits for them, except for a write of the log that
// has stalled. It may be called again.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.inbox.close()
	e.proposals.close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.joined.Wait()
	}()
	ticker := time.NewTicker(e.o.Tick)
	defer ticker.Stop()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-ticker.C:
			if e.log.stalled(e.stalled) {
				e.stranded.Store(true)
				waiting = false
			}
		}
	}
	for _, r := range e.sorted {
		r.reads.end()
	}
}
