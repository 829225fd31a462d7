package control

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// modelCopies is the model's part of copies, quotas and scrubbing.
type modelCopies struct {
	pending     map[[16]byte]bool     // segments that wait for copies
	lastReclaim map[[16]byte]int64    // of segments that a record refers to
	quotas      map[[16]byte][2]int64 // objects and bytes, by bucket
	scrub       ScrubState
	files       map[file]string // every file that was ever listed, and what became of it last
}

// file is one copy of a segment.
type file struct {
	drive string
	id    [16]byte
}

func newModelCopies() modelCopies {
	return modelCopies{
		pending: map[[16]byte]bool{}, lastReclaim: map[[16]byte]int64{}, quotas: map[[16]byte][2]int64{}, files: map[file]string{},
	}
}

// list notes that drives are listed for a segment.
func (m *model) list(id [16]byte, drives ...string) {
	for _, d := range drives {
		m.files[file{d, id}] = "listed"
	}
}

// discard makes garbage of a segment's copies.
func (m *model) discard(s Segment, drives ...string) {
	for _, d := range drives {
		m.garbage = append(m.garbage, Garbage{Drive: d, LogTime: m.logTime, ID: s.ID, SizeBytes: s.SizeBytes})
		m.files[file{d, s.ID}] = "garbage"
	}
}

// reclaimed notes that a file is gone.
func (m *model) reclaimed(g Garbage) {
	m.files[file{g.Drive, g.ID}] = "reclaimed"
	if m.owners[g.ID] {
		m.lastReclaim[g.ID] = m.logTime
	}
}

