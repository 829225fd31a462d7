package replicatest

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/control/replica"
)

// history is what is known to be true of a group, for good.
type history struct {
	id      replica.GroupID
	leaders map[uint64]uint64 // term to the node that led in it
	entries []uint64          // sums of the entries, in order, from index 2 on
	sums    map[uint64]uint64 // index to the sum of the state there

	clients  []*client
	requests uint64
	acked    []uint64 // requests, in the order of their acknowledgements
	seen     uint64   // the latest state that anyone was shown or told of
	reads    []*reading
	removed  map[uint64]bool  // nodes that were to be removed at some time
	members  []replica.Member // when all last agreed
}

func newHistory(id replica.GroupID, voters []uint64) *history {
	g := &history{id: id, leaders: map[uint64]uint64{}, sums: map[uint64]uint64{}, removed: map[uint64]bool{}}
	for range 3 {
		g.clients = append(g.clients, &client{})
	}
	return g
}

// firstPosition is where a group begins.
func firstPosition(voters []uint64) replica.Position {
	conf, err := proto.Marshal(&raftpb.ConfState{Voters: voters})
	if err != nil {
		panic(err)
	}
	return replica.Position{Index: 1, Term: 1, Conf: conf}
}

// leads notes a change of leadership: at most one node leads in a term.
func (w *world) leads(h *host, g *history, l replica.Leadership) {
	if !l.Leads || w.doom == h {
		return
	}
	w.note("leads", h.id, uint64(g.id), l.Term)
	switch other, known := g.leaders[l.Term]; {
	case known && other != h.id:
		w.fatalf("group %d: in term %d nodes %d and %d lead", g.id, l.Term, other, h.id)
	case !known:
		g.leaders[l.Term] = h.id
		w.count.Elections++
	}
}

// watched is a machine whose calls are checked.
type watched struct {
	Machine
	h    *host
	g    *history
	last replica.Progress // in this run of the node
}

// Apply implements replica.Machine.
func (m *watched) Apply(entries []replica.Entry) error {
	m.h.risk(4000)
	for _, e := range entries {
		m.entry(e)
	}
	if every := m.h.w.o.SumEvery; every > 1 {
		for len(entries) > 0 {
			n := min(every-(entries[0].Index-1)%every, uint64(len(entries)))
			if err := m.part(entries[:n]); err != nil {
				return err
			}
			entries = entries[n:]
		}
		return nil
	}
	return m.part(entries)
}

func (m *watched) part(entries []replica.Entry) error {
	if err := m.Machine.Apply(entries); err != nil {
		return err
	}
	if got, want := m.Machine.Position().Index, entries[len(entries)-1].Index; got != want {
		return fmt.Errorf("the machine is at %d, not %d", got, want)
	}
	m.compare()
	m.answer(entries)
	m.h.risk(4000)
	return nil
}

// Install implements replica.Machine.
func (m *watched) Install(dir string) error {
	m.h.risk(20)
	if err := m.Machine.Install(dir); err != nil {
		return err
	}
	m.h.w.count.Snapshots++
	m.compare()
	m.h.risk(5) // the log doesn't know of it yet
	return nil
}

// Checkpoint implements replica.Machine.
func (m *watched) Checkpoint(dir string) (replica.Position, error) {
	m.h.risk(50)
	return m.Machine.Checkpoint(dir)
}

// entry compares an entry with what is at its index elsewhere.
func (m *watched) entry(e replica.Entry) {
	b := binary.BigEndian.AppendUint64(nil, e.Term)
	b = append(append(b, e.Data...), e.Conf...)
	sum, g := xxh3.Hash(b), m.g
	switch i := int(e.Index) - 2; {
	case i < len(g.entries) && g.entries[i] != sum:
		m.h.w.fatalf("group %d: entry %d of node %d isn't what another has applied", g.id, e.Index, m.h.id)
	case i == len(g.entries) && m.h.w.doom != m.h:
		g.entries = append(g.entries, sum)
	case i > len(g.entries) && m.h.w.doom != m.h:
		m.h.w.fatalf("group %d: node %d applies entry %d, and nobody has had the one before", g.id, m.h.id, e.Index)
	}
}

// compare compares the state's sum with that of others at the same index.
func (m *watched) compare() {
	w, at := m.h.w, m.Machine.Position().Index
	if at == 0 || w.o.SumEvery > 1 && at%w.o.SumEvery != 0 {
		return
	}
	sum, err := m.Machine.Sum()
	if err != nil {
		w.fatalf("node %d: %v", m.h.id, err)
	}
	if want, known := m.g.sums[at]; !known {
		m.g.sums[at] = sum
	} else if want != sum {
		w.fatalf("group %d: the state of node %d at entry %d isn't that of another", m.g.id, m.h.id, at)
	}
}

// check compares a node with itself a moment ago, and answers reads.
func (h *host) check() {
	w := h.w
	for i, g := range w.groups {
		m := h.machines[i]
		p := h.s.Progress(g.id)
		switch {
		case p.Term < m.last.Term || p.Commit < m.last.Commit || p.Applied < m.last.Applied || p.First < m.last.First:
			w.fatalf("group %d: node %d goes back from %+v to %+v", g.id, h.id, m.last, p)
		case p.Applied > p.Commit || p.First > p.Applied+1:
			w.fatalf("group %d: node %d is at %+v", g.id, h.id, p)
		}
		if p.First != m.last.First && m.last.First != 0 {
			w.count.Cuts++
		}
		m.last = p
		w.answerReads(h, g)
	}
	if err := h.s.Err(); err != nil {
		w.fatalf("node %d has failed: %v", h.id, err)
	}
}

// holds checks that a machine that has applied as much as was seen shows a
// request's effect, once.
func (m *watched) holds(request uint64) {
	if n, err := m.Times(request); n != 1 || err != nil {
		m.h.w.fatalf("group %d: node %d, at entry %d: request %d was acknowledged, and has taken effect %d times, %v",
			m.g.id, m.h.id, m.Position().Index, request, n, err)
	}
}
