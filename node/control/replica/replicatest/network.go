package replicatest

import "github.com/zeebo/xxh3"

// network is what is on its way between nodes, and what becomes of it.
type network struct {
	flying []packet
	cut    map[[2]uint64]bool // links that lose everything, from and to
	lose   int                // one in so many is lost; 0: none
	twice  int                // one in so many comes again; 0: none
	mixed  bool               // they come in any order; else nearly in theirs
	// crashes says whether nodes crash.
	crashes bool
}

type packet struct {
	from, to uint64
	batch    []byte
}

// maxFlying bounds what is on its way: beyond that the oldest are lost.
const maxFlying = 400

// send puts a batch on its way.
func (w *world) send(from *host, to uint64, batch []byte) {
	if w.doom == from {
		return // the process has ended
	}
	if len(w.net.flying) >= maxFlying {
		w.net.take(0)
		w.count.Lost++
	}
	w.net.flying = append(w.net.flying, packet{from.id, to, batch})
}

func (n *network) take(i int) packet {
	p := n.flying[i]
	n.flying = append(n.flying[:i], n.flying[i+1:]...)
	return p
}

// deliver brings a batch to where it goes, or loses it.
func (w *world) deliver() bool {
	n := &w.net
	if len(n.flying) == 0 {
		return w.tick()
	}
	i := w.rng.IntN(len(n.flying))
	if !n.mixed {
		i %= 4
	}
	p := n.flying[i]
	if n.twice == 0 || !w.chance(n.twice) {
		n.take(i)
	}
	h := w.host(p.to)
	lost := n.cut[[2]uint64{p.from, p.to}] || n.lose > 0 && w.chance(n.lose)
	if lost || h == nil || !h.up() {
		w.count.Lost++
		w.note("lost", p.from, p.to)
		return true
	}
	w.note("deliver", p.from, p.to, xxh3.Hash(p.batch))
	if err := h.s.Deliver(p.from, p.batch); err != nil {
		w.fatalf("node %d refuses what node %d sent: %v", p.to, p.from, err)
	}
	if !w.chance(6) { // else more gathers
		w.stepHost(h)
	}
	return true
}

// newWeather changes what goes wrong.
func (w *world) newWeather() {
	n := &w.net
	*n = network{flying: n.flying, cut: map[[2]uint64]bool{}}
	switch w.rng.IntN(4) {
	case 0:
		n.lose = 5
	case 1:
		n.lose = 50
	}
	if w.chance(3) {
		n.twice = 10
	}
	n.mixed = w.chance(2)
	n.crashes = w.chance(2)
	for _, h := range w.hosts {
		if h != nil {
			h.speed = 1 + w.rng.IntN(4)
			h.rests = w.chance(5)
			h.lazy = [3]bool{w.chance(6), w.chance(6), w.chance(12)}
		}
	}
	if w.chance(2) {
		w.partition()
	}
	w.note("weather", uint64(n.lose), uint64(n.twice), uint64(len(n.cut)))
}

// partition cuts links: between two parts, of one node, or one way.
func (w *world) partition() {
	w.count.Partitions++
	kind := w.rng.IntN(3)
	alone := uint64(w.rng.IntN(len(w.hosts)) + 1)
	part := w.rng.Uint64()
	oneWay := w.chance(3)
	for a := range uint64(len(w.hosts)) {
		for b := range uint64(len(w.hosts)) {
			var apart bool
			switch from, to := a+1, b+1; kind {
			case 0: // two parts
				apart = part>>(from%64)&1 != part>>(to%64)&1 && (!oneWay || part>>(from%64)&1 == 1)
			case 1: // one node
				apart = from == alone || to == alone && !oneWay
			default: // some links
				apart = w.chance(4)
			}
			if apart && a != b {
				w.net.cut[[2]uint64{a + 1, b + 1}] = true
			}
		}
	}
}
