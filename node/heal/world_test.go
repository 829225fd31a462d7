package heal

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// world is a mesh as healing sees it, in memory: an index and drives that do
// what they promise in the plainest way, with time that may be virtual. It looks
// at every change for what must never happen.
type world struct {
	t testing.TB

	mu       sync.Mutex // guards what follows
	topo     control.Topology
	drives   map[string]*fakeDrive
	segs     map[[16]byte]*fakeSegment
	sizes    map[[16]byte]int64 // of all that there ever were
	next     uint64
	garbage  map[string]map[[16]byte]int64 // by drive: since when
	scrub    control.ScrubState
	replicas int
	keys     []string                              // of all segments, in order; nil when they have changed
	byKey    map[string][16]byte                   // their ids
	copyErr  func(drive string, id [16]byte) error // an item's
	indexErr func() error

	counts     counts
	copied     [][16]byte // in order
	violations []string
}

// counts is how often something was asked for.
type counts struct{ reads, proposals, copies, checks int }

// n is the counts so far.
func (w *world) n() counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts
}

type fakeDrive struct {
	state dataio.State
	away  bool
	since time.Time
	total int64
	hang  bool                // its node doesn't answer copies or checks
	files map[[16]byte]string // how it is bad; "" is well
	used  int64
}

type fakeSegment struct {
	key    string
	size   int64
	drives []string
	heal   bool
	lost   bool // every good copy was destroyed by the test
	spoilt time.Time
}

var worldBucket = [16]byte{0xb}

func newWorld(t testing.TB) *world {
	return &world{t: t, drives: make(map[string]*fakeDrive), segs: make(map[[16]byte]*fakeSegment), sizes: make(map[[16]byte]int64),
		garbage: make(map[string]map[[16]byte]int64), replicas: 3}
}

// node adds a node with drives, "n1/a" and so on.
func (w *world) node(name, pool, zone string, drives int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := control.Node{Name: name, Pool: pool, Zone: zone}
	for i := range drives {
		id := fmt.Sprintf("%s/%c", name, 'a'+i)
		n.Drives = append(n.Drives, id)
		w.drives[id] = &fakeDrive{total: 1 << 40, files: make(map[[16]byte]string)}
	}
	w.topo.Nodes = append(w.topo.Nodes, n)
	slices.SortFunc(w.topo.Nodes, func(a, b control.Node) int { return cmp.Compare(a.Name, b.Name) })
	w.topo.Epoch++
}

// change changes the topology.
func (w *world) change(f func(t *control.Topology)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := control.Topology{Epoch: w.topo.Epoch + 1}
	for _, n := range w.topo.Nodes {
		n.Drives, n.DrainingDrives = slices.Clone(n.Drives), slices.Clone(n.DrainingDrives)
		t.Nodes = append(t.Nodes, n)
	}
	f(&t)
	w.topo = t
}

func (w *world) drain(drive string, on bool) {
	w.change(func(t *control.Topology) {
		n, _ := t.Drive(drive)
		if n == nil {
			return
		}
		n.DrainingDrives = slices.DeleteFunc(n.DrainingDrives, func(id string) bool { return id == drive })
		if on {
			n.DrainingDrives = append(n.DrainingDrives, drive)
			slices.Sort(n.DrainingDrives)
		}
	})
}

