package replica

import (
	"context"

	pb "go.etcd.io/raft/v3/raftpb"
)

// proposal is data for the log of a group.
type proposal struct {
	group GroupID
	data  []byte
	done  chan error // has room for one
}

// Propose puts data, which must not be empty, into the log of a group that this
// node leads, as the last entry for now. It returns before that is durable or
// agreed, and where ctx ends, the entry may be there all the same.
//
// While the log is being written, proposals gather: the entries of all come into
// the next write anyway, and so they go to the others in one message, too.
func (e *Engine) Propose(ctx context.Context, g GroupID, data []byte) error {
	if len(data) == 0 {
		return errEmpty // it would be taken for one of raft's own
	}
	p := proposal{g, data, make(chan error, 1)}
	if e.stepped == nil { // there is no run: see Stepper
		e.propose([]proposal{p})
		e.dispatch(e.core.pump())
		return <-p.done
	}
	if !e.proposals.putUpTo(maxInbox, p) {
		return e.refusal()
	}
	return e.await(ctx, p.done)
}

// propose proposes what has gathered, in its order.
func (e *Engine) propose(all []proposal) {
	for len(all) > 0 {
		n, size := 1, len(all[0].data)
		for n < len(all) && all[n].group == all[0].group && size+len(all[n].data) <= maxMessageBytes {
			size += len(all[n].data)
			n++
		}
		err := e.core.propose(all[0].group, all[:n])
		for _, p := range all[:n] {
			p.done <- err
		}
		all = all[n:]
	}
}

// propose appends to the log of a group that this node leads: all of it, or none.
func (c *core) propose(id GroupID, all []proposal) error {
	g, err := c.led(id)
	if err != nil {
		return err
	}
	if g.leaving() {
		return ErrBusy
	}
	entries := make([]*pb.Entry, len(all))
	for i := range all {
		entries[i] = &pb.Entry{Data: all[i].data}
	}
	return refused(g.raw.Step(&pb.Message{Type: pb.MsgProp.Enum(), From: new(c.id), Entries: entries}))
}
