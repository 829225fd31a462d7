package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Times, in their defaults. An election begins one to two times electionTicks
// after the leader was last heard of, at random.
const (
	tickInterval   = 50 * time.Millisecond
	electionTicks  = 16 // 0.8 s
	heartbeatTicks = 2

	// Stalled is how long a write of the log may take. After that the node has
	// to end: it promises things that it can't keep, and holds up the others.
	Stalled = 5 * time.Second
)

// Bounds of the queues and of the log.
const (
	maxInbox     = 8192     // messages and calls waiting for run
	maxLogBytes  = 32 << 20 // of a group; then it is cut
	keepLogBytes = 16 << 20 // so much stays for followers that are behind
	cutEvery     = 20       // ticks between looking
)

// Options configures Open. Functions must not block.
type Options struct {
	ID     uint64     // this node's raft id; neither 0 nor one of the two largest
	Log    *pebble.DB // of all groups; the caller closes it after Close
	Groups []GroupOptions

	// Send passes a batch on to a node, or drops it.
	Send func(to uint64, batch []byte)
	// Fetch makes dir with the snapshot that node from offers, or what is
	// missing of it in a dir that is there in part. It may take long.
	Fetch func(ctx context.Context, from uint64, g GroupID, at Position, dir string) error
	// SnapshotDir is for snapshots on their way; what is in it when Open is
	// called is removed.
	SnapshotDir string
	FS          vfs.FS // of SnapshotDir; nil is the real one

	// Stand tells whether this node may become leader; nil: always.
	Stand func() bool
	// Changed is told every change of leadership, in order for every group.
	Changed func(GroupID, Leadership)
	// Failed is called when a group's log or machine fails, once.
	Failed func(error)

	Tick   time.Duration // 0 is 50 ms
	Logger *slog.Logger  // nil is silent
}

// GroupOptions is one group.
type GroupOptions struct {
	ID      GroupID
	Name    string
	Machine Machine // at its position; the caller closes it after Close
}

// Engine runs groups. All methods may be called from many goroutines at once.
type Engine struct {
	o    Options
	log  *logbook
	core *core // run's

	groups map[GroupID]*running

	inbox  *mailbox[func(*core)]
	writes *mailbox[appending]
	cuts   *mailbox[cut]

	writing atomic.Int64 // when the write that is going on began, ns after opened; 0: none
	opened  time.Time

	stop     context.Context // ends with Close, or a failure
	cancel   context.CancelFunc
	joined   sync.WaitGroup
	stepped  chan struct{} // run has returned
	once     sync.Once     // fail
	failed   chan struct{}
	err      error // written before failed is closed
	stranded atomic.Bool

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
	aloneTerm   atomic.Uint64 // the term in which this node is the only voter and leads; else 0
	appliedTerm atomic.Uint64 // of the last entry applied
	applied     atomic.Uint64
	durable     atomic.Uint64
}

// cut asks write to drop entries.
type cut struct {
	group *group
	index uint64
}

// Open starts the groups at where their logs and machines are. A group whose
// machine has no membership yet waits for a leader to find it.
func Open(o Options) (*Engine, error) {
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
	e := &Engine{
		o: o, log: &logbook{db: o.Log}, core: &core{id: o.ID}, groups: map[GroupID]*running{},
		inbox: newMailbox[func(*core)](), writes: newMailbox[appending](), cuts: newMailbox[cut](),
		opened: time.Now(), stepped: make(chan struct{}), failed: make(chan struct{}),
	}
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
	e.joined.Add(2 + len(e.groups))
	go e.guard("raft", e.run)
	go e.guard("raft log", e.write)
	for _, r := range e.groups {
		go e.guard("group "+r.name, func() { e.apply(r) })
	}
	return e, nil
}

func (e *Engine) add(o GroupOptions) error {
	s, err := e.log.open(o.ID, o.Machine.Position())
	if err != nil {
		return err
	}
	g, err := newGroup(e.o.ID, o.ID, o.Name, s, o.Machine, timing{electionTicks, heartbeatTicks}, raftLogger{e.o.Logger.With("group", o.Name)})
	if err != nil {
		return err
	}
	r := &running{group: g, applies: newMailbox[applying]()}
	r.lead.Store(&Leadership{})
	at := o.Machine.Position()
	r.applied.Store(at.Index)
	r.durable.Store(at.Index)
	r.copies.open(e, r)
	s.offer = r.copies.offer
	e.core.groups = append(e.core.groups, g)
	e.groups[o.ID] = r
	if g.sole() {
		return g.raw.Campaign() // nobody else could win: don't wait for a timeout
	}
	return nil
}

