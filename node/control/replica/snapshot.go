package replica

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	// copyLife is how long a checkpoint that nobody fetches is kept.
	copyLife = 2 * time.Minute
	// fetchSilence is after how long a leader gives up on a follower that
	// doesn't fetch the snapshot it was offered, and offers it again.
	fetchSilence = 10 * time.Second
)

// copies is a group's snapshots: the one that this node offers others, and
// those that it fetches. A snapshot's message carries no state: it says what
// there is to fetch, and its data is the name of the checkpoint, by which two
// of the same index are told apart.
type copies struct {
	r *running
	e *Engine

	count int      // of checkpoints made; make's
	tried []*fetch // given to raft since pump was last called; run's
	due   bool     // somebody needs a checkpoint, and none is being made; run's

	mu      sync.Mutex           // guards what follows; inbox and Engine.mu are locked after it
	asked   bool                 // for a checkpoint
	made    *made                // the newest one; nil: none
	pending map[uint64]time.Time // nodes that were offered one: when they last fetched of it
	fetch   *fetch               // on its way; nil: none
	broken  *fetch               // one that failed, whose directory is for the next try; nil: none
	begun   int                  // how many fetches were begun
	here    []*fetch             // those that are here and not installed
	stale   []*made              // earlier ones, to be removed once nobody reads them
	trash   []string             // directories to be removed
}

// made is a checkpoint of this node's state.
type made struct {
	at   Position
	id   string // random
	dir  string
	used time.Time
	open int // readers of its files
}

// fetch is a snapshot from another node.
type fetch struct {
	at      snapshotID
	message *pb.Message // the last one that offered it; copies.mu guards it
	dir     string
	cancel  context.CancelFunc
	taken   bool // raft wants it installed; run's
}

// snapshotID tells snapshots apart.
type snapshotID struct {
	index, term uint64
	id          string
}

func identify(s *pb.Snapshot) snapshotID {
	at := s.GetMetadata()
	return snapshotID{at.GetIndex(), at.GetTerm(), string(s.GetData())}
}

func (c *copies) open(e *Engine, r *running) {
	c.e, c.r = e, r
	c.pending = map[uint64]time.Time{}
}

// offer is raft.Storage's Snapshot: the newest checkpoint, if the log still
// goes on from there and whoever is a member now is one in it, since raft
// ignores a snapshot that doesn't know the node it is for. Otherwise one is
// made, and raft asks again.
func (c *copies) offer() (*pb.Snapshot, error) {
	first, err := c.r.storage.FirstIndex()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.made; m == nil || m.at.Index+1 < first || m.at.Index < c.r.conf.since {
		c.due = c.due || !c.asked
		c.asked = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	c.made.used = c.e.now()
	s := &pb.Snapshot{
		Data:     []byte(c.made.id),
		Metadata: &pb.SnapshotMetadata{Index: new(c.made.at.Index), Term: new(c.made.at.Term), ConfState: new(pb.ConfState)},
	}
	if err := proto.Unmarshal(c.made.at.Conf, s.Metadata.ConfState); err != nil {
		return nil, err
	}
	return s, nil
}

// make makes a checkpoint. The machine rests.
func (c *copies) make() error {
	at := c.r.machine.Position()
	c.mu.Lock()
	c.asked = false // whoever comes from now on may need a later one
	fresh := c.made != nil && c.made.at.Index == at.Index
	c.mu.Unlock()
	if fresh || len(at.Conf) == 0 {
		return nil
	}
	c.count++
	dir := c.dir(fmt.Sprintf("made-%d", c.count))
	at, err := c.r.machine.Checkpoint(dir)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != nil {
		c.stale = append(c.stale, c.made)
	}
	c.made = &made{at: at, id: rand.Text(), dir: dir, used: c.e.now()}
	return nil
}

// clear removes what is of no use any more.
func (c *copies) clear() {
	c.mu.Lock()
	gone := c.trash
	c.trash = nil
	c.stale = slices.DeleteFunc(c.stale, func(m *made) bool {
		if m.open == 0 {
			gone = append(gone, m.dir)
		}
		return m.open == 0
	})
	c.mu.Unlock()
	for _, dir := range gone {
		if err := c.e.o.FS.RemoveAll(dir); err != nil {
			c.e.o.Logger.Warn("a snapshot's files can't be removed", "dir", dir, "error", err)
		}
	}
}

func (c *copies) dir(name string) string {
	return c.e.o.FS.PathJoin(c.e.o.SnapshotDir, c.r.name+"-"+name)
}

// needed is the last entry that whoever has been offered the checkpoint can do
// without.
func (c *copies) needed() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		return ^uint64(0)
	}
	return c.made.at.Index
}

// sent notes that a node was offered a snapshot.
func (c *copies) sent(to uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[to] = c.e.now()
}

