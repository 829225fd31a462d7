package e2e

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// trouble is one way for a mesh to fail. begin makes it, and returns what ends
// it; between the two, and after it, time passes.
type trouble struct {
	name  string
	begin func(t *testing.T, f *fleet, victim int, random *rand.Rand) (end func())
}

// troubles are all of them. The victim is mostly the leader.
var troubles = []trouble{
	{"partition", partition},
	{"partition from it", partitionFrom},
	{"partition to it", partitionTo},
	{"bridge", bridge},
	{"broken connections", breakConnections},
	{"pause", pause},
	{"kill", kill},
	{"restart", restart},
	{"drain", drain},
}

// partition cuts the victim, and of five nodes another one with it, off from
// the rest.
func partition(_ *testing.T, f *fleet, victim int, random *rand.Rand) func() {
	here := []string{f.name(victim)}
	if rest := f.others(here...); f.size > 3 {
		here = append(here, rest[random.IntN(len(rest))])
	}
	rest := f.others(here...)
	f.network.cut(here, rest)
	f.network.cut(rest, here)
	return f.network.heal
}

// partitionFrom lets the victim hear everybody, and nobody hear it.
func partitionFrom(_ *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	f.network.cut([]string{f.name(victim)}, f.others())
	return f.network.heal
}

// partitionTo lets everybody hear the victim, and it nobody.
func partitionTo(_ *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	f.network.cut(f.others(), []string{f.name(victim)})
	return f.network.heal
}

// bridge parts the mesh in two, and only the victim reaches both.
func bridge(_ *testing.T, f *fleet, victim int, random *rand.Rand) func() {
	rest := f.others(f.name(victim))
	random.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	left, right := rest[:len(rest)/2], rest[len(rest)/2:]
	f.network.cut(left, right)
	f.network.cut(right, left)
	return f.network.heal
}

// breakConnections resets all connections between nodes, again and again: what
// was under way is carried out or not, and asked for once more.
func breakConnections(_ *testing.T, f *fleet, _ int, random *rand.Rand) func() {
	done := make(chan struct{})
	var breaking sync.WaitGroup
	every := time.Duration(100+random.IntN(300)) * time.Millisecond
	breaking.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			f.network.breakAll(false)
			select {
			case <-tick.C:
			case <-done:
				return
			case <-f.network.ctx.Done():
				return
			}
		}
	})
	return func() {
		close(done)
		breaking.Wait()
	}
}

// pause stops the victim with SIGSTOP.
func pause(t *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	p := f.running[victim-1]
	p.pause(t)
	return func() { p.resume(t) }
}

// kill ends the victim with SIGKILL.
func kill(t *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	f.kill(victim)
	return func() { f.start(t, victim) }
}

// restart stops the victim as planned, with SIGTERM.
func restart(t *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	f.stop(t, victim)
	return func() { f.start(t, victim) }
}

// drain has the victim give up what it leads, without stopping it. It is refused, and
// rightly, as long as a mesh that is a moment old has no drives but the victim's.
func drain(t *testing.T, f *fleet, victim int, _ *rand.Rand) func() {
	through := f.env(1 + victim%f.size)
	until(t, 30*time.Second, "a drain of "+f.name(victim), func() bool {
		r := run(t, through, nil, "node", "drain", f.name(victim))
		if r.code != 0 && !strings.Contains(r.stderr, "has the only drives") {
			t.Fatalf("gridloom node drain %s: exit code %d\n%s", f.name(victim), r.code, r.stderr)
		}
		return r.code == 0
	})
	return func() { mustRun(t, through, "node", "drain", "--undo", f.name(victim)) }
}

// plague gives the mesh one trouble after the other, each for some seconds,
// and leaves it whole and ready.
func (f *fleet) plague(t *testing.T, random *rand.Rand, victim func() int, names ...string) {
	t.Helper()
	began := time.Now()
	for _, name := range names {
		i := slices.IndexFunc(troubles, func(k trouble) bool { return k.name == name })
		if i < 0 {
			t.Fatalf("no trouble is called %q", name)
		}
		v := victim()
		t.Logf("%v %s: n%d", time.Since(began).Round(10*time.Millisecond), name, v)
		end := troubles[i].begin(t, f, v, random)
		wait(t, 1500*time.Millisecond+time.Duration(random.IntN(1000))*time.Millisecond)
		end()
		wait(t, 300*time.Millisecond+time.Duration(random.IntN(700))*time.Millisecond)
	}
	f.waitReady(t)
	t.Logf("%v all is well", time.Since(began).Round(10*time.Millisecond))
}

// wait lets time pass: a fault has to last for a while, whatever happens.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test has ended")
	}
}
