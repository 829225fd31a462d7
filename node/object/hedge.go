package object

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// How long a read that could go on with another copy waits for a drive: three
// times what 95 of 100 reads took that had to wait for it lately, within
// bounds that neither a cache nor an array of slow disks moves out of.
const (
	hedgeAtFirst = 100 * time.Millisecond // until there are hedgeSamples
	hedgeMin     = 20 * time.Millisecond
	hedgeMax     = 250 * time.Millisecond
	hedgeSamples = 8
	// waitLeast is what counts as having waited: shorter reads were served from
	// memory, and say nothing of the drive.
	waitLeast = time.Millisecond
)

// A bad copy is reported once in tellEvery, however often it is met; so many of
// them are remembered.
const (
	tellEvery = time.Minute
	tellMax   = 1024
)

// troubleFor is how long a drive that failed a read, or was too slow for it,
// is asked after those that did not.
const troubleFor = 5 * time.Second

// readings is what the reads of this node know of drives, here and elsewhere.
// The zero value is ready for use.
type readings struct {
	mu     sync.Mutex               // guards what follows, and what is in it
	drives map[string]*reading      // by id: those that segments were read from
	told   map[payloadRef]time.Time // of bad copies
}

// reading is what reads know of one drive.
type reading struct {
	underWay int
	waits    [32]time.Duration // of the last reads that had to wait
	waited   int               // ever
	hedge    time.Duration     // made of waits
	trouble  time.Time         // the last
}

func (r *readings) ofLocked(drive string) *reading {
	d := r.drives[drive]
	if d == nil {
		if r.drives == nil {
			r.drives = make(map[string]*reading)
		}
		d = &reading{hedge: hedgeAtFirst}
		r.drives[drive] = d
	}
	return d
}

// begin counts a read of a drive; end takes it back.
func (r *readings) begin(drive string) { r.count(drive, +1) }
func (r *readings) end(drive string)   { r.count(drive, -1) }

func (r *readings) count(drive string, delta int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ofLocked(drive).underWay += delta
}

// look returns how many reads of a drive are under way, and whether it was in
// trouble lately.
func (r *readings) look(drive string) (underWay int, troubled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.drives[drive]
	if d == nil {
		return 0, false
	}
	return d.underWay, !d.trouble.IsZero() && time.Since(d.trouble) < troubleFor
}

// failed notes trouble with a drive.
func (r *readings) failed(drive string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ofLocked(drive).trouble = time.Now()
}

// waited notes how long a drive was waited for, until it had the bytes or was
// given up: where everything takes long, giving up sooner would not help.
func (r *readings) waited(drive string, d time.Duration) {
	if d < waitLeast {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.ofLocked(drive)
	of.waits[of.waited%len(of.waits)] = d
	of.waited++
	if of.waited < hedgeSamples {
		return
	}
	sorted := of.waits
	some := sorted[:min(of.waited, len(sorted))]
	slices.Sort(some)
	of.hedge = min(max(3*some[len(some)*95/100], hedgeMin), hedgeMax)
}

// hedge returns how long a drive is waited for by those who need not.
func (r *readings) hedge(drive string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.drives[drive]; d != nil {
		return d.hedge
	}
	return hedgeAtFirst
}

// tell says whether a bad copy is to be reported.
func (r *readings) tell(ref payloadRef) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, told := r.told[ref]; told && time.Since(at) < tellEvery {
		return false
	}
	if len(r.told) >= tellMax {
		maps.DeleteFunc(r.told, func(_ payloadRef, at time.Time) bool { return time.Since(at) >= tellEvery })
	}
	if len(r.told) < tellMax {
		if r.told == nil {
			r.told = make(map[payloadRef]time.Time)
		}
		r.told[ref] = time.Now()
	}
	return true
}
