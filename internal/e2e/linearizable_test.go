package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestLinearizable has clients work on meshes of three and of five processes,
// which meet one trouble after the other; make soak does so for longer, with
// every trouble and twenty seeds.
func TestLinearizable(t *testing.T) {
	t.Run("three", func(t *testing.T) {
		linearizable(t, 3, 1200, 1, rand.Uint64(), "partition", "pause", "kill", "drain")
	})
	t.Run("five", func(t *testing.T) {
		linearizable(t, 5, 1200, 1, rand.Uint64(), "bridge", "partition to it", "broken connections", "restart")
	})
}

// linearizable lets clients do at least so many operations on a mesh of so
// many nodes while it has the troubles, so many times each. The leader has most
// of them. The seed gives the operations and the troubles; what processes make
// of them is different each time.
func linearizable(t *testing.T, size, least, times int, seed uint64, names ...string) {
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := startFleet(t, size)
	mustRun(t, f.env(1), "mb", "linear")
	w := newWorkload(f, "linear", seed)
	w.least, w.pace, w.large = least, 5*time.Millisecond, true
	stop := w.start(t)
	victim := func() int {
		if random.IntN(4) == 0 {
			return 1 + random.IntN(size)
		}
		return f.leader(t)
	}
	for range times {
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		f.plague(t, random, victim, names...)
	}
	stop()
	w.finish(t)
}
