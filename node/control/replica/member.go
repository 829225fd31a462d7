package replica

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// membership is what raft goes by: that after the last entry handed out, which
// the machine may not have applied yet.
type membership struct {
	since uint64 // index of the entry that made it so, at most
	voter bool   // this node is one
	sole  bool   // and the only one
	alone bool   // and there are no others either
	first bool   // this node's id is the least of the voters'
	joint bool   // on the way to another
}

// adopt notes a membership.
func (g *group) adopt(cs *pb.ConfState, since uint64) {
	voter := slices.Contains(cs.GetVoters(), g.self)
	sole := voter && len(cs.GetVoters()) == 1 && len(cs.GetVotersOutgoing()) == 0
	g.conf = membership{
		since: since,
		voter: voter,
		sole:  sole,
		first: voter && slices.Min(cs.GetVoters()) == g.self,
		alone: sole && len(cs.GetLearners()) == 0 && len(cs.GetLearnersNext()) == 0,
		joint: len(cs.GetVotersOutgoing()) > 0,
	}
}

// appended notes what changes of membership are in the log.
func (g *group) appended(entries []*pb.Entry) {
	if len(entries) > 0 && entries[0].GetIndex() <= g.changing {
		g.changing = entries[0].GetIndex() - 1 // it was overwritten
	}
	for _, e := range entries {
		if e.GetType() != pb.EntryNormal {
			g.changing = e.GetIndex()
		}
	}
}

// finish gets on with a change of membership that has come to a halt. Raft
// leaves a joint one by itself when it applies an entry, unless leadership is
// being handed over at that moment, and where no entry comes after it, never.
func (g *group) finish() {
	switch {
	case !g.conf.voter:
		g.handOver(g.raw.Status().Config.Voters[0])
	case g.conf.joint && g.changing <= g.handed && g.raw.BasicStatus().Applied >= g.conf.since:
		_ = g.raw.ProposeConfChange(&pb.ConfChangeV2{}) // the next tick tries again
	}
}

// A leader that may not be a voter for long takes no proposals. Raft goes by a
// change of membership once it knows it to be committed, and those who don't
// may need the vote of a node that is none of them any more: it gives that to
// nobody whose log is shorter than its own. So the log of a node that leaves
// must not go on behind the change, and it leads until somebody has all of it.
// For the same reason it never proposes to leave: it hands over first. And that
// a change is agreed is on the leader's disk before anyone is told, since the
// log of who leaves by it may be longer than what a crash leaves of the leader's.

// leaving tells whether this node, which leads, may be about to leave.
func (g *group) leaving() bool { return !g.conf.voter || g.wary > g.handed }

// handOver hands leadership over to one of some nodes, if they vote: to the one that has most of the log, of those that the leader has
// heard of. There may be none of these at the moment; it tells whether there
// are any at all.
func (g *group) handOver(among map[uint64]struct{}) (any bool) {
	var best, match uint64
	s := g.raw.Status()
	for _, id := range slices.Sorted(maps.Keys(among)) {
		if _, voter := s.Config.Voters[0][id]; !voter || id == g.self {
			continue
		}
		any = true
		if p := s.Progress[id]; p.RecentActive && (best == 0 || p.Match > match) {
			best, match = id, p.Match
		}
	}
	if best != 0 {
		g.raw.TransferLeader(best)
	}
	return any
}

// change proposes a change of membership. One that makes no membership is
// refused here: in the log it would end every node that applies it. Where this
// node would be no voter any more, leadership is handed over instead.
func (c *core) change(id GroupID, changes []*pb.ConfChangeSingle) error {
	g, err := c.led(id)
	if err != nil {
		return err
	}
	cc := &pb.ConfChangeV2{Changes: changes}
	next, err := g.possible(cc)
	switch {
	case err != nil:
		return err
	case g.leaving():
		return ErrBusy
	}
	if _, voter := next.Voters[0][c.id]; !voter {
		return g.prepare(cc, next)
	}
	return refused(g.raw.ProposeConfChange(cc))
}

// prepare takes one step towards a change that this node can't propose, since
// it would be no voter any more: it hands leadership over, or, where nobody who
// is to vote does so now, has the change made without itself.
func (g *group) prepare(cc *pb.ConfChangeV2, next tracker.Config) error {
	if g.handOver(next.Voters[0]) {
		return ErrBusy
	}
	others := slices.DeleteFunc(slices.Clone(cc.Changes), func(c *pb.ConfChangeSingle) bool { return c.GetNodeId() == g.self })
	if len(others) == 0 {
		return ErrLast
	}
	first := &pb.ConfChangeV2{Changes: others}
	if _, err := g.possible(first); err != nil {
		return err
	}
	if err := refused(g.raw.ProposeConfChange(first)); err != nil {
		return err
	}
	return ErrBusy
}

// possible gives the membership that a change makes of the present one.
func (g *group) possible(cc *pb.ConfChangeV2) (next tracker.Config, err error) {
	s := g.raw.Status()
	switch {
	case len(cc.Changes) == 0:
		return next, errEmpty
	case len(s.Config.Voters[1]) > 0:
		return next, ErrBusy // the last change is not through yet
	}
	members := tracker.ProgressMap{}
	for id, p := range s.Progress {
		members[id] = &p
	}
	for _, c := range cc.Changes {
		if !validID(c.GetNodeId()) {
			return next, fmt.Errorf("replica: %x can't be a node's raft id", c.GetNodeId())
		}
	}
	changer := confchange.Changer{
		Tracker:   tracker.ProgressTracker{Config: s.Config, Progress: members},
		LastIndex: s.HardState.GetCommit(),
	}
	if leave, joint := cc.EnterJoint(); joint {
		next, _, err = changer.EnterJoint(leave, cc.Changes...)
	} else {
		next, _, err = changer.Simple(cc.Changes...)
	}
	if err != nil {
		return next, fmt.Errorf("replica: no membership comes of this change: %w", err)
	}
	return next, nil
}

// told notes that the commit of a change is on disk.
func (g *group) told(secret uint64) {
	if g.secret == secret {
		g.secret = 0
	}
}
