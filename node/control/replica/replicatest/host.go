package replicatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/replica"
)

// host is a node: a disk, and what runs on it.
type host struct {
	w     *world
	id    uint64
	first replica.Position // where its groups begin
	speed int              // how often it ticks, as against the others
	lazy  [3]bool          // it hardly ever: writes, applies, steps
	rests bool             // it should not lead
	ahead time.Duration    // how far its clock is wrong
	ticks int

	disk     *vfs.MemFS
	clone    *vfs.MemFS // what is left of it when it crashes in the middle
	starts   int
	log      *pebble.DB
	machines []*watched
	s        *replica.Stepper // nil: it is down
}

// host finds a node, nil where there is none any more.
func (w *world) host(id uint64) *host {
	if id == 0 || id > uint64(len(w.hosts)) {
		return nil
	}
	return w.hosts[id-1]
}

// newHost starts a node with an empty disk, under a new id.
func (w *world) newHost(first replica.Position) {
	h := &host{w: w, id: uint64(len(w.hosts) + 1), first: first, speed: 1, disk: vfs.NewCrashableMem()}
	w.hosts = append(w.hosts, h)
	if err := errors.Join(h.disk.MkdirAll("state", 0o700), syncDir(h.disk, "/"), syncDir(h.disk, "")); err != nil {
		w.fatalf("%v", err)
	}
	h.start()
}

func (h *host) up() bool { return h.s != nil }

// now is the time since it was made, which a clock that jumps doesn't change.
func (h *host) now() time.Time {
	return time.Unix(1e9, 0).Add(time.Duration(h.ticks) * 50 * time.Millisecond)
}

// clock is the time of day by its clock.
func (h *host) clock() int64 { return h.now().Add(h.ahead).UnixNano() }

// storeOptions are for a store that does nothing in the background that shows:
// it neither compacts, nor flushes, which would make durable what nobody synced.
func storeOptions(disk vfs.FS, cache *pebble.Cache) *pebble.Options {
	return &pebble.Options{
		FS: disk, Cache: cache, Logger: silent{}, MemTableSize: 16 << 20,
		DisableAutomaticCompactions: true, DisableTableStats: true, L0StopWritesThreshold: 1 << 20,
	}
}

// start starts the node on its disk.
func (h *host) start() {
	w := h.w
	w.note("start", h.id)
	h.starts++
	var err error
	if h.log, err = pebble.Open("log", storeOptions(h.disk, w.cache)); err != nil {
		w.fatalf("node %d: %v", h.id, err)
	}
	if h.starts%8 == 0 { // every start leaves a table behind
		if err := h.log.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
			w.fatalf("node %d: %v", h.id, err)
		}
	}
	o := replica.Options{
		ID: h.id, Log: h.log, FS: h.disk, SnapshotDir: "snapshots", LogBytes: logBytes,
		LogFailed: func() error { h.risk(4000); return nil },
		Send:      func(to uint64, batch []byte) { w.send(h, to, batch) },
		Fetch:     h.copy,
		Stand:     func() bool { return !h.rests },
		Changed:   func(g replica.GroupID, l replica.Leadership) { w.leads(h, w.groups[g-1], l) },
	}
	h.machines = nil
	for _, g := range w.groups {
		m, err := w.o.Model.Open(h.disk, fmt.Sprintf("state/%d", g.id), g.id, h.first)
		if err != nil {
			w.fatalf("node %d: group %d: %v", h.id, g.id, err)
		}
		watched := &watched{Machine: m, h: h, g: g}
		watched.compare()
		h.machines = append(h.machines, watched)
		o.Groups = append(o.Groups, replica.GroupOptions{ID: g.id, Name: fmt.Sprint("group", g.id), Machine: watched})
	}
	if h.s, err = replica.OpenStepped(o, h.now); err != nil {
		w.fatalf("node %d: %v", h.id, err)
	}
	h.check()
}

// copy fetches a snapshot. The network may break off in the middle.
func (h *host) copy(_ context.Context, from uint64, g replica.GroupID, at replica.Position, dir string) error {
	w := h.w
	peer := w.host(from)
	if peer == nil || !peer.up() || w.net.cut[[2]uint64{from, h.id}] {
		return errors.New("it isn't there")
	}
	source, release, ok := peer.s.Snapshot(g, h.id, at.Index)
	if !ok {
		return errors.New("it has no such snapshot")
	}
	defer release()
	if !w.healed && w.chance(4) {
		return errors.New("broken off")
	}
	return CopyDir(peer.disk, source, h.disk, dir)
}

