package control

import (
	"context"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
)

// A full disk is a node's own trouble as long as others have room: who leads
// hands over to one of them, who hasn't room doesn't stand where one of them may,
// and goes to the leader for what it can't take into its own copy. Nodes tell each
// other in their greetings. A node counts as tight until it has a quarter more
// than the reserve, and nothing is handed over on a word from before this node's
// own want, so that leadership doesn't come and go.

// roomHeard is how old this node's want of room is when another's word counts:
// disks that fill up alike have been looked at by both then.
const roomHeard = 2 * time.Second

// roomy tells whether a node has said since a moment that it has room.
func (m *meetings) roomy(name string, since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[name]
	return h != nil && !h.Tight && h.at.After(since)
}

// handedToRoom hands over where this node has no room and a voter has.
func (c *Control) handedToRoom(ctx context.Context, e *replica.Engine, g replica.GroupID, t *Topology, st replica.Status) bool {
	since := &c.tightSince[g]
	if !c.logs.Tight() {
		*since = time.Time{}
		return false
	}
	if since.IsZero() {
		*since = time.Now()
	}
	to := c.successor(t, st)
	if to == 0 || !c.meetings.roomy(c.nameOf(to), since.Add(roomHeard)) {
		return false
	}
	*since = time.Now() // before another try they are heard again
	c.log.Warn("handing over leadership: the disk of the index is nearly full here", "group", groupName(g), "to", c.nameOf(to))
	_ = e.Transfer(ctx, g, to)
	return true
}

// DiskFull tells whether the disk of this node's index has no room for what grows,
// and how many bytes it has; negative: it doesn't say.
func (c *Control) DiskFull() (full bool, free int64) { return c.logs.Room() != nil, c.logs.Free() }

// tight tells whether a node, as it was heard last, has no room to lead.
func (m *meetings) tight(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[name]
	return h != nil && h.Tight
}

// full tells whether a node has said of late that its disk takes nothing more.
func (m *meetings) full(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[name]
	return h != nil && h.Full && time.Since(h.at) < 3*greetEvery
}

// stand tells whether this node should become leader where others could.
func (c *Control) stand() bool {
	return c.mayLead() && !c.logs.Starved() && !(c.logs.Tight() && c.othersHaveRoom())
}

// othersHaveRoom tells whether a voter is there that has room to lead.
func (c *Control) othersHaveRoom() bool {
	last := time.Now().Add(-3 * greetEvery)
	heard := c.meetings.greetedSince(last)
	for _, name := range c.voters() {
		if g := heard[name]; name != c.self && g != nil && !g.Tight && !c.meetings.tooFar(name) && c.conn(name).State() == grid.StateConnected {
			return true
		}
	}
	return false
}

// room refuses what grows, before it is sent, where its leader would: NoSpace. The
// leader knows; elsewhere it is refused where neither it nor this node has room.
func (c *Control) room(g replica.GroupID) error {
	if !c.engine.Load().Leader(g).Leads && !c.meetings.full(c.leader(g)) {
		return nil
	}
	return c.state(g).room()
}

// follows tells whether the copy here keeps up with a group's leader: it leads
// itself, or is connected with it and has room for what comes.
func (c *Control) follows(leader string) bool {
	return leader == c.self || c.connected(leader) && !c.logs.Starved()
}
