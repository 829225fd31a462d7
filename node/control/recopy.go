package control

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

// Which drives have a copy of a segment is part of its record, and changed by
// the index alone, entry by entry: so what a Recopy says is measured by what
// the record says then, however long ago its maker looked. Every copy that a
// record has ever listed is listed, or is garbage, or was reclaimed, or was
// dropped together with its drive.

// maxRewrittenSegments is how many segments the records may have together that
// one Recopy rewrites. It leaves the entries behind that, and Propose asks again
// for them.
const maxRewrittenSegments = 16 << 10

// birthSlack is how much later than the truth a Birth may be: it is by the clock
// of the node that gave it, and log time by the leaders'.
const birthSlack = 2 * maxClockOffset

// copyLeft is the fate of an entry that wasn't looked at: the command had grown
// too large.
const copyLeft = FateRefused + 1

func (c *Recopy) validate() error {
	if n := len(c.Entries); n == 0 || n > MaxRecopy {
		return fault.New(fault.InvalidArgument, "entries", "has %d entries, 1 to %d are allowed", n, MaxRecopy)
	}
	seen := make(map[[16]byte]bool, len(c.Entries))
	for i := range c.Entries {
		e := &c.Entries[i]
		if seen[e.ID] {
			return fault.New(fault.InvalidArgument, "entries", "has segment %x twice", e.ID)
		}
		seen[e.ID] = true
		named := len(e.Add) + len(e.Remove) + len(e.Drop)
		if named == 0 && !e.Settled || named > 3*maxSegmentDrives {
			return fault.New(fault.InvalidArgument, "entries", "number %d changes %d drives, 1 to %d are allowed", i, named, 3*maxSegmentDrives)
		}
		if err := checkDrives(slices.Concat(e.Add, e.Remove, e.Drop)); err != nil {
			return err
		}
		if n := len(e.Seen); n > maxSegmentDrives {
			return fault.New(fault.InvalidArgument, "entries", "number %d has seen %d drives, at most %d are possible", i, n, maxSegmentDrives)
		}
		if err := checkDrives(e.Seen); err != nil {
			return err
		}
	}
	if c.Birth < 0 || c.Birth == 0 && c.adds() {
		return fault.New(fault.InvalidArgument, "birth", "is missing: copies take it from an answer before they are begun")
	}
	return nil
}

// adds tells whether it brings copies.
func (c *Recopy) adds() bool {
	return slices.ContainsFunc(c.Entries, func(e CopyChange) bool { return len(e.Add) > 0 })
}

func (m *machine) recopy(b *pebble.Batch, c *Recopy) (*outcome, error) {
	if age, late := m.age(c.Birth); late && c.adds() {
		return nil, fault.New(fault.Conflict, "copies", "were begun %v before their commit, at most %v are allowed", age, putWindow)
	}
	r := recopying{m: m, b: b, birth: c.Birth, records: map[place]*foundRecord{}}
	out := &outcome{Fates: make([]byte, len(c.Entries))}
	for i := range c.Entries {
		if r.segments >= maxRewrittenSegments {
			out.Fates[i] = byte(copyLeft)
			continue
		}
		fate, err := r.change(&c.Entries[i])
		if err != nil {
			return nil, err
		}
		out.Fates[i] = byte(fate)
	}
	return out, r.write()
}

// recopying is one Recopy on its way through the records.
type recopying struct {
	m       *machine
	b       *pebble.Batch
	birth   int64
	records map[place]*foundRecord // those it has looked at

	segments int            // of records
	rewrite  []*foundRecord // of records, those that have changed, once each
}

// place is where a record is.
type place struct {
	bucket [16]byte
	key    string
}

// change carries out one entry, but for the record's own row.
func (r *recopying) change(e *CopyChange) (CopyFate, error) {
	var row segmentRow
	if _, err := r.m.row(r.b, segmentKey(e.ID), &row); err != nil || row.Key == "" {
		return FateGone, err
	}
	rec, s, err := r.owner(e.ID, &row)
	if err != nil {
		return 0, err
	}
	gone := func(drive string) bool { return slices.Contains(e.Remove, drive) || slices.Contains(e.Drop, drive) }
	drives := slices.DeleteFunc(slices.Clone(s.Drives), gone)
	for _, drive := range e.Add {
		switch {
		case slices.Contains(s.Drives, drive):
		case slices.Contains(row.Garbage, drive), row.Reclaimed != 0 && row.Reclaimed > r.birth-int64(birthSlack):
			return FateRefused, nil
		default:
			drives = append(drives, drive)
		}
	}
	if len(drives) == 0 || len(drives) > maxSegmentDrives {
		return FateRefused, nil
	}
	heal := !e.Settled && (row.Heal || len(drives) < len(s.Drives))
	if slices.Equal(drives, s.Drives) && heal == row.Heal {
		return FateDone, nil
	}
	if len(e.Seen) > 0 && !sameDrives(e.Seen, s.Drives) {
		return FateRefused, nil
	}
	garbage := slices.DeleteFunc(slices.Clone(s.Drives), func(d string) bool { return !slices.Contains(e.Remove, d) })
	if err := r.m.discard(r.b, s, &row, garbage); err != nil {
		return 0, err
	}
	if err := r.m.setHeal(r.b, e.ID, &row, heal); err != nil {
		return 0, err
	}
	if !slices.Equal(drives, s.Drives) {
		s.Drives = drives
		if !slices.Contains(r.rewrite, rec) {
			r.rewrite = append(r.rewrite, rec)
		}
	}
	return FateDone, r.m.setSegment(r.b, e.ID, &row)
}

// sameDrives compares without regard to the order. Neither has a drive twice.
func sameDrives(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(d string) bool { return !slices.Contains(b, d) })
}

// owner gives the record that refers to a segment, and the segment in it.
func (r *recopying) owner(id [16]byte, row *segmentRow) (*foundRecord, *Segment, error) {
	at := place{row.Bucket, row.Key}
	rec := r.records[at]
	if rec == nil {
		var err error
		if rec, err = r.m.find(r.b, at.bucket, at.key); err != nil {
			return nil, nil, err
		}
		r.records[at] = rec
		if rec != nil {
			r.segments += len(rec.Segments)
		}
	}
	s := rec.segment(id)
	if s == nil {
		return nil, nil, errStray(id, row)
	}
	return rec, s, nil
}

// segment finds a segment of a record by its id, nil where it has none of it.
func (f *foundRecord) segment(id [16]byte) *Segment {
	if f == nil {
		return nil
	}
	for i := range f.Segments {
		if f.Segments[i].ID == id {
			return &f.Segments[i]
		}
	}
	return nil
}

// errStray says that a segment's row and the records don't belong together.
func errStray(id [16]byte, row *segmentRow) error {
	return fmt.Errorf("%w: segment %x is said to be that of %x %q, which hasn't got it", errRow, id, row.Bucket, row.Key)
}

// write puts the records that have changed where they were.
func (r *recopying) write() error {
	for _, rec := range r.rewrite {
		if err := putVersion(r.b, rec.row, RecordVersion, &rec.Record); err != nil {
			return err
		}
		r.m.wrote(bytes.Clone(rowOrder.Split.Prefix(rec.row)))
	}
	return nil
}
