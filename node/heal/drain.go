package heal

import (
	"slices"

	"github.com/gridloom/gridloom/node/control"
)

// drains is what is left on the drives that drain.
type drains struct {
	known bool // it has been counted since the last drive began to
	left  map[string]*left
}

// left is what is left on one drive.
type left struct {
	segments int64
	bytes    int64
	blocked  string // why a segment of it couldn't be moved in the last pass
	newer    string // and in this one
}

func newDrains(v *view) *drains {
	d := &drains{left: make(map[string]*left)}
	for _, id := range v.ids {
		if v.drives[id].Draining {
			d.left[id] = &left{}
		}
	}
	return d
}

// reset follows a new view: what newly drains has to be counted first.
func (d *drains) reset(v *view) {
	now := newDrains(v)
	known := d.known
	for id := range now.left {
		if old := d.left[id]; old != nil {
			now.left[id] = old
		} else {
			known = false
		}
	}
	now.known = known
	*d = *now
}

// add counts a segment.
func (d *drains) add(v *view, seg *control.SegmentCopies) {
	for _, id := range seg.Drives {
		if l := d.left[id]; l != nil {
			l.segments++
			l.bytes += seg.SizeBytes
		}
	}
}

// counted takes over what was counted.
func (d *drains) counted(by *drains) {
	d.known = true
	for id, l := range d.left {
		n := by.left[id]
		if n == nil {
			d.known = false // it drains since the counting began
			continue
		}
		l.segments, l.bytes = n.segments, n.bytes
		if l.blocked, l.newer = l.newer, ""; l.segments == 0 {
			l.blocked = ""
		}
	}
}

// draining says whether something drains.
func (t *term) draining() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.drains.left) > 0
}

// freed is told of a copy that was taken off a drive's list.
func (t *term) freed(drive string, bytes int64) {
	t.mu.Lock()
	l := t.drains.left[drive]
	if l != nil {
		l.segments, l.bytes = max(0, l.segments-1), max(0, l.bytes-bytes)
		if l.segments == 0 {
			l.blocked, l.newer = "", ""
		}
	}
	t.mu.Unlock()
	if l != nil {
		t.h.cleared.add(bytes)
	}
}

// ended is told what stops a segment.
func (t *term) ended(seg *control.SegmentCopies, why string) {
	if why == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range seg.Drives {
		if l := t.drains.left[id]; l != nil {
			l.blocked, l.newer = why, why
		}
	}
}

// progress describes what drains: whole pools and nodes as such.
func (t *term) progressLocked(v *view) []DrainProgress {
	by := make(map[[2]string]*DrainProgress)
	var order [][2]string
	for _, id := range v.ids {
		l := t.drains.left[id]
		if l == nil {
			continue
		}
		for _, key := range v.drainKeys(id) {
			p := by[key]
			if p == nil {
				p = &DrainProgress{Kind: key[0], Name: key[1], Counted: t.drains.known}
				by[key], order = p, append(order, key)
			}
			p.LeftSegments += l.segments
			p.LeftBytes += l.bytes
			if p.Blocked == "" {
				p.Blocked = l.blocked
			}
		}
	}
	slices.SortFunc(order, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	out := make([]DrainProgress, 0, len(order))
	for _, key := range order {
		p := by[key]
		p.ETA = t.h.cleared.left(p.LeftBytes)
		out = append(out, *p)
	}
	return out
}

// drainKeys names what a drive's draining is part of: always the drive, its
// node if all of that drains, and its pool.
func (v *view) drainKeys(id string) [][2]string {
	d := v.drives[id]
	keys := [][2]string{{"drive", id}}
	node := true
	for _, other := range v.drives {
		node = node && (other.Node != d.Node || other.Draining)
	}
	if node {
		keys = append(keys, [2]string{"node", d.Node})
	}
	if p := v.pools[d.Pool]; p != nil && p.stay == 0 {
		keys = append(keys, [2]string{"pool", d.Pool})
	}
	return keys
}
