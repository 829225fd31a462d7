package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestLinearizableOther: whatever happens to nodes that don't keep the index,
// every history is linearizable.
func TestLinearizableOther(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "linear")
	w := newWorkload(f, "linear", seed)
	w.least, w.pace, w.large = 2000, 6*time.Millisecond, true
	stop := w.start(t)
	other := func() int { return 2 + random.IntN(2) }
	f.plague(t, random, other, "partition", "partition from it", "partition to it", "broken connections", "pause", "kill")
	stop()
	w.finish(t)
}
