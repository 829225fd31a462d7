package heal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// plan is what one segment needs, as a view and what is known to be bad have it.
type plan struct {
	want    int
	keep    []string // drives whose copies stay and are well
	away    []string // drives whose copies count, although they can't be reached
	add     []string // drives that are to get a copy
	replace []string // drives whose bad copy is to be written anew
	remove  []string // drives whose copies become garbage once enough others are there
	drop    []string // drives that are no part of the mesh
	from    []string // drives to copy from, best first
	verify  string   // a drive whose copy must be compared before remove; "": there is none to be
	lost    bool     // there is no good copy
	blocked string   // why not all can be done that is to be; "": all can
}

// idle says that there is nothing to be done, or to be said to the index.
func (p *plan) idle() bool {
	return len(p.add) == 0 && len(p.replace) == 0 && len(p.remove) == 0 && len(p.drop) == 0
}

// placer says where one more copy of a segment should go, given where copies
// are that stay, and where none may go.
type placer func(seg control.SegmentCopies, bad map[string]bool) (drive string, ok bool)

// plan decides what a segment needs. bad are drives whose copy is known to be
// bad, and how; failed are drives that didn't take a copy just now.
func (v *view) plan(seg *control.SegmentCopies, bad map[string]string, failed map[string]bool, place placer) plan {
	var p plan
	home := v.home(seg.Drives)
	p.want = v.copies(home)
	leave := p.sort(v, seg, bad, failed, home)
	p.sources(v, seg)
	if len(p.from) == 0 {
		p.hopeless(v, seg, bad)
		return p
	}
	p.place(v, seg, failed, place, home)
	ready := len(p.keep) + len(p.replace) + len(p.add)
	if ready >= p.want {
		p.remove = leave
		p.trim(v)
	} else if len(leave) > 0 && p.blocked == "" {
		p.blocked = v.absent(p.away)
	}
	p.vouch(v, bad)
	return p
}

// sort sorts a segment's drives by what is to become of the copies there, and
// returns those that are to go when there are enough others.
func (p *plan) sort(v *view, seg *control.SegmentCopies, bad map[string]string, failed map[string]bool, home string) (leave []string) {
	moves := v.pools[home] == nil || v.pools[home].copies == 0
	for _, id := range seg.Drives {
		d := v.drives[id]
		_, isBad := bad[id]
		switch {
		case d == nil:
			p.drop = append(p.drop, id)
		case !d.counts(), !moves && d.Pool != home:
			leave = append(leave, id)
		case isBad && d.writable && !failed[id]:
			p.replace = append(p.replace, id)
		case isBad && d.well:
			leave = append(leave, id)
		case d.well:
			p.keep = append(p.keep, id)
		default:
			p.away = append(p.away, id)
		}
		if d != nil && !isBad && d.readable() {
			p.from = append(p.from, id)
		}
	}
	return leave
}