// risk lets the node crash here, once in n times: what it has done up to here
// is on its disk as far as it was synced, and what it does from here on in the
// present event never happens.
func (h *host) risk(n int) {
	if !h.w.healed && h.s != nil && h.w.doom == nil && h.w.chance(n) {
		h.w.doom, h.clone = h, h.disk.CrashClone(vfs.CrashCloneCfg{})
		h.w.note("doom", h.id)
	}
}

// crash ends the node between two events.
func (h *host) crash() {
	h.crashed(h.disk.CrashClone(vfs.CrashCloneCfg{}))
}

func (h *host) crashed(disk *vfs.MemFS) {
	h.w.note("crash", h.id)
	h.w.count.Crashes++
	h.close()
	h.disk = disk
}

// close ends what runs on the node.
func (h *host) close() {
	h.s.Close()
	h.s = nil
	var err error
	for _, m := range h.machines {
		err = errors.Join(err, m.Close())
	}
	if err := errors.Join(err, h.log.Close()); err != nil {
		h.w.fatalf("node %d: %v", h.id, err)
	}
}

// writeBack makes durable what nobody has asked to, as systems do.
func (w *world) writeBack(h *host) bool {
	if !h.up() {
		return false
	}
	var err error
	i := w.rng.IntN(len(h.machines) + 1)
	if i < len(h.machines) {
		err = h.machines[i].Machine.Sync()
	} else {
		err = h.log.LogData(nil, pebble.Sync)
	}
	if err != nil {
		w.fatalf("node %d: %v", h.id, err)
	}
	w.note("write back", h.id, uint64(i))
	return true
}

// jump makes a node's clock jump, and some of its time pass at once.
func (w *world) jump(h *host) bool {
	if !h.up() {
		return false
	}
	h.ahead += time.Duration(w.rng.Int64N(int64(4*time.Hour))) - 2*time.Hour
	for range w.rng.IntN(40) {
		h.tick()
	}
	return true
}

// tick lets time pass on some node.
func (w *world) tick() bool {
	h := w.pick()
	if !h.up() || w.rng.IntN(4) >= h.speed {
		return false
	}
	h.tick()
	return true
}

func (h *host) tick() {
	h.w.note("tick", h.id)
	h.ticks++
	h.s.Tick()
	h.check()
}

// What a node may be slow at for a while.
const (
	lazyWrite = iota
	lazyApply
	lazyStep
)

// idles tells whether a node that is slow at something doesn't do it now.
func (h *host) idles(at int) bool { return h.lazy[at] && !h.w.healed && !h.w.chance(30) }

func (w *world) stepHost(h *host) bool {
	if !h.up() || h.idles(lazyStep) || !h.s.Step() {
		return false
	}
	w.note("step", h.id)
	h.check()
	return true
}

func (w *world) write(h *host) bool {
	if !h.up() || h.idles(lazyWrite) {
		return false
	}
	did, err := h.s.Write()
	w.did(h, "write", did, err)
	if did && w.doom == nil && w.net.crashes && w.chance(60) {
		h.crash() // with what it has just promised
	}
	return did
}

func (w *world) apply(h *host, g *history) bool {
	if !h.up() || h.idles(lazyApply) {
		return false
	}
	did, err := h.s.Apply(g.id)
	w.did(h, "apply", did, err)
	return did
}

// did is what follows when a node has done something: the responses are taken
// in at once, mostly.
func (w *world) did(h *host, what string, did bool, err error) {
	if err != nil {
		w.fatalf("node %d: %s: %v", h.id, what, err)
	}
	if !did {
		return
	}
	w.note(what, h.id)
	if w.doom == h {
		return
	}
	if w.healed || !w.chance(4) {
		w.stepHost(h)
	}
	h.check()
}

func (h *host) fetch() bool {
	if !h.up() || !h.s.Fetch() {
		return false
	}
	h.w.note("fetch", h.id)
	h.check()
	return true
}

// silent is a logger for stores.
type silent struct{}

// Infof implements pebble.Logger.
func (silent) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (silent) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger.
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
