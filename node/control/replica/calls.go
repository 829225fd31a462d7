package replica

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// call lets do run in run, and waits for it.
func (e *Engine) call(ctx context.Context, do func(*core) error) error {
	if e.stepped == nil { // there is no run: see Stepper
		err := do(e.core)
		e.dispatch(e.core.pump())
		return err
	}
	done := make(chan error, 1)
	if !e.inbox.putUpTo(maxInbox, func(c *core) { done <- do(c) }) {
		return e.refusal()
	}
	return e.await(ctx, done)
}

// refusal is why run takes nothing.
func (e *Engine) refusal() error {
	if e.stop.Err() != nil {
		return ErrClosed
	}
	return ErrBusy
}

// await waits for what run answers.
func (e *Engine) await(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stepped:
		select { // what is done before the end is done
		case err := <-done:
			return err
		default:
			return ErrClosed
		}
	}
}

// Change proposes a change of membership to a group that this node leads, by
// joint consensus where it is more than one step. While another is not yet
// applied, it is ErrBusy, or raft puts an empty entry in its place: Status
// tells what came of it. A leader doesn't make itself less than a voter: it
// takes a step towards that, which is to hand leadership over, or before that
// to make a voter of whoever is to be one, and says ErrBusy. Whoever leads then
// is to be asked again.
func (e *Engine) Change(ctx context.Context, g GroupID, changes []*pb.ConfChangeSingle) error {
	return e.call(ctx, func(c *core) error { return c.change(g, changes) })
}

// Transfer hands the leadership of a group over to a node. It returns at once;
// raft tries for the length of an election timeout.
func (e *Engine) Transfer(ctx context.Context, g GroupID, to uint64) error {
	return e.call(ctx, func(c *core) error {
		group, err := c.led(g)
		if err == nil {
			group.raw.TransferLeader(to)
		}
		return err
	})
}

// Deliver takes in a batch that the node from has sent. The engine keeps the
// memory. An error means that the batch is malformed; nothing of it was taken.
func (e *Engine) Deliver(from uint64, batch []byte) error {
	all, err := parseMessages(batch)
	if err != nil {
		return err
	}
	for _, out := range all {
		if err := check(from, out.message); err != nil {
			return fmt.Errorf("%w: from node %x: %w", errBatch, from, err)
		}
	}
	all = slices.DeleteFunc(all, func(out outgoing) bool {
		r := e.groups[out.group]
		if r == nil || out.message.GetTo() != e.o.ID {
			return true // for a node that was here before, or a group that isn't
		}
		switch out.message.GetType() {
		case pb.MsgSnap:
			r.copies.receive(out)
			return true
		case pb.MsgApp:
			// The leader takes it for lost, and sends it again until there is room.
			return len(out.message.GetEntries()) > 0 && e.o.Starved != nil && e.o.Starved()
		}
		return false
	})
	if len(all) > 0 {
		e.inbox.putUpTo(maxInbox, func(c *core) {
			for _, out := range all {
				c.step(out.group, out.message)
			}
		})
	}
	return nil
}

// Unreachable says that messages to a node get lost.
func (e *Engine) Unreachable(id uint64) {
	e.inbox.putUpTo(maxInbox, func(c *core) {
		for _, g := range c.groups {
			if g.soft.RaftState == raft.StateLeader {
				g.raw.ReportUnreachable(id)
			}
		}
	})
}

// Leader is what this node knows of a group's leader.
func (e *Engine) Leader(g GroupID) Leadership {
	if r := e.groups[g]; r != nil {
		return *r.lead.Load()
	}
	return Leadership{}
}

// Member is one node of a group.
type Member struct {
	ID      uint64
	Voter   bool // counts for majorities, in a joint configuration's new half too
	Leaving bool // voter of a joint configuration's old half only
	// Match is the last entry that the member is known to have, on the leader;
	// elsewhere 0.
	Match  uint64
	Active bool // the leader has heard of it of late
}

// Status describes a group as this node sees it.
type Status struct {
	Leadership
	First, Last, Commit, Applied uint64
	LogBytes                     int64
	// Joint: on the way from one membership to another. When it no longer is,
	// on the leader, the new one is there for good: those who are not in it
	// may go.
	Joint   bool
	Members []Member
}

// Status describes a group.
func (e *Engine) Status(ctx context.Context, g GroupID) (s Status, err error) {
	got := new(struct { // run's, where ctx ends before it is done
		status Status
		since  uint64
	})
	err = e.call(ctx, func(c *core) error {
		group := c.group(g)
		if group == nil {
			return ErrNoGroup
		}
		got.status, got.since = group.status(), group.conf.since
		return nil
	})
	if err != nil {
		return s, err
	}
	s = got.status
	r := e.groups[g]
	s.Applied, s.LogBytes = r.applied.Load(), r.storage.bytes.Load()
	s.Joint = s.Joint || got.since > s.Applied
	return s, nil
}

func (g *group) status() (s Status) {
	raw := g.raw.Status()
	s.Leadership = Leadership{Term: raw.HardState.GetTerm(), Leader: raw.Lead, Leads: raw.RaftState == raft.StateLeader}
	s.Commit = raw.HardState.GetCommit()
	s.First, _ = g.storage.FirstIndex() // the memory's: no error comes of it
	s.Last, _ = g.storage.LastIndex()
	conf := raw.Config
	s.Joint = len(conf.Voters[1]) > 0 || s.Leads && !g.conf.voter
	ids := conf.Voters.IDs()
	for id := range conf.Learners {
		ids[id] = struct{}{}
	}
	for id := range ids {
		_, incoming := conf.Voters[0][id]
		_, outgoing := conf.Voters[1][id]
		m := Member{ID: id, Voter: incoming, Leaving: outgoing && !incoming}
		if p, ok := raw.Progress[id]; ok {
			m.Match, m.Active = p.Match, p.RecentActive || id == raw.ID
			if p.State == tracker.StateSnapshot {
				m.Match = 0
			}
		}
		s.Members = append(s.Members, m)
	}
	slices.SortFunc(s.Members, func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return s
}

// Applied is the last entry that a group's machine has applied.
func (e *Engine) Applied(g GroupID) uint64 {
	if r := e.groups[g]; r != nil {
		return r.applied.Load()
	}
	return 0
}

// Stranded tells whether Close has left a goroutine behind that hangs in a
// write: the stores must not be closed then, and the process has to end.
func (e *Engine) Stranded() bool { return e.log.stalled(e.stalled) }
