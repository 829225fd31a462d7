package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
)

const (
	// stewardEvery is how often a leader looks after its group.
	stewardEvery = 500 * time.Millisecond
	// stewardTimeout bounds one look.
	stewardTimeout = 10 * time.Second
	// caughtUp is how many entries a learner may be behind when it gets a vote.
	caughtUp = 256
	// handOverTime bounds the handing over of leadership in a planned stop,
	// handOverTry one offer, and handOverPause is between two looks for
	// somebody to make it to.
	handOverTime  = 2 * time.Second
	handOverTry   = 300 * time.Millisecond
	handOverPause = 10 * time.Millisecond
)

// steward looks after the groups that this node leads: the mesh's id, who is
// in a group, and that whoever shouldn't lead hands over. What it does follows
// from the topology, and is begun again by the next leader.
func (c *Control) steward() {
	epoch, linked, unlink := uint64(0), map[string]bool{}, time.Time{}
	for c.rest(stewardEvery, c.stirred) {
		if t := c.Topology(); t.Epoch != epoch {
			c.linkNodes(t, linked)
			epoch, unlink = t.Epoch, time.Now().Add(unlinkAfter)
		} else if !unlink.IsZero() && time.Now().After(unlink) {
			c.unlinkOthers(t, linked)
			unlink = time.Time{}
		}
		for _, g := range []replica.GroupID{systemGroup, dataGroup} {
			e := c.engine.Load()
			leads := e != nil && e.Leader(g).Leads
			if g == systemGroup && !leads {
				c.boxes.forget()
			}
			if !leads {
				c.tightSince[g] = time.Time{}
				c.members.forget(g)
			} else {
				ctx, cancel := context.WithTimeout(c.ctx, stewardTimeout)
				c.tendGroup(ctx, e, g)
				cancel()
			}
		}
	}
}

func (c *Control) tendGroup(ctx context.Context, e *replica.Engine, g replica.GroupID) {
	st, err := e.Status(ctx, g)
	if err != nil || !st.Leads {
		return
	}
	if g == systemGroup && c.Deployment() == "" {
		c.nameMesh(ctx)
	}
	if g == systemGroup && st.Applied >= st.Commit {
		c.tendMaster(ctx)
	}
	st = c.heard(st)
	t, why := c.Topology(), ""
	want := c.dataVoters(t)
	if g == systemGroup {
		want, why = wantedVoters(t, st, c.members.attend(st))
	}
	self := t.Node(c.self)
	if c.handedToRoom(ctx, e, g, t, st) {
		return
	}
	if !c.mayLead() || self != nil && (self.Draining || self.Leaving) || want != nil && !slices.Contains(want, c.raftID) {
		if to := c.successor(t, st); to != 0 {
			if c.members.says(g, fmt.Sprint("to ", to)) {
				c.log.Info("handing over leadership", "group", groupName(g), "to", c.nameOf(to))
			}
			_ = e.Transfer(ctx, g, to) // the next look tries again
			return
		}
	}
	if st.Joint || g == systemGroup && st.Applied < st.Commit {
		return // the members may be ahead of the topology
	}
	changes, waits := plan(g, t, st, want)
	if c.members.wait(g, cmp.Or(waits, why)) {
		c.log.Warn("a group's members stay as they are for now", "group", groupName(g), "reason", cmp.Or(waits, why))
	}
	if len(changes) > 0 {
		text := raftpb.ConfChangesToString(changes)
		err := e.Change(ctx, g, changes)
		switch said := c.members.says(g, fmt.Sprint(text, err)); {
		case said && err == nil:
			c.log.Info("changing a group's members", "group", groupName(g), "changes", text)
		case said:
			c.log.Info("a group's members don't change yet", "group", groupName(g), "changes", text, "error", err)
		}
		return
	}
	if g == systemGroup {
		c.forgetLeft(ctx, t, st)
	}
}

