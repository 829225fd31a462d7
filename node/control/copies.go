package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/node/fault"
)

// copiesLooks is how much one page of a CopiesQuery looks at: records, or their
// segments where they have more than one.
const copiesLooks = 20_000

func (q *CopiesQuery) validate() error {
	if n := len(q.Good); n > MaxQueryDrives {
		return fault.New(fault.InvalidArgument, "drives", "has %d entries, at most %d are allowed", n, MaxQueryDrives)
	}
	if q.After != "" {
		_, _, err := parseCopiesPosition(q.After)
		if q.Pending && len(q.After) != 16 || !q.Pending && err != nil {
			return fault.New(fault.InvalidArgument, "after", "is no position that a page before has given")
		}
	}
	return checkPosition(q.After, q.Limit)
}

// A position in a pass over the records' segments is the row of a record, and
// how many of its segments have been passed.
func copiesPosition(row []byte, passed int) string {
	return string(binary.BigEndian.AppendUint16(bytes.Clone(row), uint16(passed)))
}

func parseCopiesPosition(position string) (row []byte, passed int, err error) {
	n := len(position) - 2
	if n < 0 {
		return nil, 0, fmt.Errorf("%w: %q isn't a position", errRow, position)
	}
	row = []byte(position[:n])
	_, _, _, err = parseRecordKey(row)
	return row, int(binary.BigEndian.Uint16([]byte(position[n:]))), err
}

// page is an answer to a CopiesQuery that is being filled.
type page struct {
	a     *Answer
	q     *CopiesQuery
	good  map[string]bool
	limit int
	room  int // in bytes
	looks int
}

func newPage(a *Answer, q *CopiesQuery) *page {
	p := &page{a: a, q: q, limit: pageSize(q.Limit), room: maxPageBytes, looks: copiesLooks}
	if len(q.Good) > 0 {
		p.good = make(map[string]bool, len(q.Good))
		for _, d := range q.Good {
			p.good[d] = true
		}
	}
	return p
}

// full tells whether a page has no room for another entry.
func (p *page) full() bool { return len(p.a.Copies) >= p.limit || p.room <= 0 }

// wants tells whether a segment belongs on the page.
func (p *page) wants(s *Segment) bool {
	if p.good == nil {
		return true
	}
	good := 0
	for _, d := range s.Drives {
		if p.good[d] {
			good++
		}
	}
	return good < len(s.Drives) || good < int(p.q.Want)
}

func (p *page) add(bucket [16]byte, key string, s *Segment) {
	c := SegmentCopies{BucketID: bucket, Key: key, ID: s.ID, SizeBytes: s.SizeBytes, CRC32C: s.CRC32C, Drives: slices.Clone(s.Drives)}
	p.room -= c.Msgsize()
	p.a.Copies = append(p.a.Copies, c)
}

func (p *page) end(next string) { p.a.More, p.a.Next = true, next }

func (v *view) copies(a *Answer, q *CopiesQuery) error {
	if q.Pending {
		return v.pendingCopies(newPage(a, q))
	}
	return v.allCopies(newPage(a, q))
}

func (v *view) allCopies(p *page) (err error) {
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: []byte{kindRecord}, UpperBound: after([]byte{kindRecord})})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	ok, passed := false, 0
	if p.q.After == "" {
		ok = it.First()
	} else {
		var row []byte
		if row, passed, err = parseCopiesPosition(p.q.After); err != nil {
			return err
		}
		// A version that is newer than the row comes before it.
		if ok = it.SeekGE(row[:len(row)-8]); ok && !bytes.Equal(it.Key(), row) {
			passed = 0
		}
	}
	var rec Record
	for ; ok; ok = it.Next() {
		if p.looks <= 0 {
			p.end(copiesPosition(it.Key(), passed))
			return it.Error()
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := decodeSegments(value, &rec); err != nil {
			return fmt.Errorf("at %q: %w", it.Key(), err)
		}
		p.looks -= max(1, len(rec.Segments))
		for i := passed; i < len(rec.Segments); i++ {
			s := &rec.Segments[i]
			if !p.wants(s) {
				continue
			}
			if p.full() {
				p.end(copiesPosition(it.Key(), i))
				return it.Error()
			}
			bucket, key, _, err := parseRecordKey(it.Key())
			if err != nil {
				return err
			}
			p.add(bucket, string(key), s)
		}
		passed = 0
	}
	return it.Error()
}

