package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// logSizes are those of the raft log, which is only read when the node starts. Of
// a full memtable about half has been cut already, and isn't flushed. The rest is
// cut before long: its entries are one file beside the table of their keys, which
// is deleted once no key is left, so that no compaction reads or writes them.
func logSizes() disk.Options {
	return disk.Options{CacheBytes: 1 << 20, MemTableBytes: 64 << 20, TableBytes: 64 << 20, SeparateBytes: 1 << 10}
}

// Open opens this node's part of the index. A node alone forms its mesh here;
// one of several doesn't wait for the others: WaitReady does. ctx bounds Open
// alone.
func Open(ctx context.Context, o Options) (*Control, error) {
	c, err := newControl(&o)
	if err != nil {
		return nil, err
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// newControl makes a Control that holds nothing yet.
func newControl(o *Options) (*Control, error) {
	if o.Self == "" {
		return nil, fault.New(fault.InvalidArgument, "node", "has no name")
	}
	c := &Control{
		self:     o.Self,
		peers:    maps.Clone(o.Peers),
		dir:      o.Dir,
		fs:       o.fs,
		log:      o.Logger,
		grid:     o.Grid,
		clock:    o.Clock,
		hooks:    o.Hooks,
		fetch:    o.Fetch,
		logBytes: o.logBytes,
		secrets:  o.MeshSecrets,
		boxKept:  cmp.Or(o.boxKept, keepBoxes),
		iam:      iamFeed{wake: make(chan struct{}, 1)},
		memory:   semaphore.NewWeighted(queuedBytes),
		poked:    make(chan struct{}, 1),
		stirred:  make(chan struct{}, 1),
		failed:   make(chan struct{}),
		changed:  make(chan struct{}),
		leading:  make(chan struct{}),
		unready:  fault.New(fault.Waiting, "index", "is being opened"),
	}
	if len(c.peers) == 0 {
		c.peers = map[string]string{c.self: ""}
	}
	if _, ok := c.peers[c.self]; !ok {
		return nil, fault.New(fault.InvalidArgument, "peers", "have no node %s, which is this one", c.self)
	}
	if len(c.peers) > 1 && c.grid == nil {
		return nil, fault.New(fault.InvalidArgument, "grid", "is missing: there are other nodes")
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	c.topology.Store(&Topology{})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.links.open(c)
	c.meetings.open(c)
	return c, nil
}

// open takes up where the node's directory stands.
func (c *Control) open(ctx context.Context) error {
	known, err := loadDeployment(c.fs, c.dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if known != "" {
		c.deployment.Store(&known)
	}
	if err := c.openStores(known); err != nil {
		return err
	}
	if n := len(c.Topology().Nodes); n > 1 && c.grid == nil {
		return fault.New(fault.InvalidArgument, "grid", "is missing: the data directory %s is of a mesh of %d nodes", c.dir, n)
	}
	if len(c.peers) == 1 && c.blank() {
		if err := c.found(map[string]uint64{c.self: c.raftID}); err != nil {
			return err
		}
	}
	if !c.blank() {
		if err := c.openEngine(); err != nil {
			return err
		}
	}
	if c.grid != nil {
		if err := c.register(); err != nil {
			return err
		}
	}
	c.joined.Go(c.tend)
	c.joined.Go(func() { c.keepFresh(systemGroup) })
	c.joined.Go(func() { c.keepFresh(dataGroup) })
	if c.hooks.IAM != nil {
		c.joined.Go(c.tellIAM)
	}
	c.joined.Go(c.steward)
	if c.grid != nil {
		c.joined.Go(c.meet)
	}
	if len(c.peers) == 1 && len(c.Topology().Nodes) == 1 {
		// Nobody else is to be waited for.
		return c.WaitReady(ctx)
	}
	return nil
}

// openStores opens the log and the states. A directory that belongs to a mesh
// has them all: what is missing can't be made up for.
func (c *Control) openStores(known string) error {
	id, err := loadRaftID(c.fs, c.dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	path := c.fs.PathJoin(c.dir, "raftlog")
	found, err := disk.Exists(c.fs, path)
	if err != nil {
		return err
	}
	if !found && (id != 0 || known != "") {
		return c.errLost(known, "raft log")
	}
	if c.logs, err = disk.Open(c.fs, path, logSizes(), c.log); err != nil {
		return err
	}
	if err := c.openStates(known); err != nil {
		return err
	}
	if id == 0 && !c.blank() {
		return c.errLost(known, "file "+raftIDFile)
	}
	if id == 0 {
		// After the log: an id without one would be that of a node which forgot
		// what it had promised.
		for id == 0 || id >= 1<<63 {
			id = rand.Uint64()
		}
		if err := saveRaftID(c.fs, c.dir, id); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	c.raftID = id
	return nil
}

// openStates opens the groups' states.
func (c *Control) openStates(known string) (err error) {
	if known != "" {
		for _, g := range []replica.GroupID{systemGroup, dataGroup} {
			s := &state{fs: c.fs, dir: c.stateDir(g)}
			if numbers, err := s.numbers(); err != nil {
				return err
			} else if len(numbers) == 0 {
				return c.errLost(known, "state of group "+groupName(g))
			}
		}
	}
	if c.system, err = openState(c.fs, c.stateDir(systemGroup), systemGroup, c.log, c.showSystem, &c.iam); err != nil {
		return err
	}
	if known != "" && c.blank() {
		return c.errLost(known, "state of group "+groupName(systemGroup))
	}
	if c.data, err = openState(c.fs, c.stateDir(dataGroup), dataGroup, c.log, nil, nil); err != nil {
		return err
	}
	if told := c.hooks.Committed; told != nil {
		for _, s := range []*state{c.system, c.data} {
			s.applied = func(entries int, took time.Duration) { told(groupName(s.group), entries, took) }
		}
	}
	return nil
}

// errLost refuses a data directory of which a part is missing.
func (c *Control) errLost(known, what string) error {
	return fault.New(fault.WrongMesh, "data directory "+c.dir,
		"belongs to mesh %s, and its %s is missing. If it is lost, empty the directory and let the node begin anew by: gridloom node replace %s", known, what, c.self)
}

func (c *Control) stateDir(g replica.GroupID) string {
	return c.fs.PathJoin(c.dir, "state", groupName(g))
}

// blank tells whether this node has no part in any mesh yet.
func (c *Control) blank() bool { return len(c.system.Position().Conf) == 0 }

// openEngine starts the groups, where they aren't running: in a node that has
// a part in a mesh, or knows that it will get one.
func (c *Control) openEngine() error {
	if c.engine.Load() != nil {
		return nil
	}
	e, err := replica.Open(replica.Options{
		ID: c.raftID, Log: c.logs.DB, LogFailed: c.logs.Err,
		Groups: []replica.GroupOptions{
			{ID: systemGroup, Name: groupName(systemGroup), Machine: c.system},
			{ID: dataGroup, Name: groupName(dataGroup), Machine: c.data},
		},
		Send: c.links.send, Fetch: c.fetchSnapshot,
		SnapshotDir: c.fs.PathJoin(c.dir, "snapshot"), FS: c.fs,
		Stand: c.stand, Starved: c.logs.Starved, Changed: c.leaderChanged, Failed: c.fail,
		LogBytes: c.logBytes, Logger: c.log,
	})
	if err != nil {
		return err
	}
	c.engine.Store(e)
	c.joined.Go(func() {
		select {
		case <-c.logs.Failed():
			c.fail(c.logs.Err())
		case <-c.ctx.Done():
		}
	})
	return nil
}

// showSystem takes over what the system group says as it becomes known.
func (c *Control) showSystem(v *view) {
	if old := c.topology.Load(); v.topology.Epoch != old.Epoch || v.topology != old {
		c.topology.Store(v.topology)
		if c.hooks.Topology != nil && v.topology.Epoch != old.Epoch {
			c.hooks.Topology(v.topology)
		}
	}
	c.poke()
}

// poke makes tend look now.
func (c *Control) poke() { nudge(c.poked) }

// nudge wakes whoever waits on a channel with room for one.
func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// leaderChanged is told by the engine.
func (c *Control) leaderChanged(g replica.GroupID, l replica.Leadership) {
	if !l.Leads {
		c.state(g).lose()
	}
	c.mu.Lock()
	close(c.leading)
	c.leading = make(chan struct{})
	c.mu.Unlock()
	c.log.Info("leadership", "group", groupName(g), "term", l.Term, "leader", c.nameOf(l.Leader))
	if told := c.hooks.Led; told != nil {
		told(groupName(g), c.nameOf(l.Leader))
	}
	c.poke()
	if l.Leads {
		nudge(c.stirred)
	}
}