// segments are those that records refer to, in order.
func (m *model) segments() [][16]byte {
	return slices.SortedFunc(maps.Keys(m.owners), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
}

// copies are all segments in the order of their records.
func (m *model) copies() (all []SegmentCopies) {
	buckets := slices.SortedFunc(maps.Keys(m.records), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, bucket := range buckets {
		for _, key := range slices.Sorted(maps.Keys(m.records[bucket])) {
			for _, s := range m.records[bucket][key].Segments {
				all = append(all, SegmentCopies{BucketID: bucket, Key: key, ID: s.ID, SizeBytes: s.SizeBytes, CRC32C: s.CRC32C, Drives: s.Drives})
			}
		}
	}
	return all
}

func (m *model) recopy(c *Recopy, out *outcome) fault.Kind {
	adds := slices.ContainsFunc(c.Entries, func(e CopyChange) bool { return len(e.Add) > 0 })
	if adds && (m.logTime-c.Birth > int64(time.Hour) || c.Birth-m.logTime > int64(time.Hour)) {
		return fault.Conflict
	}
	for _, e := range c.Entries {
		out.Fates = append(out.Fates, byte(m.changeCopies(e, c.Birth)))
	}
	return 0
}

func (m *model) changeCopies(e CopyChange, birth int64) CopyFate {
	var s *Segment
	for bucket, of := range m.records {
		for key, rec := range of {
			for i := range rec.Segments {
				if rec.Segments[i].ID == e.ID {
					rec.Segments = slices.Clone(rec.Segments) // the log has the others
					of[key] = rec
					s = &m.records[bucket][key].Segments[i]
				}
			}
		}
	}
	if s == nil {
		return FateGone
	}
	var left, gone []string
	for _, d := range s.Drives {
		switch {
		case slices.Contains(e.Remove, d):
			gone = append(gone, d)
		case !slices.Contains(e.Drop, d):
			left = append(left, d)
		}
	}
	for _, d := range e.Add {
		if slices.Contains(s.Drives, d) {
			continue
		}
		last, was := m.lastReclaim[e.ID]
		if m.files[file{d, e.ID}] == "garbage" || was && last > birth-int64(20*time.Second) {
			return FateRefused
		}
		left = append(left, d)
	}
	if len(left) == 0 {
		return FateRefused
	}
	for _, d := range e.Drop {
		if slices.Contains(s.Drives, d) {
			m.files[file{d, e.ID}] = "dropped"
		}
	}
	m.discard(*s, gone...)
	if len(left) < len(s.Drives) {
		m.pending[e.ID] = true
	}
	if e.Settled {
		delete(m.pending, e.ID)
	}
	s.Drives = left
	m.list(e.ID, left...)
	return FateDone
}

// usage sums up what is in a bucket.
func (m *model) usage(bucket [16]byte) BucketUsage {
	u := BucketUsage{MaxObjects: m.quotas[bucket][0], MaxBytes: m.quotas[bucket][1]}
	for _, rec := range m.records[bucket] {
		u.Objects++
		u.Bytes += rec.SizeBytes
	}
	return u
}

// fits tells whether a quota lets a bucket change so.
func (m *model) fits(bucket [16]byte, bytes int64, isNew bool) bool {
	u := m.usage(bucket)
	if u.MaxObjects > 0 && isNew && u.Objects+1 > u.MaxObjects {
		return false
	}
	return u.MaxBytes == 0 || bytes <= 0 || u.Bytes+bytes <= u.MaxBytes
}

func (m *model) compareCopies(t require, a *applier, ask func(Query) *Answer, same func(what string, got, want any)) {
	t.Helper()
	m.compareFiles(same)
	pass := func(q CopiesQuery) (all []SegmentCopies) {
		for {
			page := q
			got := ask(Query{Copies: &page})
			all = append(all, got.Copies...)
			if !got.More {
				return all
			}
			if len(all) > 100 {
				t.Fatalf("%+v doesn't end", q)
			}
			q.After = got.Next
		}
	}
	copies := m.copies()
	same("copies", pass(CopiesQuery{}), copies)
	for limit := 1; limit < 4; limit++ {
		same(fmt.Sprint("copies in pages of ", limit), pass(CopiesQuery{Limit: limit}), copies)
	}
	var ill, waiting []SegmentCopies
	for _, c := range copies {
		in, outside := 0, 0
		for _, d := range c.Drives {
			if d == "d1" || d == "d3" {
				in++
			} else {
				outside++
			}
		}
		if in < 2 || outside > 0 {
			ill = append(ill, c)
		}
		if m.pending[c.ID] {
			waiting = append(waiting, c)
		}
	}
	slices.SortFunc(waiting, func(a, b SegmentCopies) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	same("copies that aren't well", pass(CopiesQuery{Good: []string{"d1", "d3"}, Want: 2, Limit: 2}), ill)
	same("pending copies", pass(CopiesQuery{Pending: true, Limit: 2}), waiting)
	sole := slices.ContainsFunc(copies, func(c SegmentCopies) bool {
		return !slices.ContainsFunc(c.Drives, func(d string) bool { return d != "d1" && d != "d2" })
	})
	same("sole copies", ask(Query{Usage: &UsageQuery{Drives: []string{"d1", "d2"}, Sole: true}}).Used, sole)
	var totals Totals
	for bucket := range byte(4) {
		id := [16]byte{bucket}
		u := m.usage(id)
		totals.Objects += u.Objects
		totals.Bytes += u.Bytes
		same("usages", ask(Query{BucketUsages: &BucketUsagesQuery{IDs: [][16]byte{id}}}).BucketUsages, []NamedUsage{{Usage: u}})
		if m.closed[id] {
			var row BucketUsage
			found, err := get(a.store, usageKey(id), &row)
			same("the row of a closed bucket", []any{found, err}, []any{false, nil})
			continue
		}
		same("usage", *ask(Query{BucketID: id, BucketUsage: &BucketUsageQuery{Bucket: "b"}}).BucketUsage, u)
		for _, key := range []string{"a", "b"} {
			old, exists := m.records[id][key]
			for _, size := range []int64{-1, 0, 3, 30} {
				_, err := a.ask(&Query{BucketID: id, Begin: &BeginQuery{Bucket: "b", Key: key, SizeBytes: size}})
				same("whether a put may begin", fault.KindOf(err) == fault.QuotaExceeded, !m.fits(id, max(size, 0)-old.SizeBytes, !exists))
			}
		}
	}
	limited := int64(0)
	for _, q := range m.quotas {
		if q != [2]int64{} {
			limited++
		}
	}
	same("how many have a quota", a.m.totals.Limited, limited)
	same("totals", *ask(Query{Totals: &TotalsQuery{}}).Totals, totals)
	same("scrub", *ask(Query{Scrub: &ScrubQuery{}}).Scrub, m.scrub)
	for _, drive := range []string{"d1", "d4"} {
		var ids [][16]byte
		var known []bool
		for i := range 256 {
			id := [16]byte{byte(i)}
			is := m.files[file{drive, id}]
			ids, known = append(ids, id), append(known, is == "listed" || is == "garbage")
		}
		same("files of "+drive, ask(Query{Segments: &SegmentsQuery{IDs: ids, Drive: drive}}).Known, known)
	}
}

// compareFiles checks that every file that was ever listed is in one place: a
// record lists it, or it is garbage, or it was reclaimed or dropped.
func (m *model) compareFiles(same func(what string, got, want any)) {
	is := map[file][]string{}
	for _, c := range m.copies() {
		for _, d := range c.Drives {
			is[file{d, c.ID}] = append(is[file{d, c.ID}], "listed")
		}
	}
	for _, g := range m.garbage {
		is[file{g.Drive, g.ID}] = append(is[file{g.Drive, g.ID}], "garbage")
	}
	for f, want := range m.files {
		if got := strings.Join(is[f], " and "); got != "" || want == "listed" || want == "garbage" {
			same(fmt.Sprintf("what became of %x on %s", f.id[0], f.drive), got, want)
		}
		delete(is, f)
	}
	same("files that nobody has listed", len(is), 0)
}
