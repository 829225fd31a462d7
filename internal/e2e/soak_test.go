//go:build soak

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestSoakRealFiles has a file of 256 MiB.
func TestSoakRealFiles(t *testing.T) { realFiles(t, 300, 256<<20, true) }

// TestSoakKills kills a mesh twenty times under load.
func TestSoakKills(t *testing.T) { killUnderLoad(t, 20) }

// TestSoakKillAny kills single nodes of five during 5,000 puts.
func TestSoakKillAny(t *testing.T) { killAny(t, 5, 5000) }

// TestSoakLinearizable is 20,000 operations with every trouble, for each of
// twenty seeds, on meshes of three and of five by turns.
func TestSoakLinearizable(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var names []string
			for _, k := range troubles {
				names = append(names, k.name)
			}
			linearizable(t, 3+2*int(seed%2), 20_000, 4, seed, names...)
		})
	}
}

// TestSoakColdStart makes fifty meshes of five nodes that start at the same
// moment.
func TestSoakColdStart(t *testing.T) { coldStarts(t, 50) }

// TestSoakLateStart has a client wait for meshes whose nodes come up in any
// order, seconds apart.
func TestSoakLateStart(t *testing.T) { lateStart(t, 10, 3*time.Second) }

// TestSoakFailover measures how long nothing is committed when a leader is
// killed, thirty times, and when it stops as planned, ten times.
func TestSoakFailover(t *testing.T) {
	f := newFleet(t, 3)
	f.build(t)
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "failover")
	w := newWriters(t, f)
	measure := func(what string, times int, gap func(*testing.T) time.Duration) (median, longest time.Duration) {
		var gaps []time.Duration
		for range times {
			gaps = append(gaps, gap(t))
		}
		slices.Sort(gaps)
		t.Logf("%s: %d times, nothing committed for p50 %v, max %v", what, times, gaps[times/2], gaps[times-1])
		return gaps[times/2], gaps[times-1]
	}
	if median, longest := measure("killed", 30, w.kill); median > 1500*time.Millisecond || longest > 3*time.Second {
		t.Errorf("after a kill: p50 %v, max %v; want 1.5 s and 3 s at most", median, longest)
	}
	if _, longest := measure("stopped", 10, w.planned); longest > 200*time.Millisecond {
		t.Errorf("at a planned stop: max %v; want 200 ms at most", longest)
	}
}

// TestSoakRestart measures how long a lone node with an empty store takes from
// its start until it serves, after it was killed, ten times.
func TestSoakRestart(t *testing.T) {
	f := newFleet(t, 1)
	f.build(t)
	f.startAll(t)
	var took []time.Duration
	for range 10 {
		f.kill(1)
		began := time.Now()
		f.start(t, 1)
		f.waitReady(t)
		took = append(took, time.Since(began).Round(time.Millisecond))
	}
	t.Logf("serves after %v", took)
	if longest := slices.Max(took); longest > time.Second {
		t.Errorf("max %v; want 1 s at most", longest)
	}
}

// build builds the program as its users have it: without the race detector.
func (f *fleet) build(t *testing.T) {
	t.Helper()
	f.program = filepath.Join(t.TempDir(), "gridloom")
	if out, err := exec.Command("go", "build", "-o", f.program, "github.com/gridloom/gridloom/cmd/gridloom").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
}

// TestSoakHostile is everything hostile with many clients: 2,000 with slow
// headers, and 200,000 frames of every kind from eight at once.
func TestSoakHostile(t *testing.T) {
	t.Run("slow", func(t *testing.T) { slowloris(t, 2000) })
	t.Run("HTTP/2", func(t *testing.T) { hostileHTTP2(t, 8, 200_000) })
}

// TestSoakNodeLost has 10,000 copies to bring back.
func TestSoakNodeLost(t *testing.T) { nodeLost(t, 10_000, 2*time.Minute) }

// TestSoakBitRot flips a bit in a copy of each of 200 objects.
func TestSoakBitRot(t *testing.T) { bitRot(t, 200, 3<<20, time.Minute) }

// TestSoakPoolLate starts the second pool twenty seconds after the first.
func TestSoakPoolLate(t *testing.T) { poolLate(t, 20*time.Second, 2*time.Second) }
