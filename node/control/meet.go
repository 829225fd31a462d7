package control

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// greetEvery is how often nodes tell each other how they are, and
	// greetSoon how often while this one isn't part of a mesh yet.
	greetEvery, greetSoon = 2 * time.Second, 100 * time.Millisecond
	greetTimeout          = 2 * time.Second
	// maxClockOffset is how far a leader's clock may be off.
	maxClockOffset = 10 * time.Second
	// clockMemory is for how long a clock that was heard counts: a node that is
	// away still says which of two that are left is wrong.
	clockMemory = time.Hour
)

// meetings is what this node has heard of others.
type meetings struct {
	c     *Control
	began time.Time

	mu     sync.Mutex // guards what follows
	heard  map[string]*meeting
	offset time.Duration // of this node's clock against the others' median
}

// meeting is the last greeting of a node.
type meeting struct {
	greeting
	at     time.Time
	offset time.Duration // of its clock against this node's
}

func (m *meetings) open(c *Control) {
	m.c, m.began, m.heard = c, time.Now(), map[string]*meeting{}
}

// greeting describes this node, for the node of that name.
func (c *Control) greeting(to string) *greeting {
	t := c.Topology()
	g := &greeting{
		Name: c.self, URL: c.peers[c.self], RaftID: c.raftID, Deployment: c.Deployment(), Blank: t.Epoch == 0,
		Founders: c.founders(), Clock: c.clock().UnixNano(), Oldest: oldestCommand, Newest: CommandVersion,
		Secrets: c.fingerprints(), Full: c.logs.Room() != nil, Tight: c.logs.Tight(),
	}
	if e := c.engine.Load(); e != nil {
		g.LeadsData = e.Leader(dataGroup).Leads
	}
	if g.Blank {
		return g
	}
	g.Founders, g.Epoch, g.Waits = g.Founders[:0], t.Epoch, c.members.waits(systemGroup)
	for i := range t.Nodes {
		g.Founders = append(g.Founders, founder{Name: t.Nodes[i].Name, URL: t.Nodes[i].URL, RaftID: t.Nodes[i].RaftID})
	}
	if n := t.Node(to); n != nil {
		g.Bound, g.Admitted = n.RaftID, true
	}
	return g
}

// serveGreet answers a greeting. A name that isn't known here is told so.
func (c *Control) serveGreet(ctx context.Context, g *greeting) (*greeting, error) {
	if c.url(g.Name) != "" && !c.isAt(g.Name, grid.PeerFrom(ctx)) {
		return nil, ToWire(fault.New(fault.PermissionDenied, nodeSubject(g.Name), "isn't known at %s here", grid.PeerFrom(ctx)))
	}
	return c.greeting(g.Name), nil
}

// meet greets the other nodes, until the node ends.
func (c *Control) meet() {
	for {
		c.greetAll()
		every := greetEvery
		if c.Topology().Epoch == 0 || c.Deployment() == "" {
			every = greetSoon
		}
		c.poke()
		if !c.rest(every/2+rand.N(every/2), nil) {
			return
		}
	}
}

// greetAll greets every other node at once.
func (c *Control) greetAll() {
	var wg sync.WaitGroup
	for _, name := range c.others() {
		if c.conn(name).State() != grid.StateConnected {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.ctx, greetTimeout)
			defer cancel()
			asked := c.clock()
			began := time.Now()
			g, err := greetCall.Call(ctx, c.conn(name), c.greeting(name))
			if err != nil {
				if answered(err) {
					c.log.Debug("a node doesn't greet", "peer", name, "error", FromWire(err))
				}
				return
			}
			took := time.Since(began)
			c.meetings.hear(name, g, time.Unix(0, g.Clock).Sub(asked.Add(took/2)))
		})
	}
	wg.Wait()
}

