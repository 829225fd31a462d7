package replicatest

import (
	"context"
	"fmt"
	"strings"

	"github.com/gridloom/gridloom/node/control/replica"
)

// maxRounds is in how many rounds everything has to agree once nothing goes
// wrong any more: a round is a tick of every node, 50 ms, and an offer of a
// snapshot that got lost takes 10 s to be repeated, 2 minutes where the
// checkpoint is gone.
const maxRounds = 3000

// heal lets nothing go wrong for a while, and waits until all members of all
// groups have the same state, and new requests are acknowledged.
func (w *world) heal() {
	w.note("heal")
	w.healed = true
	before := w.net
	w.net = network{flying: before.flying}
	acked := make([]int, len(w.groups))
	for i, g := range w.groups {
		acked[i] = len(g.acked)
	}
	for rounds := 0; ; rounds++ {
		if rounds > maxRounds {
			w.fatalf("after %d rounds without faults there is no agreement%s", rounds, w.describe())
		}
		w.count.Rounds++
		w.round()
		done := true
		for i, g := range w.groups {
			if len(g.acked) < acked[i]+2 {
				w.client(g)
				done = false
			}
		}
		if done && w.agreed() {
			break
		}
	}
	for _, g := range w.groups {
		w.everything(g)
	}
	w.bury()
	w.healed = false
	w.net = before
	w.net.flying = nil
	w.newWeather()
}

// round lets every node have a tick, and do what comes of it.
func (w *world) round() {
	for _, h := range w.hosts {
		if h == nil {
			continue
		}
		if !h.up() {
			h.start()
		}
		h.tick()
	}
	for busy := true; busy; {
		busy = false
		for _, h := range w.hosts {
			if h != nil && w.drain(h) {
				busy = true
			}
		}
		for n := len(w.net.flying); n > 0; n-- {
			busy = true
			w.steps++
			w.deliver()
		}
	}
}

// drain does what a node has to do.
func (w *world) drain(h *host) (did bool) {
	one := func(done bool, err error) {
		if err != nil {
			w.fatalf("node %d: %v", h.id, err)
		}
		if done {
			w.steps++
			did = true
		}
	}
	one(h.s.Step(), nil)
	one(h.s.Write())
	one(h.s.Fetch(), nil)
	for _, g := range w.groups {
		one(h.s.Apply(g.id))
	}
	if did {
		h.check()
	}
	return did
}

// agreed tells whether all members of every group have applied the same.
func (w *world) agreed() bool {
	for _, g := range w.groups {
		if g.members = w.members(g); g.members == nil {
			return false
		}
		at := uint64(len(g.entries)) + 1
		for _, m := range g.members {
			h := w.host(m.ID)
			if h == nil {
				w.fatalf("group %d: node %d is a member, and was buried", g.id, m.ID)
			}
			if p := h.s.Progress(g.id); p.Applied != at || p.Last != at {
				return false
			}
		}
	}
	return true
}

// describe says where every group is, for a failure.
func (w *world) describe() string {
	var b strings.Builder
	for i, g := range w.groups {
		fmt.Fprintf(&b, "\ngroup %d: %d entries, %d acknowledged", g.id, len(g.entries)+1, len(g.acked))
		for _, h := range w.hosts {
			if h == nil {
				continue
			}
			s, err := h.s.Status(context.Background(), g.id)
			fmt.Fprintf(&b, "\n  node %d: %+v, %v, conf %x", h.id, s, err, h.machines[i].Position().Conf)
		}
	}
	return b.String()
}

// members are those of a group, by its leader; nil while it is joint.
func (w *world) members(g *history) []replica.Member {
	h := w.leaderOf(g)
	if h == nil {
		return nil
	}
	s, err := h.s.Status(context.Background(), g.id)
	if err != nil {
		w.fatalf("node %d: %v", h.id, err)
	}
	if s.Joint {
		return nil
	}
	return s.Members
}

// everything checks that everything that was ever acknowledged is there.
func (w *world) everything(g *history) {
	for _, member := range g.members {
		m := w.host(member.ID).machines[g.id-1]
		m.compare()
		for _, request := range g.acked[max(0, len(g.acked)-3000):] {
			m.holds(request)
		}
	}
}

// bury ends the nodes that have been removed, for good, and starts new ones in
// their place.
func (w *world) bury() {
	members := map[uint64]bool{}
	removed := map[uint64]bool{}
	for _, g := range w.groups {
		for _, m := range g.members {
			members[m.ID] = true
		}
		for id := range g.removed {
			removed[id] = true
		}
	}
	alive := 0
	for i, h := range w.hosts {
		switch {
		case h == nil:
		case removed[h.id] && !members[h.id]:
			w.note("bury", h.id)
			h.close()
			w.hosts[i] = nil
		default:
			alive++
		}
	}
	for ; alive < maxHosts && alive < len(members)+2; alive++ {
		w.newHost(replica.Position{})
	}
}