// sole tells whether this node is the only voter.
func (g *group) sole() bool {
	conf := g.raw.Status().Config
	voters := conf.Voters.IDs()
	_, self := voters[g.raw.BasicStatus().ID]
	return self && len(voters) == 1
}

// spawn starts a goroutine that Close waits for, unless Close has begun.
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.joined.Go(f)
	return true
}

// guard runs one of the goroutines. What panics in it is raft saying that the
// log isn't what it must be.
func (e *Engine) guard(what string, f func()) {
	defer e.joined.Done()
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

// run steps the groups.
func (e *Engine) run() {
	defer close(e.stepped)
	ticker := time.NewTicker(e.o.Tick)
	defer ticker.Stop()
	for ticks := 1; ; {
		e.dispatch(e.core.pump())
		select {
		case <-e.stop.Done():
			return
		case <-ticker.C:
			e.core.tick(e.o.Stand == nil || e.o.Stand())
			e.watch(ticks)
			ticks++
		case <-e.inbox.wake:
		}
		for _, do := range e.inbox.take() {
			do(e.core)
		}
	}
}

// dispatch gives what is ready to those who do it.
func (e *Engine) dispatch(r ready) {
	for _, c := range r.change {
		e.changed(c)
	}
	e.send(r.send)
	e.writes.put(r.write...)
	for _, a := range r.apply {
		e.groups[a.group.id].applies.put(a)
	}
	for _, s := range r.reads {
		e.groups[s.group].reads.resolve(e, s)
	}
}

// changed notes who leads a group.
func (e *Engine) changed(c change) {
	r := e.groups[c.group]
	before := r.lead.Swap(&c.Leadership)
	r.settle()
	if *before == c.Leadership {
		return
	}
	if e.o.Changed != nil {
		e.o.Changed(c.group, c.Leadership)
	}
}

// settle notes whether this node leads alone. It is called by run whenever the
// leader or the membership has changed.
func (r *running) settle() {
	term := uint64(0)
	if l := r.lead.Load(); l.Leads && r.sole() {
		term = l.Term
	}
	r.aloneTerm.Store(term)
}

// watch is what has to be done now and then.
func (e *Engine) watch(ticks int) {
	if began := e.writing.Load(); began != 0 && time.Since(e.opened)-time.Duration(began) > Stalled {
		e.stranded.Store(true)
		e.fail(fmt.Errorf("raft log: a write to its disk has taken more than %v", Stalled))
		return
	}
	for _, r := range e.groups {
		r.reads.repeat(e, r.id)
		if untidy := r.copies.watch(); ticks%cutEvery == 0 && (untidy || r.storage.bytes.Load() > maxLogBytes) {
			r.applies.put(applying{group: r.group}) // for upkeep
		}
	}
}

// send passes messages on, those for one node together.
func (e *Engine) send(all []outgoing) {
	for len(all) > 0 {
		to := all[0].message.GetTo()
		var batch []byte
		rest := all[:0:0]
		for _, out := range all {
			if out.message.GetTo() != to {
				rest = append(rest, out)
				continue
			}
			if out.message.GetType() == pb.MsgSnap {
				e.groups[out.group].copies.sent(to)
			}
			batch = appendMessage(batch, out)
		}
		e.o.Send(to, batch)
		all = rest
	}
}

// write makes the log durable.
func (e *Engine) write() {
	for {
		select {
		case <-e.stop.Done():
			return
		case <-e.writes.wake:
		case <-e.cuts.wake:
		}
		if err := e.writeOnce(); err != nil {
			e.fail(err)
			return
		}
	}
}

func (e *Engine) writeOnce() error {
	if all := e.writes.take(); len(all) > 0 {
		e.writing.Store(int64(time.Since(e.opened)))
		responses, err := e.log.write(all, e.install)
		e.writing.Store(0)
		if err != nil {
			return fmt.Errorf("raft log: %w", err)
		}
		e.respond(responses)
	}
	for _, c := range e.cuts.take() {
		if err := e.log.cut(c.group, c.index); err != nil && !errors.Is(err, raft.ErrCompacted) {
			return fmt.Errorf("raft log: %w", err)
		}
	}
	return nil
}

// respond delivers what the writes have promised: to the groups here, and to
// other nodes.
func (e *Engine) respond(all []outgoing) {
	remote := all[:0:0]
	local := all[:0:0]
	for _, r := range all {
		if r.message.GetTo() == e.o.ID {
			local = append(local, r)
		} else {
			remote = append(remote, r)
		}
	}
	e.send(remote)
	if len(local) > 0 {
		e.inbox.put(func(c *core) {
			for _, r := range local {
				c.step(r.group, r.message)
			}
		})
	}
}

// install puts a snapshot that was fetched in the place of the machine's state.
func (e *Engine) install(g *group, s *pb.Snapshot) error {
	r := e.groups[g.id]
	at := s.GetMetadata()
	dir, ok := r.copies.fetched(at.GetIndex(), at.GetTerm())
	if !ok {
		return fmt.Errorf("snapshot %d of group %s isn't here", at.GetIndex(), g.name)
	}
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	if err := g.machine.Install(dir); err != nil {
		return fmt.Errorf("snapshot %d of group %s: %w", at.GetIndex(), g.name, err)
	}
	got := g.machine.Position()
	if got.Index != at.GetIndex() || got.Term != at.GetTerm() {
		return fmt.Errorf("snapshot %d of group %s holds the state at %d", at.GetIndex(), g.name, got.Index)
	}
	r.applied.Store(got.Index)
	r.durable.Store(got.Index)
	e.inbox.put(func(*core) { r.settle() })
	return nil
}

// apply applies a group's committed entries.
func (e *Engine) apply(r *running) {
	for {
		select {
		case <-e.stop.Done():
			return
		case <-r.applies.wake:
		}
		for _, a := range r.applies.take() {
			if err := e.applyOne(r, a); err != nil {
				e.fail(fmt.Errorf("group %s: %w", r.name, err))
				return
			}
		}
	}
}

// applyOne applies what was committed; or, without entries, what is due:
// a checkpoint, and making durable what is applied so that the log can be cut.
func (e *Engine) applyOne(r *running, a applying) error {
	if len(a.entries) == 0 {
		return e.upkeep(r)
	}
	settle, err := r.advance(a.entries)
	if err != nil {
		return err
	}
	e.inbox.put(func(c *core) {
		for _, m := range a.responses {
			c.step(r.id, m)
		}
		if settle {
			r.settle()
		}
	})
	return nil
}

// advance applies entries, but not those that a snapshot has brought already,
// and tells whether one of raft's own was among them: a change of membership,
// or what stands in the log for one that raft refused.
func (r *running) advance(entries []Entry) (settle bool, err error) {
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	at := r.machine.Position()
	for len(entries) > 0 && entries[0].Index <= at.Index {
		entries = entries[1:]
	}
	if len(entries) == 0 {
		return false, nil
	}
	if err := r.machine.Apply(entries); err != nil {
		return false, err
	}
	last := entries[len(entries)-1]
	r.applied.Store(last.Index)
	r.appliedTerm.Store(last.Term)
	for i := range entries {
		settle = settle || len(entries[i].Data) == 0
	}
	return settle, nil
}

// upkeep makes the state durable, and drops what the log needn't hold then.
func (e *Engine) upkeep(r *running) error {
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	if err := r.copies.make(); err != nil {
		return err
	}
	r.copies.clear()
	if r.storage.bytes.Load() <= maxLogBytes {
		return nil
	}
	if err := r.machine.Sync(); err != nil {
		return err
	}
	durable := r.machine.Position().Index
	r.durable.Store(durable)
	if index := r.spare(min(durable, r.copies.needed())); index > 0 {
		e.cuts.put(cut{r.group, index})
	}
	return nil
}

// spare is the last entry that the log can do without: it is durable in the
// state, and enough follow it. 0 where there is none.
func (r *running) spare(durable uint64) uint64 {
	first, err := r.storage.FirstIndex()
	if err != nil || durable < first {
		return 0
	}
	entries, err := r.storage.Entries(first, durable+1, noLimit)
	if err != nil {
		return 0
	}
	index, left := uint64(0), r.storage.bytes.Load()
	for _, entry := range entries {
		if left <= keepLogBytes {
			break
		}
		left -= size([]*pb.Entry{entry})
		index = entry.GetIndex()
	}
	return index
}

// Close ends the groups and waits for them. It may be called again.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.inbox.close()
	if e.stranded.Load() {
		return
	}
	e.joined.Wait()
	for _, r := range e.groups {
		r.reads.end()
	}
}