// others names the nodes that this one knows beside itself.
func (c *Control) others() []string {
	names := map[string]bool{}
	for name := range c.peers {
		names[name] = true
	}
	for i := range c.Topology().Nodes {
		names[c.Topology().Nodes[i].Name] = true
	}
	delete(names, c.self)
	all := make([]string, 0, len(names))
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// hear notes a greeting.
func (m *meetings) hear(name string, g *greeting, offset time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[name] = &meeting{greeting: *g, at: time.Now(), offset: offset}
	offsets := []time.Duration{0}
	for _, h := range m.heard {
		if time.Since(h.at) < clockMemory {
			offsets = append(offsets, h.offset)
		}
	}
	median, _ := MedianClock(offsets)
	was := m.offset
	m.offset = -median
	if off, before := tooFar(m.offset), tooFar(was); off != before {
		m.c.log.Warn("this node's clock against the others'", "offset", m.offset.Round(time.Millisecond), "may_lead", !off)
	}
}

func tooFar(d time.Duration) bool { return d.Abs() > maxClockOffset }

// clockOffset is how far this node's clock is ahead of the others' median.
func (m *meetings) clockOffset() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offset
}

// tooFar tells whether a node's clock, as it was heard last, is too far off for
// it to lead.
func (m *meetings) tooFar(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[name]
	return h != nil && tooFar(h.offset+m.offset)
}

// dataLeader names the node that was heard last to lead the data group, "" where
// none was of late.
func (m *meetings) dataLeader() (name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := time.Now().Add(-3 * greetEvery)
	for of, h := range m.heard {
		if h.LeadsData && h.at.After(last) {
			name, last = of, h.at
		}
	}
	return name
}

// greetings gives what was heard.
func (m *meetings) greetings() map[string]*greeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]*greeting, len(m.heard))
	for name, h := range m.heard {
		all[name] = &h.greeting
	}
	return all
}

// greetedSince gives what was heard since a moment.
func (m *meetings) greetedSince(since time.Time) map[string]*greeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]*greeting, len(m.heard))
	for name, h := range m.heard {
		if h.at.After(since) {
			all[name] = &h.greeting
		}
	}
	return all
}

// mayLead tells whether this node may become a leader: commands are stamped by
// its clock.
func (c *Control) mayLead() bool { return !tooFar(c.meetings.clockOffset()) }

// now is the time by this node's clock, put right by the others' where it is too
// far off: log time doesn't go back, so that one command with a wrong stamp would
// hold it up for as long as the clock is ahead.
func (c *Control) now() time.Time {
	now := c.clock()
	if off := c.meetings.clockOffset(); tooFar(off) {
		now = now.Add(-off)
	}
	return now
}

// tend brings the node into its mesh and keeps saying whether the index can be
// used, until the node ends.
func (c *Control) tend() {
	wait, told := time.Duration(0), ""
	for c.rest(wait, c.poked) {
		err := c.look()
		if c.ctx.Err() != nil {
			return
		}
		switch kind := fault.KindOf(err); {
		case err == nil:
			told = ""
		case kind == fault.Corrupted:
			c.fail(err)
		case kind != fault.Waiting && err.Error() != told:
			told = err.Error()
			c.log.Warn("this node can't be part of the mesh", "error", err)
		}
		c.setUnready(err)
		if wait = greetEvery / 2; err != nil {
			wait = greetSoon
		}
	}
}

// look does what can be done now, and says what is still waited for.
func (c *Control) look() error {
	heard := c.meetings.greetings()
	if err := c.sameMesh(heard); err != nil {
		return err
	}
	if c.Topology().Epoch == 0 {
		return c.begin(heard)
	}
	if c.dropped(heard) {
		c.fail(c.errLeft())
		return c.Err()
	}
	ctx, cancel := context.WithTimeout(c.ctx, tryTimeout)
	defer cancel()
	topology, err := c.readOnce(ctx, systemGroup, &Query{Version: QueryVersion, Topology: &TopologyQuery{}})
	if err != nil {
		return c.missing(systemGroup, err)
	}
	mesh, err := c.readOnce(ctx, systemGroup, &Query{Version: QueryVersion, Deployment: &DeploymentQuery{}})
	if err != nil {
		return c.missing(systemGroup, err)
	}
	id, self := mesh.Deployment, topology.Topology.Node(c.self)
	switch {
	case self == nil || self.RaftID != c.raftID:
		c.fail(c.errLeft())
		return c.Err()
	case id == "":
		return fault.New(fault.Waiting, "mesh", "has no id yet")
	}
	return c.adopt(id)
}