// remove takes a drive out of the mesh, with what is on it.
func (w *world) remove(drive string) {
	w.change(func(t *control.Topology) {
		if n, _ := t.Drive(drive); n != nil {
			n.Drives = slices.DeleteFunc(n.Drives, func(id string) bool { return id == drive })
			n.DrainingDrives = slices.DeleteFunc(n.DrainingDrives, func(id string) bool { return id == drive })
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.destroyedLocked(drive, func([16]byte) bool { return true })
	delete(w.drives, drive)
}

// away has a drive be away, or back.
func (w *world) away(drive string, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.drives[drive]
	if d.away = away; away {
		d.since = time.Now()
	} else {
		d.since = time.Time{}
	}
}

// spoil makes a copy bad.
func (w *world) spoil(drive string, id [16]byte, how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.destroyedLocked(drive, func(other [16]byte) bool { return other == id })
	if how == "missing" {
		w.fileLocked(drive, id, how, false)
	} else {
		w.fileLocked(drive, id, how, true)
	}
}

// fileLocked has a file be on a drive, or not.
func (w *world) fileLocked(drive string, id [16]byte, how string, there bool) {
	d := w.drives[drive]
	size := w.sizes[id]
	if _, has := d.files[id]; has {
		d.used -= size
	}
	delete(d.files, id)
	if there {
		d.files[id] = how
		d.used += size
	}
}

// destroyedLocked notes segments whose last good copy goes with some of a
// drive's files.
func (w *world) destroyedLocked(drive string, which func([16]byte) bool) {
	for id, s := range w.segs {
		if which(id) {
			s.spoilt = time.Now()
		}
		if which(id) && slices.Contains(s.drives, drive) && !slices.ContainsFunc(s.drives, func(d string) bool { return d != drive && w.goodLocked(d, id) }) {
			s.lost = true
		}
	}
}

// goodLocked says whether there is a good copy, be it out of reach for now.
func (w *world) goodLocked(drive string, id [16]byte) bool {
	d := w.drives[drive]
	if d == nil {
		return false
	}
	how, has := d.files[id]
	return has && how == ""
}

// put adds an object of one segment with copies on some drives.
func (w *world) put(size int64, drives ...string) [16]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], w.next*0x9e3779b97f4a7c15)
	id[15] = 1
	w.sizes[id] = size
	for _, d := range drives {
		w.fileLocked(d, id, "", true)
	}
	w.keys = nil
	w.segs[id] = &fakeSegment{key: fmt.Sprintf("k%06d", w.next), size: size, drives: slices.Clone(drives)}
	return id
}

// short notes that a segment hasn't all its copies.
func (w *world) short(id [16]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.segs[id].heal = true
}

// forget deletes an object.
func (w *world) forget(id [16]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.segs[id].drives {
		w.trashLocked(d, id)
	}
	delete(w.segs, id)
	w.keys = nil
}

func (w *world) trashLocked(drive string, id [16]byte) {
	if w.garbage[drive] == nil {
		w.garbage[drive] = make(map[[16]byte]int64)
	}
	w.garbage[drive][id] = time.Now().UnixNano()
}

// reclaim removes the garbage of the drives that are there, as their nodes do.
func (w *world) reclaim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for drive, ids := range w.garbage {
		if d := w.drives[drive]; d != nil && !d.away {
			for id := range ids {
				w.fileLocked(drive, id, "", false)
			}
			delete(w.garbage, drive)
		}
	}
}

func (w *world) Topology() *control.Topology {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.topo
	return &t
}

func (w *world) Health() []object.DriveHealth {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []object.DriveHealth
	for i := range w.topo.Nodes {
		n := &w.topo.Nodes[i]
		for _, id := range n.Drives {
			d := w.drives[id]
			used := d.used
			_, draining := w.topo.Drive(id)
			all = append(all, object.DriveHealth{ID: id, Node: n.Name, Pool: n.Pool, Zone: n.Zone, State: d.state, Reachable: !d.away,
				Draining: draining, TotalBytes: d.total, UsedBytes: used, FreeBytes: d.total - used, Since: d.since})
		}
	}
	return all
}

func (w *world) PlaceCopy(seg control.SegmentCopies, bad map[string]bool) (string, bool) {
	v := newView(w.Topology(), w.Health(), sight{}, w.replicas, time.Hour, time.Now())
	pool := v.home(seg.Drives)
	if pool == "" {
		free := int64(-1)
		for _, name := range sortedKeys(v.pools) {
			if p := v.pools[name]; p.stay > 0 && p.total-p.used > free {
				pool, free = name, p.total-p.used
			}
		}
	}
	best, spread := "", -1
	for _, id := range v.ids {
		d := v.drives[id]
		if d.Pool != pool || bad[id] || slices.Contains(seg.Drives, id) || !d.writable || d.Draining || d.FreeBytes < seg.SizeBytes {
			continue
		}
		if s := v.spread(append(slices.Clip(seg.Drives), id)); s > spread {
			best, spread = id, s
		}
	}
	return best, best != ""
}

const worldSpeed = 64 << 20 // bytes per second

