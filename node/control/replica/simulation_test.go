package replica_test

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
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
	tags := ""
	if strings.HasPrefix(t.Name(), "TestSimulationLong/") {
		tags = " -tags soak"
	}
	return replicatest.Options{
		Seed: seed, Steps: steps, Model: replicatest.Ledgers{},
		Replay: fmt.Sprintf("go test%s -run '^%s$' ./node/control/replica", tags, t.Name()),
	}
}

// A million steps; a fifth of that under the race detector, which makes a
// step eight times as dear, and has little to find where nothing runs at once.
func TestSimulation(t *testing.T) {
	steps := 50_000
	if raced() {
		steps /= 5
	}
	simulate(t, 20, steps)
}

// raced tells whether the race detector watches.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// The same seed is the same run.
func TestSimulationRepeats(t *testing.T) {
	a := replicatest.Run(t, options(t, 3, 20_000))
	b := replicatest.Run(t, options(t, 3, 20_000))
	if a != b {
		t.Errorf("a second run is %+v, not %+v", b, a)
	}
}