// pendingCopies goes over the healRows. Its position is the last of them.
func (v *view) pendingCopies(p *page) (err error) {
	from := healKey([16]byte{})
	if p.q.After != "" {
		from = append(healKey([16]byte([]byte(p.q.After))), 0)
	}
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after([]byte{kindHeal})})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	owners := owners{v: v, records: map[place]*foundRecord{}}
	last := ""
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != 1+16 {
			return fmt.Errorf("%w: %q isn't a healRow's key", errRow, it.Key())
		}
		id := [16]byte(it.Key()[1:])
		if p.looks-owners.looks <= 0 {
			p.end(last)
			return it.Error()
		}
		p.looks--
		var row segmentRow
		if _, err := get(v.rows, segmentKey(id), &row); err != nil {
			return err
		}
		rec, s, err := owners.of(id, &row)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("%w: segment %x waits for copies, and no record has it", errRow, id)
		}
		if p.wants(s) {
			if p.full() {
				p.end(last)
				return it.Error()
			}
			bucket, _, _, err := parseRecordKey(rec.row)
			if err != nil {
				return err
			}
			p.add(bucket, rec.Key, s)
		}
		last = string(id[:])
	}
	return it.Error()
}

// owners finds the records that segments belong to, each once.
type owners struct {
	v       *view
	records map[place]*foundRecord
	looks   int // segments of records
}

// of gives the record that refers to a segment, by its row, and the segment in
// that; nil where none does.
func (o *owners) of(id [16]byte, row *segmentRow) (rec *foundRecord, s *Segment, err error) {
	if row.Key == "" {
		return nil, nil, nil
	}
	at := place{row.Bucket, row.Key}
	rec = o.records[at]
	if rec == nil {
		if rec, err = o.v.find(at.bucket, at.key); err != nil {
			return nil, nil, err
		}
		if rec != nil {
			o.looks += len(rec.Segments)
			rec.Inline = nil
		}
		o.records[at] = rec
	}
	if s = rec.segment(id); s == nil {
		return nil, nil, errStray(id, row)
	}
	return rec, s, nil
}

// decodeSegments reads the segments of a record's row, and passes over the rest.
// They share memory with those of the row before.
func decodeSegments(value []byte, rec *Record) error {
	rec.Segments = rec.Segments[:0]
	if len(value) == 0 || value[0] != RecordVersion {
		return decodeRow(RecordVersion, value, rec) // says what is wrong
	}
	fields, rest, err := msgp.ReadMapHeaderBytes(value[1:])
	for ; err == nil && fields > 0; fields-- {
		var field []byte
		if field, rest, err = msgp.ReadMapKeyZC(rest); err != nil {
			break
		}
		if string(field) != "sg" {
			rest, err = msgp.Skip(rest)
			continue
		}
		rec.Segments = rec.Segments[:0]
		var n uint32
		if n, rest, err = msgp.ReadArrayHeaderBytes(rest); err == nil && n > MaxSegments {
			err = fmt.Errorf("%d segments", n)
		}
		for ; err == nil && n > 0; n-- {
			if len(rec.Segments) < cap(rec.Segments) {
				rec.Segments = rec.Segments[:len(rec.Segments)+1]
			} else {
				rec.Segments = append(rec.Segments, Segment{})
			}
			rest, err = rec.Segments[len(rec.Segments)-1].UnmarshalMsg(rest)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errRow, err)
	}
	return nil
}
