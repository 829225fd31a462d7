package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"github.com/gridloom/gridloom/node/fault"
)

// Open opens the index on the owner, and the way to it elsewhere. On the
// owner it returns when the index can be used; elsewhere it doesn't wait for
// the owner: WaitReady does. ctx bounds Open alone.
func Open(ctx context.Context, o Options) (*Control, error) {
	c, err := newControl(&o)
	if err != nil {
		return nil, err
	}
	if c.owner == c.self {
		err = c.openIndex(ctx, &o)
	} else {
		err = c.openRemote(&o)
	}
	if err == nil && c.grid != nil {
		err = c.register()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if c.remote != nil {
		c.joined.Add(1)
		go c.follow()
	}
	return c, nil
}

// newControl makes a Control that holds nothing yet.
func newControl(o *Options) (*Control, error) {
	if o.Self == "" {
		return nil, fault.New(fault.InvalidArgument, "node", "has no name")
	}
	names := append(slices.Clone(o.Peers), o.Self)
	slices.Sort(names)
	c := &Control{
		self:    o.Self,
		owner:   o.Owner,
		dir:     o.Dir,
		fs:      o.fs,
		log:     o.Logger,
		grid:    o.Grid,
		refresh: make(chan struct{}, 1),
		never:   make(chan struct{}),
		changed: make(chan struct{}),
		unready: fault.New(fault.Waiting, "index", "is being opened"),
	}
	if c.owner == "" {
		c.owner = names[0]
	}
	if !slices.Contains(names, c.owner) {
		return nil, fault.New(fault.InvalidArgument, "owner", "%s is none of the nodes %v", c.owner, names)
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.topology.Store(&Topology{})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	known, err := loadDeployment(c.fs, c.dir)
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if known != "" {
		c.deployment.Store(&known)
	}
	return c, nil
}

// stateDir is where the index is kept, on the node that has it.
func (c *Control) stateDir() string { return c.fs.PathJoin(c.dir, "state", "data") }

// openIndex opens the index that this node holds. A new one, with a new id,
// is made in a data directory that belongs to no mesh yet, and nowhere else.
func (c *Control) openIndex(ctx context.Context, o *Options) error {
	known := c.Deployment()
	s, err := openStore(c.fs, c.stateDir(), known == "", c.log)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return fault.New(fault.WrongMesh, "data directory "+c.dir, "belongs to mesh %s, and its index isn't here: another node held it, or it was lost", known)
	}
	if err != nil {
		return err
	}
	clock := o.Clock
	if clock == nil {
		clock = time.Now
	}
	c.local, err = openOwner(s, clock, o.Hooks, func(v *view) { c.topology.Store(v.topology) })
	if err != nil {
		return err
	}
	id, err := c.nameMesh(ctx)
	if err != nil {
		return err
	}
	if err := c.adopt(id); err != nil {
		return err
	}
	c.setUnready(nil)
	return nil
}

// nameMesh gives the id of the mesh, which is the first command of all.
func (c *Control) nameMesh(ctx context.Context) (string, error) {
	v := c.local.acquire()
	id := v.deployment
	c.local.release(v)
	if id != "" {
		return id, nil
	}
	id = uuid.NewString()
	cmd := &Command{Version: CommandVersion, RequestID: randomID(), Init: &Init{Deployment: id}}
	out, err := c.local.propose(ctx, cmd)
	if err == nil {
		_, _, err = out.result(cmd)
	}
	if err != nil {
		return "", fmt.Errorf("naming the mesh: %w", err)
	}
	return id, nil
}

// openRemote prepares the way to the owner.
func (c *Control) openRemote(o *Options) error {
	if o.Grid == nil || o.Conn == nil {
		return fault.New(fault.InvalidArgument, "grid", "is missing: node %s holds the index, not %s", c.owner, c.self)
	}
	switch found, err := storeExists(c.fs, c.stateDir()); {
	case err != nil:
		return err
	case found:
		return fault.New(fault.InvalidArgument, "peers", "make node %s the one that holds the index, and it is here on node %s, in %s: the first of the sorted names must stay the first", c.owner, c.self, c.stateDir())
	}
	c.remote = o.Conn(c.owner)
	c.setUnready(c.waitingFor(nil))
	return nil
}

// adopt takes over the mesh's id, for good: it is on disk when Deployment
// shows it. Another one than before is refused.
func (c *Control) adopt(id string) error {
	switch known := c.Deployment(); {
	case known == id:
		c.confirmed.Store(true)
		return nil
	case known != "":
		return fault.New(fault.WrongMesh, "mesh", "node %s belongs to mesh %s, and the data directory %s to %s", c.owner, id, c.dir, known)
	case uuid.Validate(id) != nil:
		return fault.New(fault.WrongMesh, "mesh", "node %s gives its id as %.100q, which is none", c.owner, id)
	}
	if err := saveDeployment(c.fs, c.dir, id); err != nil {
		return fault.Wrap(fault.Unavailable, "data directory "+c.dir, err)
	}
	c.deployment.Store(&id)
	c.confirmed.Store(true)
	c.log.Info("the mesh has an id", "deployment", id, "owner", c.owner)
	return nil
}
