package replica

import (
	"context"
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

// copies is a group's snapshots: the one that this node offers others, and the
// one that it fetches. A snapshot's message carries no data: it says what
// there is to fetch, and from whom.
type copies struct {
	r    *running
	name string
	e    *Engine

	count int // of checkpoints made; make's

	mu      sync.Mutex           // guards what follows
	due     bool                 // somebody needs a checkpoint
	made    *made                // the newest one; nil: none
	stale   []*made              // earlier ones, to be removed once nobody reads them
	pending map[uint64]time.Time // nodes that were offered one: when they last fetched of it
	fetch   *fetch               // on its way, or here and not yet installed; nil: none
}

// made is a checkpoint of this node's state.
type made struct {
	at   Position
	dir  string
	used time.Time
	open int // readers of its files
}

// fetch is a snapshot on its way from another node.
type fetch struct {
	index, term uint64
	dir         string
	cancel      context.CancelFunc
	done        bool
}

func (c *copies) open(e *Engine, r *running) {
	c.e, c.r, c.name = e, r, r.name
	c.pending = map[uint64]time.Time{}
}

// offer is raft.Storage's Snapshot: the newest checkpoint, if the log still
// goes on from there. Otherwise one is made, and raft asks again.
func (c *copies) offer() (*pb.Snapshot, error) {
	first, err := c.r.storage.FirstIndex()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil || c.made.at.Index+1 < first {
		if !c.due {
			c.due = true
			c.r.applies.put(applying{group: c.r.group})
		}
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	c.made.used = time.Now()
	s := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(c.made.at.Index), Term: new(c.made.at.Term), ConfState: new(pb.ConfState)}}
	if err := proto.Unmarshal(c.made.at.Conf, s.Metadata.ConfState); err != nil {
		return nil, err
	}
	return s, nil
}

// make makes the checkpoint that is due. The machine rests.
func (c *copies) make() error {
	c.mu.Lock()
	due := c.due
	c.due = false
	c.mu.Unlock()
	if !due || len(c.r.machine.Position().Conf) == 0 {
		return nil
	}
	c.count++
	dir := c.dir(fmt.Sprintf("made-%d", c.count))
	at, err := c.r.machine.Checkpoint(dir)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c.mu.Lock()
	if c.made != nil {
		c.stale = append(c.stale, c.made)
	}
	c.made = &made{at: at, dir: dir, used: time.Now()}
	c.mu.Unlock()
	return nil
}

// clear removes what is stale and not being read.
func (c *copies) clear() {
	c.mu.Lock()
	var gone []*made
	c.stale = slices.DeleteFunc(c.stale, func(m *made) bool {
		if m.open == 0 {
			gone = append(gone, m)
		}
		return m.open == 0
	})
	c.mu.Unlock()
	for _, m := range gone {
		c.remove(m.dir)
	}
}

func (c *copies) dir(name string) string {
	return c.e.o.FS.PathJoin(c.e.o.SnapshotDir, c.name+"-"+name)
}

func (c *copies) remove(dir string) {
	if err := c.e.o.FS.RemoveAll(dir); err != nil {
		c.e.o.Logger.Warn("a snapshot's files can't be removed", "dir", dir, "error", err)
	}
}

// needed is the first entry that the log must keep for who has been offered
// the checkpoint, less one.
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
	c.pending[to] = time.Now()
}

// watch gives up on nodes that don't fetch, and on a checkpoint nobody wants,
// and tells whether there is something to remove. It is called by run.
func (c *copies) watch() bool {
	now := time.Now()
	c.mu.Lock()
	var silent []uint64
	for to, at := range c.pending {
		if now.Sub(at) > fetchSilence {
			silent = append(silent, to)
			delete(c.pending, to)
		}
	}
	if m := c.made; m != nil && m.open == 0 && now.Sub(m.used) > copyLife {
		c.stale, c.made = append(c.stale, m), nil
	}
	clear := len(c.stale) > 0
	c.mu.Unlock()
	for _, to := range silent {
		c.r.raw.ReportSnapshot(to, raft.SnapshotFailure)
	}
	return clear
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
		m.used = time.Now()
		if _, ok := c.pending[to]; ok {
			c.pending[to] = m.used
		}
	}
	m.open++
	touch()
	return m.dir, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		m.open--
		touch()
	}, true
}

// receive begins to fetch the snapshot that a message offers; the message is
// stepped when it is here. One that is behind the state, or the same as is
// being fetched, starts nothing.
func (c *copies) receive(e *Engine, out outgoing) {
	at := out.message.GetSnapshot().GetMetadata()
	index, term := at.GetIndex(), at.GetTerm()
	c.mu.Lock()
	defer c.mu.Unlock()
	if index <= c.r.applied.Load() {
		e.inbox.put(func(core *core) { core.step(out.group, out.message) }) // raft answers that it has it
		return
	}
	if f := c.fetch; f != nil {
		if f.index == index && f.term == term {
			if f.done {
				e.inbox.put(func(core *core) { core.step(out.group, out.message) })
			}
			return
		}
		f.cancel()
	}
	ctx, cancel := context.WithCancel(e.stop)
	f := &fetch{index: index, term: term, cancel: cancel, dir: c.dir(fmt.Sprintf("fetched-%d-%d", index, term))}
	c.fetch = f
	if !e.spawn(func() { c.run(ctx, e, f, out) }) {
		cancel()
	}
}

// run fetches a snapshot and lets raft know.
func (c *copies) run(ctx context.Context, e *Engine, f *fetch, out outgoing) {
	defer f.cancel()
	from := out.message.GetFrom()
	e.o.Logger.Info("fetching a snapshot", "group", c.name, "index", f.index, "from", fmt.Sprintf("%x", from))
	err := e.o.Fetch(ctx, from, out.group, Position{Index: f.index, Term: f.term}, f.dir)
	c.mu.Lock()
	current := c.fetch == f
	if current {
		f.done = err == nil
		if err != nil {
			c.fetch = nil // what is there of it stays, for the next try
		}
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		e.o.Logger.Warn("a snapshot couldn't be fetched", "group", c.name, "index", f.index, "error", err)
	case !current:
		c.remove(f.dir)
	default:
		e.inbox.put(func(core *core) { core.step(out.group, out.message) })
	}
}

// fetched gives the directory of a snapshot that is here. It is the caller's.
func (c *copies) fetched(index, term uint64) (dir string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fetch
	if f == nil || !f.done || f.index != index || f.term != term {
		return "", false
	}
	c.fetch = nil
	return f.dir, true
}
