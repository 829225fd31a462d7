package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestKillAny kills any node of a mesh under load, again and again; make soak
// does so with ten times the puts.
func TestKillAny(t *testing.T) { killAny(t, 3, 500) }

// killAny puts objects of mixed sizes through all nodes, and meanwhile kills
// one node after the other and starts it again on its data, until so many puts
// were acknowledged: all of those must be there, hash for hash, through every
// node.
func killAny(t *testing.T, size, puts int) {
	f := startFleet(t, size)
	mustRun(t, f.env(1), "mb", "kills")
	load := newLoad(f.meshUnderTest, size)
	load.clients = 24 // many wait for a payload's node
	stop := load.start(0)
	kills := 0
	for ; load.done() < puts || kills < 3; kills++ {
		wait(t, time.Duration(200+rand.IntN(500))*time.Millisecond)
		node := 1 + rand.IntN(size)
		f.kill(node)
		wait(t, time.Duration(rand.IntN(1500))*time.Millisecond)
		f.start(t, node)
		waitReady(t, f.running[node-1], f.http(node))
	}
	f.waitReady(t)
	stop()
	for node := range f.all() {
		load.check(t, node)
	}
	t.Logf("%d kills, %d puts tried, %d acknowledged", kills, len(load.tried), len(load.acknowledged))
}

// done is how many puts were acknowledged.
func (l *load) done() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}