// watch gives up on nodes that don't fetch, and on a checkpoint nobody wants,
// and tells whether there is something to remove. It is called by run.
func (c *copies) watch() bool {
	now := c.e.now()
	c.mu.Lock()
	var silent []uint64
	reading := c.made != nil && c.made.open > 0
	for to, at := range c.pending {
		if !reading && now.Sub(at) > fetchSilence {
			silent = append(silent, to)
			delete(c.pending, to)
		}
	}
	if m := c.made; m != nil && !reading && now.Sub(m.used) > copyLife {
		c.stale, c.made = append(c.stale, m), nil
	}
	untidy := len(c.stale)+len(c.trash) > 0
	c.mu.Unlock()
	slices.Sort(silent)
	for _, to := range silent {
		c.r.raw.ReportSnapshot(to, raft.SnapshotFailure)
	}
	return untidy
}

// Snapshot gives the directory of the checkpoint at index that this node
// offers, for a node that fetches it, and a function to call when it has read.
func (e *Engine) Snapshot(g GroupID, to, index uint64) (dir string, release func(), ok bool) {
	r := e.groups[g]
	if r == nil {
		return "", nil, false
	}
	c := &r.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.made
	if m == nil || m.at.Index != index {
		return "", nil, false
	}
	touch := func() {
		m.used = e.now()
		if _, ok := c.pending[to]; ok {
			c.pending[to] = m.used
		}
	}
	m.open++
	touch()
	return m.dir, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		m.open--
		touch()
	}), true
}

// receive begins to fetch the snapshot that a message offers; the message is
// stepped when it is here. One that is here is not fetched again, nor is one
// that the state is past, and of two at a time that of the later leader wins.
func (c *copies) receive(out outgoing) {
	at := identify(out.message.GetSnapshot())
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.index <= c.r.applied.Load() { // raft answers that it has it
		c.e.inbox.put(func(core *core) { core.step(out.group, out.message) })
		return
	}
	if i := slices.IndexFunc(c.here, func(f *fetch) bool { return f.at == at }); i >= 0 {
		f := c.here[i]
		c.e.inbox.put(func(*core) { c.try(f, out.message) })
		return
	}
	if old := c.fetch; old != nil {
		if old.at == at {
			old.message = out.message
			return
		}
		if out.message.GetTerm() < old.message.GetTerm() {
			return
		}
		old.cancel()
	}
	c.begun++
	f := &fetch{at: at, message: out.message, dir: c.dir(fmt.Sprintf("fetched-%d", c.begun))}
	if c.broken != nil {
		if c.broken.at == at {
			f.dir = c.broken.dir
		} else {
			c.trash = append(c.trash, c.broken.dir)
		}
		c.broken = nil
	}
	ctx, cancel := context.WithCancel(c.e.stop)
	f.cancel = cancel
	if !c.e.spawn(func() { c.run(ctx, f, out.message.GetFrom()) }) {
		cancel()
		return
	}
	c.fetch = f
}

// run fetches a snapshot and lets raft know.
func (c *copies) run(ctx context.Context, f *fetch, from uint64) {
	defer f.cancel()
	log := c.e.o.Logger.With("group", c.r.name, "index", f.at.index, "from", fmt.Sprintf("%x", from))
	log.Info("fetching a snapshot")
	err := c.e.o.Fetch(ctx, from, c.r.id, Position{Index: f.at.index, Term: f.at.term}, f.dir)
	if err != nil {
		log.Warn("a snapshot couldn't be fetched", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	current := c.fetch == f
	switch {
	case !current:
		c.trash = append(c.trash, f.dir)
	case err != nil:
		c.fetch, c.broken = nil, f
	default:
		c.fetch = nil
		c.here = append(c.here, f)
		c.e.inbox.put(func(*core) { c.try(f, f.message) })
	}
}

// try gives raft a snapshot that is here. It is called by run.
func (c *copies) try(f *fetch, m *pb.Message) {
	c.tried = append(c.tried, f)
	c.e.core.step(c.r.id, m)
}

// settle drops what was tried and not taken: raft has no use for it, and won't
// have. It is called by run after every pump.
func (c *copies) settle() {
	if len(c.tried) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.tried {
		if i := slices.Index(c.here, f); i >= 0 && !f.taken {
			c.here = slices.Delete(c.here, i, i+1)
			c.trash = append(c.trash, f.dir)
		}
	}
	c.tried = c.tried[:0]
}

// take notes that raft wants a snapshot installed. It is called by run.
func (c *copies) take(s *pb.Snapshot) {
	at := identify(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.here {
		f.taken = f.taken || f.at == at
	}
}

// fetched gives the directory of a snapshot that is here. It is the caller's.
func (c *copies) fetched(s *pb.Snapshot) (dir string, ok bool) {
	at := identify(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.here, func(f *fetch) bool { return f.at == at })
	if i < 0 {
		return "", false
	}
	dir = c.here[i].dir
	c.here = slices.Delete(c.here, i, i+1)
	return dir, true
}
