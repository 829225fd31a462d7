package replicatest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/gridloom/gridloom/node/control/replica"
)

// client does one request after the other, each until it is acknowledged.
type client struct {
	request uint64
	tries   int
	host    *host // where it waits for an answer; nil: nowhere
	starts  int   // of that host
	since   int   // step
}

// patience is for how many steps a client waits for an answer.
const patience = 900

// client lets one of a group's clients do something.
func (w *world) client(g *history) bool {
	c := g.clients[w.rng.IntN(len(g.clients))]
	if c.host != nil {
		if c.host.up() && c.host.starts == c.starts && w.steps-c.since < patience {
			return false
		}
		c.host = nil
	}
	if c.request == 0 {
		g.requests++
		c.request, c.tries = g.requests, 0
	}
	h := w.leaderOf(g)
	if h == nil || w.chance(5) {
		h = w.pick()
	}
	if !h.up() {
		return false
	}
	w.note("propose", h.id, uint64(g.id), c.request)
	data := w.o.Model.Propose(g.id, c.request, h.clock())
	switch err := h.s.Propose(context.Background(), g.id, data); {
	case err == nil:
		if c.tries++; c.tries > 1 {
			w.count.Retries++
		}
		c.host, c.starts, c.since = h, h.starts, w.steps
	case !expected(err):
		w.fatalf("node %d: a proposal: %v", h.id, err)
	}
	h.check()
	return true
}

// expected tells whether an error says only that another has to be asked.
func expected(err error) bool {
	var not *replica.NotLeaderError
	return errors.As(err, &not) || errors.Is(err, replica.ErrBusy)
}

// leaderOf finds a node that thinks that it leads; there may be more.
func (w *world) leaderOf(g *history) *host {
	from := w.rng.IntN(len(w.hosts))
	for i := range w.hosts {
		h := w.hosts[(from+i)%len(w.hosts)]
		if h != nil && h.up() && h.s.Leader(g.id).Leads {
			return h
		}
	}
	return nil
}

// answer acknowledges the requests that wait here for entries just applied.
// The answer may be lost: then the client tries again.
func (m *watched) answer(entries []replica.Entry) {
	w := m.h.w
	for i := range entries {
		if len(entries[i].Data) == 0 {
			continue
		}
		request := w.o.Model.Request(entries[i].Data)
		for _, c := range m.g.clients {
			if c.request != request || c.host != m.h || c.starts != m.h.starts || w.doom == m.h {
				continue
			}
			c.host = nil
			if !w.healed && w.chance(5) {
				continue
			}
			m.holds(request)
			m.g.acked = append(m.g.acked, request)
			m.g.seen = max(m.g.seen, entries[i].Index)
			c.request = 0
			w.count.Acknowledged++
		}
	}
}

// reading is a linearizable read under way.
type reading struct {
	host   *host
	starts int
	answer func() (uint64, bool)
	acked  int    // requests that were acknowledged when it began
	seen   uint64 // the latest state anyone had seen then
}

const maxReads = 8 // of a group at a time

// read begins a linearizable read somewhere.
func (w *world) read(g *history) bool {
	h := w.pick()
	if !h.up() || len(g.reads) >= maxReads {
		return false
	}
	w.note("read", h.id, uint64(g.id))
	g.reads = append(g.reads, &reading{h, h.starts, h.s.Ask(g.id), len(g.acked), g.seen})
	w.stepHost(h)
	h.check()
	return true
}

// answerReads ends the reads of a node that can be answered, and those of
// nodes that have crashed.
func (w *world) answerReads(h *host, g *history) {
	g.reads = slices.DeleteFunc(g.reads, func(r *reading) bool {
		if r.starts != r.host.starts || !r.host.up() {
			return true
		}
		if r.host != h {
			return false
		}
		index, ok := r.answer()
		m := h.machines[g.id-1]
		at := m.Position().Index
		if !ok || at < index {
			return false
		}
		w.count.Reads++
		w.note("answer", h.id, uint64(g.id), index)
		if at < r.seen {
			w.fatalf("group %d: a read at node %d shows entry %d, and entry %d was seen when it began", g.id, h.id, at, r.seen)
		}
		for i := range min(r.acked, 4) {
			m.holds(g.acked[r.acked-1-i])
		}
		if r.acked > 0 {
			m.holds(g.acked[w.rng.IntN(r.acked)])
		}
		g.seen = max(g.seen, at)
		return true
	})
}

// transfer hands leadership over, to a member or somebody else.
func (w *world) transfer(g *history) bool {
	h := w.leaderOf(g)
	if h == nil {
		return false
	}
	to := uint64(w.rng.IntN(len(w.hosts)) + 1)
	w.note("transfer", h.id, uint64(g.id), to)
	if err := h.s.Transfer(context.Background(), g.id, to); err != nil && !expected(err) {
		w.fatalf("node %d: a transfer: %v", h.id, err)
	}
	w.count.Transfers++
	h.check()
	return true
}

// change asks for a change of a group's membership.
func (w *world) change(g *history) bool {
	h := w.leaderOf(g)
	if h == nil {
		return false
	}
	s, err := h.s.Status(context.Background(), g.id)
	if err != nil {
		w.fatalf("node %d: %v", h.id, err)
	}
	text := w.newMembership(g, &s)
	if text == "" {
		return false
	}
	w.note("change "+text, h.id, uint64(g.id))
	changes, err := raftpb.ConfChangesFromString(text)
	if err != nil {
		w.fatalf("%v", err)
	}
	if err := h.s.Change(context.Background(), g.id, changes); err == nil {
		w.count.Changes++
	} else if !expected(err) && !errors.Is(err, replica.ErrLast) {
		w.fatalf("node %d: a change of membership: %v", h.id, err)
	}
	h.check()
	return true
}

// newMembership chooses a change, in raft's notation. A node that was to be
// removed at some time is never added again.
func (w *world) newMembership(g *history, s *replica.Status) string {
	var voters, learners, others []uint64
	members := map[uint64]bool{}
	for _, m := range s.Members {
		members[m.ID] = true
		switch {
		case m.Voter:
			voters = append(voters, m.ID)
		case !m.Leaving:
			learners = append(learners, m.ID)
		}
	}
	for _, h := range w.hosts {
		if h != nil && !members[h.id] && !g.removed[h.id] {
			others = append(others, h.id)
		}
	}
	any := func(ids []uint64) uint64 { return ids[w.rng.IntN(len(ids))] }
	switch n := w.rng.IntN(6); {
	case n == 0 && len(others) > 0:
		return fmt.Sprint("l", any(others))
	case n <= 2 && len(learners) > 0 && len(voters) < 5:
		return fmt.Sprint("v", any(learners))
	case n == 3 && len(voters) > 1:
		id := any(voters)
		g.removed[id] = true
		return fmt.Sprint("r", id)
	case n == 4 && len(learners) > 0: // replace
		id := any(voters)
		g.removed[id] = true
		return fmt.Sprintf("v%d r%d", any(learners), id)
	case n == 5 && len(voters) > 1: // demote
		return fmt.Sprint("l", any(voters))
	case len(learners) > 1:
		id := any(learners)
		g.removed[id] = true
		return fmt.Sprint("r", id)
	}
	return ""
}
