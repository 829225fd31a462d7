package heal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

func (w *world) Read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	if err := rest(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.indexErr != nil {
		if err := w.indexErr(); err != nil {
			return nil, err
		}
	}
	w.counts.reads++
	a := &control.Answer{LogTime: time.Now().UnixNano(), Epoch: w.topo.Epoch}
	switch {
	case q.Copies != nil:
		w.copiesLocked(a, q.Copies)
	case q.Segments != nil:
		for _, id := range q.Segments.IDs {
			s := w.segs[id]
			_, trash := w.garbage[q.Segments.Drive][id]
			a.Known = append(a.Known, trash || s != nil && slices.Contains(s.drives, q.Segments.Drive))
		}
	case q.Scrub != nil:
		scrub := w.scrub
		a.Scrub = &scrub
	case q.Totals != nil:
		a.Totals = &control.Totals{}
		for _, s := range w.segs {
			a.Totals.Objects++
			a.Totals.Bytes += s.size
		}
	case q.Topology != nil:
		t := w.topo
		a.Topology = &t
	case q.Buckets != nil:
		a.Buckets = []control.Bucket{{Name: "bucket", ID: worldBucket}}
	case q.Record != nil:
		for id, s := range w.segs {
			if s.key == q.Record.Key {
				a.Record = &control.Record{Key: s.key, Segments: []control.Segment{{ID: id, SizeBytes: s.size, Drives: slices.Clone(s.drives)}}}
				return a, nil
			}
		}
		return nil, fault.New(fault.ObjectNotFound, q.Record.Key, "isn't there")
	case q.Garbage != nil:
		for drive, ids := range w.garbage {
			for id, since := range ids {
				if !slices.Contains(q.Garbage.Present, drive) {
					a.Garbage = append(a.Garbage, control.Garbage{Drive: drive, ID: id, LogTime: since})
				}
			}
		}
	}
	return a, nil
}

func (w *world) copiesLocked(a *control.Answer, q *control.CopiesQuery) {
	limit := q.Limit
	if limit <= 0 || limit > control.MaxPage {
		limit = control.MaxPage
	}
	if w.keys == nil {
		w.byKey = make(map[string][16]byte, len(w.segs))
		for id, s := range w.segs {
			w.keys, w.byKey[s.key] = append(w.keys, s.key), id
		}
		slices.Sort(w.keys)
	}
	at, _ := slices.BinarySearch(w.keys, q.After+"\x00")
	order := w.keys[at:]
	pos := func(id [16]byte) string { return w.segs[id].key }
	if q.Pending || len(q.IDs) > 0 {
		order = nil
		for id, s := range w.segs {
			if q.Pending && s.heal && string(id[:]) > q.After || slices.Contains(q.IDs, id) {
				order = append(order, s.key)
			}
		}
		pos = func(id [16]byte) string { return string(id[:]) }
		key := func(key string) string { id := w.byKey[key]; return string(id[:]) }
		slices.SortFunc(order, func(x, y string) int { return strings.Compare(key(x), key(y)) })
	}
	last := ""
	for _, key := range order {
		id := w.byKey[key]
		s := w.segs[id]
		good := 0
		for _, d := range s.drives {
			if slices.Contains(q.Good, d) {
				good++
			}
		}
		if len(q.Good) > 0 && good == len(s.drives) && good >= int(q.Want) {
			continue
		}
		if len(a.Copies) == limit {
			a.More, a.Next = true, last
			return
		}
		last = pos(id)
		a.Copies = append(a.Copies, control.SegmentCopies{BucketID: worldBucket, Key: s.key, ID: id, SizeBytes: s.size, Drives: slices.Clone(s.drives)})
	}
}

func (w *world) Propose(ctx context.Context, cmd *control.Command) (*control.Result, error) {
	if err := rest(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.indexErr != nil {
		if err := w.indexErr(); err != nil {
			return nil, err
		}
	}
	w.counts.proposals++
	res := &control.Result{LogTime: time.Now().UnixNano()}
	switch {
	case cmd.Recopy != nil:
		for _, e := range cmd.Recopy.Entries {
			if len(e.Add) > 0 && cmd.Recopy.Birth == 0 {
				w.wrongLocked("a Recopy adds copies and has no birth")
			}
			res.Fates = append(res.Fates, w.recopyLocked(&e))
		}
	case cmd.NoteScrub != nil:
		if cmd.NoteScrub.Scrub.Round >= w.scrub.Round {
			w.scrub = cmd.NoteScrub.Scrub
		}
	case cmd.Reclaim != nil:
		for _, g := range cmd.Reclaim.Entries {
			if n, _ := w.topo.Drive(g.Drive); n != nil {
				w.wrongLocked("garbage of drive %s, which is there, is dropped", g.Drive)
			}
			delete(w.garbage, g.Drive)
		}
	}
	return res, nil
}

func (w *world) recopyLocked(e *control.CopyChange) control.CopyFate {
	s := w.segs[e.ID]
	if s == nil {
		return control.FateGone
	}
	was := slices.ContainsFunc(s.drives, func(d string) bool { return w.goodLocked(d, e.ID) })
	now := slices.DeleteFunc(slices.Clone(s.drives), func(d string) bool { return slices.Contains(e.Remove, d) || slices.Contains(e.Drop, d) })
	for _, d := range e.Add {
		if _, trash := w.garbage[d][e.ID]; trash {
			return control.FateRefused
		}
		if slices.Contains(s.drives, d) {
			continue
		}
		now = append(now, d)
	}
	if len(now) == 0 || !sameDrives(s.drives, e.Seen) {
		return control.FateRefused
	}
	for _, d := range e.Drop {
		if n, _ := w.topo.Drive(d); n != nil {
			w.wrongLocked("drive %s, which is there, is dropped of a segment", d)
		}
	}
	if was && time.Since(s.spoilt) > time.Minute && !slices.ContainsFunc(now, func(d string) bool { return w.goodLocked(d, e.ID) }) {
		w.wrongLocked("the last good copy of %s is taken away: %v becomes %v", s.key, s.drives, now)
	}
	for _, d := range e.Remove {
		if slices.Contains(s.drives, d) {
			w.trashLocked(d, e.ID)
		}
	}
	if e.Settled {
		s.heal = false
	} else if len(now) < len(s.drives) {
		s.heal = true
	}
	s.drives = now
	return control.FateDone
}

func (w *world) wrongLocked(format string, args ...any) {
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}
