package replica_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control/replica/replicatest"
)

// simulate runs seeds, steps each.
func simulate(t *testing.T, seeds uint64, steps int) {
	var all replicatest.Counts
	total, began := 0, time.Now()
	for seed := range seeds {
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			r := replicatest.Run(t, options(t, seed, steps))
			total += r.Steps
			all.Add(r.Counts)
		})
	}
	t.Logf("%d steps in %v: %+v", total, time.Since(began).Round(time.Millisecond), all)
}

func options(t *testing.T, seed uint64, steps int) replicatest.Options {
	return replicatest.Options{
		Seed: seed, Steps: steps, Model: replicatest.Ledgers{},
		Replay: fmt.Sprintf("go test -run '^%s$' ./node/control/replica", t.Name()),
	}
}

func TestSimulation(t *testing.T) { simulate(t, 20, 50_000) }

// The same seed is the same run.
func TestSimulationRepeats(t *testing.T) {
	a := replicatest.Run(t, options(t, 3, 20_000))
	b := replicatest.Run(t, options(t, 3, 20_000))
	if a != b {
		t.Errorf("a second run is %+v, not %+v", b, a)
	}
}
