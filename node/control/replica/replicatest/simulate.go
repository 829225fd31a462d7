package replicatest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/node/control/replica"
)

// Machine is a state machine that a simulation can look into.
type Machine interface {
	replica.Machine
	// Sum is of the whole state: where two machines have applied as much, it
	// is the same.
	Sum() (uint64, error)
	// Times is how often a request has taken effect.
	Times(request uint64) (int, error)
	Close() error
}

// Model is what a simulation runs.
type Model interface {
	// Open opens a group's machine in dir, which is made where there is none,
	// in a directory that is there; first is where a new one begins.
	Open(disk vfs.FS, dir string, g replica.GroupID, first replica.Position) (Machine, error)
	// Propose makes the entry by which a leader, at a time of its clock, puts a
	// request into the log. The same request has the same effect.
	Propose(g replica.GroupID, request uint64, clock int64) []byte
	// Request tells which request an entry is for.
	Request(data []byte) uint64
}

// Options configures Run.
type Options struct {
	Seed  uint64 // of everything
	Steps int    // events, at least
	Model Model

	Founders int // nodes that found the groups; 0: one to five, by the seed
	Groups   int // 0: one or two, by the seed
	// SumEvery is at how many entries states are compared by their sums; 0
	// and 1: after every write. That the entries are the same is compared always.
	SumEvery uint64
	// Replay says how to run this seed again.
	Replay string
}

// Result is what has happened.
type Result struct {
	Steps  int
	Trace  uint64 // a sum over all events: the same seed, the same trace
	Counts Counts
}

// Counts are how often things have happened.
type Counts struct {
	Elections, Entries, Acknowledged, Retries, Reads               int
	Crashes, Snapshots, Changes, Transfers, Cuts, Partitions, Lost int
	Rounds                                                         int // of everything being healed
}

// Add adds counts.
func (c *Counts) Add(d Counts) {
	c.Elections += d.Elections
	c.Entries += d.Entries
	c.Acknowledged += d.Acknowledged
	c.Retries += d.Retries
	c.Reads += d.Reads
	c.Crashes += d.Crashes
	c.Snapshots += d.Snapshots
	c.Changes += d.Changes
	c.Transfers += d.Transfers
	c.Cuts += d.Cuts
	c.Partitions += d.Partitions
	c.Lost += d.Lost
	c.Rounds += d.Rounds
}

const (
	logBytes  = 12 << 10 // small, so that logs are cut and snapshots needed
	healEvery = 6000     // steps
	maxHosts  = 7        // at a time
)

// world is a simulation.
type world struct {
	t     *testing.T
	o     Options
	rng   *rand.Rand
	trace xxh3.Hasher
	steps int
	count Counts

	hosts  []*host // by id, those that were buried nil
	groups []*history
	net    network
	cache  *pebble.Cache
	doom   *host // is crashing in the middle of what it does
	healed bool  // nothing goes wrong at the moment
}

// Run runs a simulation, and fails the test where something happens that must
// not. It sets the process's cryptographic randomness, from which raft takes
// its timeouts, so that no other test may run at the same time.
func Run(t *testing.T, o Options) Result {
	t.Helper()
	cryptotest.SetGlobalRandom(t, o.Seed)
	w := &world{t: t, o: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), cache: pebble.NewCache(1 << 20)}
	defer w.cache.Unref()
	defer func() {
		for _, h := range w.hosts {
			if h != nil && h.up() {
				h.close()
			}
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			w.fatalf("%v", r)
		}
	}()
	w.found()
	for next := healEvery; w.steps < o.Steps; {
		w.event()
		if w.steps >= next {
			w.heal()
			next = w.steps + healEvery
		}
	}
	w.heal()
	for _, g := range w.groups {
		w.count.Entries += len(g.entries)
	}
	return Result{Steps: w.steps, Trace: w.trace.Sum64(), Counts: w.count}
}

// fatalf ends the test: what must never happen has.
func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d: %s\nreplay: %s", w.o.Seed, w.steps, fmt.Sprintf(format, args...), w.o.Replay)
}

// note adds an event to the trace.
func (w *world) note(kind string, values ...uint64) {
	_, _ = w.trace.WriteString(kind)
	var b [8]byte
	for _, v := range values {
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		_, _ = w.trace.Write(b[:])
	}
}

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

// found starts the first nodes, and two that are nobody's members yet.
func (w *world) found() {
	founders := w.o.Founders
	if founders == 0 {
		founders = 1 + w.rng.IntN(5)
	}
	groups := w.o.Groups
	if groups == 0 {
		groups = 1 + w.rng.IntN(2)
	}
	var voters []uint64
	for i := range founders {
		voters = append(voters, uint64(i+1))
	}
	for i := range groups {
		w.groups = append(w.groups, newHistory(replica.GroupID(i+1), voters))
	}
	for range founders {
		w.newHost(firstPosition(voters))
	}
	for range 2 {
		w.newHost(replica.Position{})
	}
	w.newWeather()
}

// event does one thing that can happen next. Only what has happened counts.
func (w *world) event() {
	var did bool
	switch n := w.rng.IntN(1000); {
	case n < 280:
		did = w.deliver()
	case n < 360:
		did = w.stepHost(w.pick())
	case n < 580:
		did = w.write(w.pick())
	case n < 800:
		did = w.apply(w.pick(), w.anyGroup())
	case n < 890:
		did = w.tick()
	case n < 940:
		did = w.client(w.anyGroup())
	case n < 965:
		did = w.read(w.anyGroup())
	case n < 985:
		did = w.pick().fetch()
	case n < 988:
		did = w.transfer(w.anyGroup())
	case n < 991:
		did = w.change(w.anyGroup())
	case n < 994:
		did = w.writeBack(w.pick())
	case n < 995:
		did = w.jump(w.pick())
	default:
		did = w.fault()
	}
	if did {
		w.steps++
	}
	if w.doom != nil {
		h := w.doom
		w.doom = nil
		h.crashed(h.clone)
	}
}

// pick picks a node, which may be down: then it is started, now and then.
func (w *world) pick() *host {
	for {
		h := w.hosts[w.rng.IntN(len(w.hosts))]
		if h == nil {
			continue
		}
		if !h.up() && w.chance(20) {
			h.start()
		}
		return h
	}
}

func (w *world) anyGroup() *history { return w.groups[w.rng.IntN(len(w.groups))] }

// fault makes something go wrong.
func (w *world) fault() bool {
	if w.chance(8) {
		w.newWeather()
		return true
	}
	h := w.pick()
	if !h.up() || !w.net.crashes || !w.chance(3) {
		return false
	}
	h.crash()
	return true
}