// dropped tells whether another node knows that this one has no part in the
// mesh any more. Who was removed can't learn it from the log: the others don't
// send it any further. Until then it goes on: that it isn't in the system group
// any more doesn't mean that a data group can do without its vote.
func (c *Control) dropped(heard map[string]*greeting) bool {
	epoch := c.Topology().Epoch
	for _, g := range heard {
		if g.Deployment != "" && g.Deployment == c.Deployment() && g.Epoch > epoch && g.Bound != c.raftID {
			return true
		}
	}
	return false
}

func (c *Control) errLeft() error {
	return fault.New(fault.WrongMesh, nodeSubject(c.self), "has left the mesh: it was removed, or its name is another's now. To let it come again, empty its data directory %s", c.dir)
}

// sameMesh refuses to begin where another node is of another mesh, or of a
// program that doesn't fit. A node that is part of its mesh goes on: it is the
// other that is refused, by itself.
func (c *Control) sameMesh(heard map[string]*greeting) error {
	if c.confirmed.Load() {
		return nil
	}
	mine := c.Deployment()
	for name, g := range heard {
		if mine != "" && g.Deployment != "" && g.Deployment != mine {
			return fault.New(fault.WrongMesh, "mesh", "node %s belongs to mesh %s, and the data directory %s to %s", name, g.Deployment, c.dir, mine)
		}
		if g.Oldest > oldestCommand || g.Newest < CommandVersion {
			return fault.New(fault.Unimplemented, nodeSubject(name), "applies commands of version %d to %d, and this node writes %d to %d", g.Oldest, g.Newest, oldestCommand, CommandVersion)
		}
	}
	return nil
}

// begin is look for a node that has no part in a mesh yet.
func (c *Control) begin(heard map[string]*greeting) error {
	ids, err := c.judge(heard)
	switch {
	case errors.Is(err, errAdmitted), errors.Is(err, errBound):
		// The groups come with what their leaders send.
		if openErr := c.openEngine(); openErr != nil {
			c.fail(openErr)
			return openErr
		}
		if errors.Is(err, errAdmitted) {
			return c.bind(heard)
		}
		return err
	case err != nil:
		c.missed(systemGroup, err)
		return err
	}
	if err := c.found(ids); err != nil {
		c.fail(err)
		return err
	}
	if err := c.openEngine(); err != nil {
		c.fail(err)
		return err
	}
	return fault.New(fault.Waiting, "mesh", "has begun and has no leader yet")
}

// bind asks the mesh to bind this node's name to its raft id: any node of it, who
// passes it on to the leader.
func (c *Control) bind(heard map[string]*greeting) error {
	cmd := complete(&Command{BindNode: &BindNode{Node: c.self, URL: c.peers[c.self], RaftID: c.raftID}})
	last := joining(errAdmitted)
	for name, g := range heard {
		if g.Blank || !g.Admitted {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, tryTimeout)
		reply, err := relayCall.Call(ctx, c.conn(name), cmd)
		cancel()
		switch {
		case err != nil:
			last = FromWire(err)
		case reply.Elsewhere:
			last = fault.New(fault.Waiting, nodeSubject(name), "doesn't lead the system group; node %q may", reply.Leader)
		case reply.Outcome.Refused:
			_, _, err := reply.Outcome.result(cmd)
			return err
		default:
			return joining(errBound)
		}
	}
	return last
}

// adopt takes over the mesh's id, for good: it is on disk when Deployment
// shows it. Another one than before is refused.
func (c *Control) adopt(id string) error {
	if v := c.vouched.Load(); v != nil && v.deployment != id {
		return fault.New(fault.WrongMesh, "mesh", "its index says %s, and node %s, which takes this one in, is of %s", id, v.by, v.deployment)
	}
	switch known := c.Deployment(); {
	case known == id:
		c.confirmed.Store(true)
		return nil
	case known != "":
		return fault.New(fault.WrongMesh, "mesh", "its index says %s, and the data directory %s belongs to %s", id, c.dir, known)
	}
	if err := saveDeployment(c.fs, c.dir, id); err != nil {
		return fault.Wrap(fault.Unavailable, "data directory "+c.dir, err)
	}
	c.deployment.Store(&id)
	c.confirmed.Store(true)
	c.log.Info("the mesh has an id", "deployment", id)
	return nil
}