// sources puts what can be copied from in order: drives that are well before
// those that aren't, and quick before slow ones. Among equals the segment's id
// decides, so that not everything comes from the same drive.
func (p *plan) sources(v *view, seg *control.SegmentCopies) {
	rank := func(id string) int {
		switch d := v.drives[id]; {
		case !d.well:
			return 2
		case d.State == dataio.Degraded:
			return 1
		}
		return 0
	}
	turn := int(seg.ID[0]) % max(1, len(p.from))
	p.from = slices.Concat(p.from[turn:], p.from[:turn])
	slices.SortStableFunc(p.from, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
}

// hopeless is a segment without a copy to be read: what is on drives that are
// away may still come back, anything else not.
func (p *plan) hopeless(v *view, seg *control.SegmentCopies, bad map[string]string) {
	var why, away []string
	for _, id := range seg.Drives {
		d := v.drives[id]
		if how, isBad := bad[id]; d == nil {
			why = append(why, "drive "+id+" is gone")
		} else if isBad {
			why = append(why, "on "+v.name(id)+": "+how)
		} else {
			away = append(away, id)
		}
	}
	p.replace, p.add, p.drop = nil, nil, nil
	if len(away) == 0 {
		p.lost, p.blocked = true, strings.Join(why, "; ")
		return
	}
	p.blocked = v.absent(away)
}

// absent says which drives are waited for.
func (v *view) absent(drives []string) string {
	if len(drives) == 0 {
		return ""
	}
	names := make([]string, len(drives))
	for i, id := range drives {
		names[i] = v.name(id)
	}
	return "not there: " + strings.Join(names, ", ")
}

func (v *view) name(id string) string {
	if d := v.drives[id]; d != nil {
		return "drive " + id + " on node " + d.Node
	}
	return "drive " + id
}

// place finds drives for the copies that are missing.
func (p *plan) place(v *view, seg *control.SegmentCopies, failed map[string]bool, place placer, home string) {
	stay := slices.Concat(p.keep, p.away, p.replace)
	no := make(map[string]bool, len(failed)+len(seg.Drives))
	for id := range failed {
		no[id] = true
	}
	for _, id := range seg.Drives {
		no[id] = true
	}
	for first := len(stay) == 0; len(stay) < p.want; first = false {
		some := *seg
		some.Drives = stay
		id, ok := place(some, no)
		if !ok || v.drives[id] == nil || no[id] {
			p.blocked = v.whyNot(seg, home, p.want, no)
			return
		}
		p.add = append(p.add, id)
		stay = append(stay, id)
		no[id] = true
		if first { // it may have gone to another pool, which keeps fewer copies
			p.want = v.copies(v.drives[id].Pool)
		}
	}
}

// whyNot says what stands in the way of one more copy.
func (v *view) whyNot(seg *control.SegmentCopies, home string, want int, no map[string]bool) string {
	there := v.pools[home]
	where, inside := "in pool "+home, func(d *drive) bool { return d.Pool == home }
	if there == nil || there.copies == 0 {
		where, inside = "in any pool that stays", func(*drive) bool { return true }
	}
	var room int64 = -1
	away := ""
	for _, id := range v.ids {
		d := v.drives[id]
		switch {
		case no[id] || d.Draining || !inside(d):
		case !d.writable:
			away = v.name(id) + ", " + state(d)
		default:
			room = max(room, d.FreeBytes)
		}
	}
	switch {
	case room >= 0:
		return fmt.Sprintf("no drive %s has room for %d bytes: the most that one has free is %d", where, seg.SizeBytes, room)
	case away != "":
		return fmt.Sprintf("no drive %s can take a copy: %s, for one", where, away)
	}
	return fmt.Sprintf("no other drive is left %s, and %d copies are wanted", where, want)
}

func state(d *drive) string {
	if !d.Reachable {
		return "can't be reached"
	}
	return "is " + d.State.String()
}

// trim takes copies away of which there are too many: the one whose absence
// leaves the best spread, of these the one on the fullest drive.
func (p *plan) trim(v *view) {
	if len(p.add) > 0 {
		return
	}
	for len(p.keep)+len(p.replace) > p.want && len(p.keep) > 0 {
		best, bestSpread := -1, 0
		for i := range p.keep {
			rest := slices.Concat(p.keep[:i], p.keep[i+1:], p.replace, p.away)
			s := v.spread(rest)
			if best < 0 || s > bestSpread || s == bestSpread && v.fill(p.keep[i]) > v.fill(p.keep[best]) {
				best, bestSpread = i, s
			}
		}
		p.remove = append(p.remove, p.keep[best])
		p.keep = slices.Delete(slices.Clone(p.keep), best, best+1)
	}
}

// fill is the share of a drive that is used.
func (v *view) fill(id string) float64 {
	d := v.drives[id]
	if d == nil || d.TotalBytes <= 0 {
		return 0
	}
	return float64(d.UsedBytes) / float64(d.TotalBytes)
}

// vouch chooses the copy that is compared with its checksums before others are
// taken away, unless one is written anew, which is compared as it is, or none
// of those taken away may be good.
func (p *plan) vouch(v *view, bad map[string]string) {
	if len(p.add)+len(p.replace) > 0 {
		return
	}
	for _, id := range p.remove {
		if _, isBad := bad[id]; !isBad {
			p.verify = p.keep[0]
			return
		}
	}
}
