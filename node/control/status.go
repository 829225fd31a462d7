package control

import (
	"context"
	"fmt"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// Status is how this node sees the index.
type Status struct {
	Deployment  string
	Node        string
	ClockOffset time.Duration // of this node's clock against the others' median
	MayLead     bool          // false where that is too far off
	FreeBytes   int64         // of the disk that the index is on; negative where it doesn't say
	Full        bool          // that has no room for what grows
	Groups      []GroupStatus
}

// GroupStatus is one raft group.
type GroupStatus struct {
	Name   string // "system", "data-1"
	Hosted bool   // this node has a part in it; else only Name is known, and Leader perhaps
	Leader string // name of a node; "" where none is known
	Leads  bool   // this node does
	Joint  bool   // it is on the way from one membership to another
	Waits  string // why its members stay as they are though they should change, as its leader says; "" where nothing is in their way

	Term, First, Commit, Applied uint64
	LogBytes                     int64

	Members []MemberStatus
}

// MemberStatus is one node of a group.
type MemberStatus struct {
	Node   string // its name, or its raft id in hexadecimal where no node has that
	Role   string // "voter", "learner", or "leaving": a voter until a change is complete
	Known  bool   // the rest is: it is on the group's leader
	Active bool   // the leader has heard of it of late
	Match  uint64 // last entry that it has
	Lag    uint64 // entries that it is behind
}

// Status describes the index as this node sees it.
func (c *Control) Status(ctx context.Context) (*Status, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	s := &Status{Deployment: c.Deployment(), Node: c.self, ClockOffset: c.meetings.clockOffset(), MayLead: c.mayLead()}
	s.Full, s.FreeBytes = c.DiskFull()
	for _, g := range []replica.GroupID{systemGroup, dataGroup} {
		out := GroupStatus{Name: groupName(g), Hosted: c.hosts(g)}
		if !out.Hosted {
			c.mu.Lock()
			out.Leader = c.hint
			c.mu.Unlock()
			if g == systemGroup {
				out.Leader = ""
			}
			s.Groups = append(s.Groups, out)
			continue
		}
		st, err := c.engine.Load().Status(ctx, g)
		if err != nil {
			return nil, err
		}
		c.describeGroup(&out, st)
		out.Waits = c.waits(g)
		s.Groups = append(s.Groups, out)
	}
	return s, nil
}

// waits is why a group's members stay as they are, as its leader has said: the
// others hear of the system group's with a greeting.
func (c *Control) waits(g replica.GroupID) string {
	e := c.engine.Load()
	if e == nil {
		return ""
	}
	leader := e.Leader(g)
	if leader.Leads || g != systemGroup {
		return c.members.waits(g)
	}
	if h := c.meetings.greetings()[c.nameOf(leader.Leader)]; h != nil {
		return h.Waits
	}
	return ""
}

func (c *Control) describeGroup(out *GroupStatus, st replica.Status) {
	out.Leader, out.Leads, out.Joint = c.nameOf(st.Leader), st.Leads, st.Joint
	out.Term, out.First, out.Commit, out.Applied, out.LogBytes = st.Term, st.First, st.Commit, st.Applied, st.LogBytes
	for _, m := range st.Members {
		ms := MemberStatus{Node: c.nameOf(m.ID), Role: "learner", Known: st.Leads, Active: m.Active, Match: m.Match}
		if ms.Node == "" {
			ms.Node = fmt.Sprintf("%016x", m.ID)
		}
		switch {
		case m.Voter:
			ms.Role = "voter"
		case m.Leaving:
			ms.Role = "leaving"
		}
		if st.Leads && st.Last > m.Match {
			ms.Lag = st.Last - m.Match
		}
		out.Members = append(out.Members, ms)
	}
}

// DataLeader names the node that leads the data group, as far as this one knows,
// and tells whether it is this one. There may be none, or another by now: who
// acts as the leader must do nothing that a second one would spoil. It may be
// asked after Close, and then knows of none: metrics are pushed once more last of
// all.
func (c *Control) DataLeader() (name string, self bool) {
	if c.enter() != nil {
		return "", false
	}
	defer c.leave()
	if !c.hosts(dataGroup) {
		return c.meetings.dataLeader(), false
	}
	l := c.engine.Load().Leader(dataGroup)
	return c.nameOf(l.Leader), l.Leads
}

// AdmitNode lets a node into the mesh: it may come, blank, under that name.
func (c *Control) AdmitNode(ctx context.Context, name, url string) error {
	_, err := c.Propose(ctx, &Command{AdmitNode: &AdmitNode{Node: name, URL: url}})
	return err
}

// RemoveNode has a node leave the mesh, and returns when it is forgotten. A
// node with payload that no other drive of the mesh has stays, unless force says
// that this may be lost: Conflict.
func (c *Control) RemoveNode(ctx context.Context, name string, force bool) error {
	if !force {
		lost, err := c.holdsLast(ctx, name)
		if err != nil {
			return err
		}
		if lost {
			return fault.New(fault.Conflict, nodeSubject(name), "has payload of objects on its drives that is nowhere else and would be lost; drain it first, or force it")
		}
	}
	if _, err := c.Propose(ctx, &Command{MarkNode: &MarkNode{Node: name, Leave: true}}); err != nil {
		return err
	}
	for {
		if left := c.Err(); left != nil && name == c.self {
			return nil // the last that it heard
		} else if left != nil {
			return left
		}
		if c.Topology().Node(name) == nil {
			return nil
		}
		if !c.restFor(ctx, stewardEvery/2) {
			if why := c.waits(systemGroup); why != "" {
				return fault.New(fault.Waiting, nodeSubject(name), "is leaving, and stays for now: %s", why)
			}
			return fault.New(fault.Waiting, nodeSubject(name), "is leaving: its groups are still being changed")
		}
	}
}

// holdsLast tells whether a segment has no copy but on a node's drives, and on
// those of nodes that are going too.
func (c *Control) holdsLast(ctx context.Context, name string) (bool, error) {
	q := UsageQuery{Sole: true}
	t := c.Topology()
	for i := range t.Nodes {
		switch n := &t.Nodes[i]; {
		case n.Name == name:
			q.Drives = n.Drives
		case !n.Leaving && !n.Awaited:
			q.Elsewhere = append(q.Elsewhere, n.Drives...)
		}
	}
	if len(q.Drives) == 0 {
		return false, nil
	}
	q.Sole = len(q.Elsewhere) > 0 // else whatever there is would be lost
	for {
		a, err := c.Read(ctx, &Query{Usage: &q})
		if err != nil {
			return false, err
		}
		if a.Used || !a.More {
			return a.Used, nil
		}
		q.After = a.Next
	}
}

// ReplaceNode lets a node whose data is lost for good come anew.
func (c *Control) ReplaceNode(ctx context.Context, name string) error {
	if name == c.self {
		return fault.New(fault.InvalidArgument, nodeSubject(name), "is the one that was asked, and has its data")
	}
	_, err := c.Propose(ctx, &Command{MarkNode: &MarkNode{Node: name, Replace: true}})
	return err
}

// DrainNode keeps leadership and new payload away from a node, or no longer.
func (c *Control) DrainNode(ctx context.Context, name string, undo bool) error {
	_, err := c.Propose(ctx, &Command{MarkNode: &MarkNode{Node: name, Drain: !undo, Undo: undo}})
	return err
}

// restFor waits for d, and tells whether ctx and the node go on.
func (c *Control) restFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}