// nameMesh proposes the mesh's id. Where another leader did, it is refused.
func (c *Control) nameMesh(ctx context.Context) {
	v := c.system.acquire()
	named := v.deployment != ""
	c.system.release(v)
	if named {
		return
	}
	cmd := complete(&Command{Init: &Init{Deployment: uuid.NewString()}})
	if _, err := c.propose(ctx, systemGroup, cmd); err != nil {
		c.log.Info("the mesh isn't named yet", "error", err)
	}
}

// dataVoters are the voters that the data group should have: those of the
// system group, or nil while that is changing or one of them is to be replaced.
func (c *Control) dataVoters(t *Topology) (want []uint64) {
	v := c.system.acquire()
	defer c.system.release(v)
	if len(v.conf.GetVotersOutgoing()) > 0 {
		return nil
	}
	for _, id := range v.conf.GetVoters() {
		if !slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.RaftID == id && !n.Leaving }) {
			return nil
		}
		want = append(want, id)
	}
	return want
}

// successor is the best voter to lead in this node's place, 0 where there is
// none: one that is there, has room, and has most of the log. Who is active is unknown for
// a moment after every time that the leader has counted them, so that this comes
// second to a connection.
func (c *Control) successor(t *Topology, st replica.Status) uint64 {
	var first replica.Member
	roomy := false
	for _, m := range st.Members {
		n := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.RaftID == m.ID })
		if !m.Voter || m.ID == c.raftID || n < 0 || c.conn(t.Nodes[n].Name).State() != grid.StateConnected || t.Nodes[n].Draining || t.Nodes[n].Leaving || c.meetings.tooFar(t.Nodes[n].Name) {
			continue
		}
		room := !c.meetings.tight(t.Nodes[n].Name)
		if first.ID == 0 || room && !roomy || room == roomy && (m.Active && !first.Active || m.Active == first.Active && m.Match > first.Match) {
			first, roomy = m, room
		}
	}
	return first.ID
}

// forgetLeft removes the rows of nodes that have left, once they are in no
// group.
func (c *Control) forgetLeft(ctx context.Context, t *Topology, st replica.Status) {
	v := c.data.acquire()
	data := slices.Concat(v.conf.GetVoters(), v.conf.GetVotersOutgoing(), v.conf.GetLearners(), v.conf.GetLearnersNext())
	c.data.release(v)
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if !n.Leaving || slices.Contains(data, n.RaftID) || slices.ContainsFunc(st.Members, func(m replica.Member) bool { return m.ID == n.RaftID }) {
			continue
		}
		cmd := complete(&Command{ForgetNode: &ForgetNode{Node: n.Name}})
		if _, err := c.propose(ctx, systemGroup, cmd); err != nil {
			c.log.Info("a node that has left isn't forgotten yet", "peer", n.Name, "error", err)
		}
	}
}

// handOver gives away what this node leads, before a planned stop: that costs
// the mesh an election's round trip, and not its timeout.
func (c *Control) handOver() {
	e := c.engine.Load()
	if e == nil || e.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
	defer cancel()
	for _, g := range []replica.GroupID{systemGroup, dataGroup} {
		for e.Leader(g).Leads && c.offer(ctx, e, g) {
		}
	}
}

// offer offers the leadership of a group to the best of the others, and tells
// whether it is worth doing so again if they haven't taken it. A leader forgets
// now and then who is there, until he hears of them: that is waited for.
func (c *Control) offer(ctx context.Context, e *replica.Engine, g replica.GroupID) bool {
	changed := c.leaderChange()
	st, err := e.Status(ctx, g)
	if err != nil || !st.Leads {
		return false
	}
	wait := handOverPause
	if to := c.successor(c.Topology(), st); to != 0 {
		if e.Transfer(ctx, g, to) != nil {
			return false
		}
		wait = handOverTry
	} else if !slices.ContainsFunc(st.Members, func(m replica.Member) bool {
		return m.Voter && m.ID != c.raftID && c.conn(c.nameOf(m.ID)).State() == grid.StateConnected
	}) {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}