func (w *world) reach(ctx context.Context, drive string, bytes int64) error {
	w.mu.Lock()
	d := w.drives[drive]
	gone, hang := d == nil || d.away || d.state == dataio.Offline, d != nil && d.hang
	w.mu.Unlock()
	if gone {
		return fault.New(fault.Waiting, "drive "+drive, "isn't there")
	}
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return rest(ctx, time.Millisecond+time.Duration(float64(bytes)/worldSpeed*float64(time.Second)))
}

func (w *world) CopyTo(ctx context.Context, drive string, items []object.CopyItem) ([]error, error) {
	var bytes int64
	for _, i := range items {
		bytes += i.SizeBytes
	}
	if err := w.reach(ctx, drive, bytes); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := make([]error, len(items))
	for n, i := range items {
		errs[n] = w.copyLocked(drive, i)
	}
	return errs, nil
}

func (w *world) copyLocked(drive string, i object.CopyItem) error {
	w.counts.copies++
	w.copied = append(w.copied, i.ID)
	if w.copyErr != nil {
		if err := w.copyErr(drive, i.ID); err != nil {
			return err
		}
	}
	d := w.drives[drive]
	if d == nil || d.state != dataio.Online && d.state != dataio.Degraded {
		return fault.New(fault.Unavailable, "drive "+drive, "takes nothing")
	}
	how, has := d.files[i.ID]
	if has && how == "" && !i.Replace {
		return nil
	}
	if has && !i.Replace {
		return fault.New(fault.Conflict, "drive "+drive, "has another file of that id")
	}
	for _, from := range i.From {
		if s := w.drives[from]; from != drive && s != nil && !s.away && s.state != dataio.Offline && w.goodLocked(from, i.ID) {
			w.fileLocked(drive, i.ID, "", true)
			return nil
		}
	}
	return fault.New(fault.Corrupted, "payload", "none of %v has it whole", i.From)
}

func (w *world) Check(ctx context.Context, drive string, items []object.CheckItem, verify bool, _ int64) ([]object.BadCopy, error) {
	var bytes int64
	for _, i := range items {
		bytes += i.SizeBytes
	}
	if err := w.reach(ctx, drive, bytes); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.checks += len(items)
	d := w.drives[drive]
	if d == nil {
		return nil, fault.New(fault.Unavailable, "drive "+drive, "is gone")
	}
	var bad []object.BadCopy
	for n, i := range items {
		how, has := d.files[i.ID]
		switch {
		case !has:
			bad = append(bad, object.BadCopy{Index: n, Reason: "missing"})
		case how != "" && (verify || how == "size"):
			bad = append(bad, object.BadCopy{Index: n, Reason: how, Detail: "by the test"})
		}
	}
	return bad, nil
}

// wants says what is wrong with the segments, "" if nothing is: each has the
// copies that it should, good ones, where they may be.
func (w *world) wants() string {
	v := newView(w.Topology(), w.Health(), sight{}, w.replicas, 0, time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.violations) > 0 {
		return strings.Join(w.violations, "\n")
	}
	for id, s := range w.segs {
		if s.lost {
			continue
		}
		seg := control.SegmentCopies{ID: id, Drives: s.drives}
		if need, _ := v.assess(&seg); need {
			return fmt.Sprintf("%s is on %v", s.key, s.drives)
		}
		for _, d := range s.drives {
			if !w.goodLocked(d, id) {
				return fmt.Sprintf("%s is bad on %s (of %v): %q", s.key, d, s.drives, w.drives[d].files[id])
			}
		}
		if s.heal {
			return fmt.Sprintf("%s on %v still has its heal row", s.key, s.drives)
		}
	}
	return ""
}

// healer makes a healer of the world, and runs it until the test ends or stop
// is called.
func (w *world) healer(name string, change func(*Options)) (h *Healer, stop func()) {
	w.t.Helper()
	o := Options{Self: name, Index: w, Topology: w.Topology, Objects: w, Leader: func() (string, bool) { return name, true }}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := h.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	w.t.Cleanup(stop)
	return h, stop
}

func (w *world) status(h *Healer) *Status {
	w.t.Helper()
	s, err := h.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// until waits until ok, on virtual time.
func (w *world) until(limit time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); _ = rest(context.Background(), 100*time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("after %v: not %s; %s", limit, what, w.wants())
		}
	}
}

// well waits until all segments are as they should be.
func (w *world) well(limit time.Duration) {
	w.t.Helper()
	w.until(limit, "well", func() bool { return w.wants() == "" })
}
