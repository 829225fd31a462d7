package heal

import (
	"slices"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/object"
)

// drive is what a drive's copies are worth at the moment.
type drive struct {
	object.DriveHealth
	well     bool // its node answers, and it can be read
	lost     bool // it hasn't been well for Options.After
	writable bool // a copy on it can be written anew
}

// counts says whether a copy on the drive counts as one that a segment has.
func (d *drive) counts() bool { return !d.Draining && !d.lost }

// readable says whether it is worth to try to read a copy on it.
func (d *drive) readable() bool { return d.Reachable && d.State != dataio.Offline }

// pool is what a pool can keep.
type pool struct {
	drives int   // of its nodes
	stay   int   // of them, those that don't drain
	copies int   // that a segment in it should have: 0 where everything drains
	used   int64 // bytes, of those that stay
	total  int64
}

// view is the drives of the mesh at one moment. It is immutable.
type view struct {
	epoch  uint64
	drives map[string]*drive
	ids    []string // of all drives, sorted
	pools  map[string]*pool
	good   []string // drives whose copies count, sorted
	want   int      // copies that a segment should have where most are possible
}

// sight remembers since when drives aren't well that nobody has told of yet.
type sight map[string]time.Time

// newView puts together what is known of the drives. The topology says which
// there are, health how they are.
func newView(t *control.Topology, health []object.DriveHealth, seen sight, replicas int, after time.Duration, now time.Time) *view {
	v := &view{epoch: t.Epoch, drives: make(map[string]*drive), pools: make(map[string]*pool)}
	known := make(map[string]object.DriveHealth, len(health))
	for _, h := range health {
		known[h.ID] = h
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		for _, id := range n.Drives {
			h, told := known[id]
			h.ID, h.Node, h.Pool, h.Zone = id, n.Name, n.Pool, n.Zone
			_, h.Draining = t.Drive(id)
			if h.Zone == "" {
				h.Zone = "\x00" + n.Name // the node is a zone of its own
			}
			d := &drive{DriveHealth: h}
			d.well = told && h.Reachable && h.State != dataio.Suspect && h.State != dataio.Offline
			d.writable = d.well && h.State != dataio.ReadOnly
			d.lost = !d.well && seen.since(id, h.Since, now) >= after
			if d.well {
				delete(seen, id)
			}
			v.add(d)
		}
	}
	for id := range seen {
		if v.drives[id] == nil {
			delete(seen, id)
		}
	}
	slices.Sort(v.ids)
	for _, p := range v.pools {
		p.copies = min(replicas, p.stay)
		v.want = max(v.want, p.copies)
	}
	for _, id := range v.ids {
		if v.drives[id].counts() {
			v.good = append(v.good, id)
		}
	}
	return v
}

// since says for how long a drive hasn't been well: as health has it, or since
// it was missed here first.
func (s sight) since(id string, told, now time.Time) time.Duration {
	if told.IsZero() {
		if s[id].IsZero() {
			s[id] = now
		}
		told = s[id]
	}
	return now.Sub(told)
}

func (v *view) add(d *drive) {
	v.drives[d.ID] = d
	v.ids = append(v.ids, d.ID)
	p := v.pools[d.Pool]
	if p == nil {
		p = &pool{}
		v.pools[d.Pool] = p
	}
	p.drives++
	if !d.Draining {
		p.stay++
		p.used += d.UsedBytes
		p.total += d.TotalBytes
	}
}

// sameWork says whether the other view asks for no work that this one doesn't:
// the same drives count, and in the same pools.
func (v *view) sameWork(o *view) bool {
	if len(v.ids) != len(o.ids) {
		return false
	}
	for id, d := range v.drives {
		e := o.drives[id]
		if e == nil || d.Draining != e.Draining || d.lost != e.lost || d.well != e.well || d.writable != e.writable ||
			d.Pool != e.Pool || d.Zone != e.Zone || d.Node != e.Node {
			return false
		}
	}
	return true
}

// loses says whether copies that counted in v, or were there, are none in next.
func (v *view) loses(next *view) bool {
	for id, d := range v.drives {
		if e := next.drives[id]; e == nil || e.lost && !d.lost {
			return true
		}
	}
	return false
}

// home is the pool that a segment's copies should be in: where most of those
// that may stay are, or, where none may, where most are. "" if the mesh has
// none of its drives.
func (v *view) home(drives []string) string {
	score := make(map[string]int, 2)
	best := ""
	for _, id := range drives {
		d := v.drives[id]
		if d == nil {
			continue
		}
		score[d.Pool]++
		if d.counts() {
			score[d.Pool] += len(drives) + 1
		}
		if best == "" || score[d.Pool] > score[best] || score[d.Pool] == score[best] && d.Pool < best {
			best = d.Pool
		}
	}
	return best
}

// copies is how many copies a segment with these drives should have.
func (v *view) copies(home string) int {
	if p := v.pools[home]; p != nil && p.copies > 0 {
		return p.copies
	}
	return max(1, v.want) // it has to move to another pool, if there is one
}

// spread says how well copies are spread: first over zones, then over nodes.
func (v *view) spread(drives []string) int {
	zones, nodes := make(map[string]bool, 4), make(map[string]bool, 4)
	for _, id := range drives {
		if d := v.drives[id]; d != nil {
			zones[d.Zone], nodes[d.Node] = true, true
		}
	}
	return len(zones)*100 + len(nodes)
}
