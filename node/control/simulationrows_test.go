package control

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// compare compares the rows with the truth.
func (s *simulatedState) compare(v *view) error {
	if s.group == systemGroup {
		return s.compareIAM(v)
	}
	t := s.truth
	var records, garbage, closed, wanted int
	for _, of := range t.records {
		wanted += len(of)
	}
	err := cmp.Or(
		scan(v.rows, []byte{kindRecord}, func(row, value []byte) error {
			records++
			bucket, key, _, err := parseRecordKey(row)
			if err != nil {
				return err
			}
			var r Record
			if err := decodeRow(RecordVersion, value, &r); err != nil {
				return err
			}
			if want := t.records[bucket][string(key)]; !reflect.DeepEqual(r, want) {
				return fmt.Errorf("at entry %d the record %x %s is %+v, and not %+v", v.applied, bucket, key, r, want)
			}
			return nil
		}),
		scan(v.rows, []byte{kindSegment}, func(row, value []byte) error {
			var owner segmentRow
			if err := decodeRow(rowVersion, value, &owner); err != nil || owner.Key == "" {
				return err
			}
			r := t.records[owner.Bucket][owner.Key]
			if !slices.ContainsFunc(r.Segments, func(s Segment) bool { return bytes.Equal(s.ID[:], row[1:]) }) {
				return fmt.Errorf("at entry %d the segment %x is said to be that of %x %s", v.applied, row[1:], owner.Bucket, owner.Key)
			}
			return nil
		}),
		scan(v.rows, []byte{kindGarbage}, func(_, _ []byte) error { garbage++; return nil }),
		s.compareCopies(v),
		scan(v.rows, []byte{kindClosed}, func(row, _ []byte) error {
			closed++
			if !t.closed[[16]byte(row[1:])] {
				return fmt.Errorf("bucket %x isn't closed", row[1:])
			}
			return nil
		}))
	if err == nil && (records != wanted || garbage != len(t.garbage) || closed != len(t.closed)) {
		err = fmt.Errorf("at entry %d there are %d records, %d pieces of garbage and %d closed buckets, and not %d, %d and %d",
			v.applied, records, garbage, closed, wanted, len(t.garbage), len(t.closed))
	}
	return err
}

// compareCopies compares what is said beside the records with the truth.
func (s *simulatedState) compareCopies(v *view) error {
	t := s.truth
	var pending, garbage int
	var sum Totals
	err := cmp.Or(
		scan(v.rows, []byte{kindHeal}, func(row, _ []byte) error {
			pending++
			if !t.pending[[16]byte(row[1:])] {
				return fmt.Errorf("at entry %d segment %x waits for copies", v.applied, row[1:])
			}
			return nil
		}),
		scan(v.rows, []byte{kindSegment}, func(row, value []byte) error {
			var owner segmentRow
			err := decodeRow(rowVersion, value, &owner)
			garbage += len(owner.Garbage)
			return err
		}),
		scan(v.rows, []byte{kindUsage}, func(row, value []byte) error {
			if len(row) == 1 {
				return nil
			}
			var u BucketUsage
			if err := decodeRow(rowVersion, value, &u); err != nil {
				return err
			}
			sum.Objects += u.Objects
			sum.Bytes += u.Bytes
			if want := t.usage([16]byte(row[1:])); u != want {
				return fmt.Errorf("at entry %d bucket %x has %+v, and not %+v", v.applied, row[1:], u, want)
			}
			return nil
		}))
	var totals totalsRow
	if err == nil {
		_, err = get(v.rows, totalsKey(), &totals)
	}
	if err == nil && (pending != len(t.pending) || garbage != len(t.garbage) || sum != (Totals{Objects: totals.Objects, Bytes: totals.Bytes})) {
		err = fmt.Errorf("at entry %d %d segments wait for copies, %d files are said to be garbage, and totals are %+v, and not %d, %d and %+v",
			v.applied, pending, garbage, totals, len(t.pending), len(t.garbage), sum)
	}
	return err
}
