package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/node/fault"
)

// answer answers a valid query from one consistent state. It reads nothing
// else, and its work is bounded by the page that was asked for. Queries that
// name a bucket have its id; Answer.Bucket is left to whoever found that.
func (v *view) answer(q *Query) (*Answer, error) {
	a := &Answer{LogTime: v.logTime}
	if name, _ := q.ofBucket(); name != "" {
		if err := v.open.check(v, name, q.BucketID); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case q.Deployment != nil:
		a.Deployment = v.deployment
	case q.Topology != nil:
		a.Topology = v.topology
	case q.Bucket != nil:
		err = v.bucket(a, q.Bucket.Name)
	case q.Buckets != nil:
		err = v.buckets(a, q.Buckets)
	case q.Record != nil:
		err = v.record(a, q.BucketID, q.Record)
	case q.Records != nil:
		err = v.records(a, q.BucketID, q.Records)
	case q.Garbage != nil:
		err = v.garbage(a, q.Garbage)
	case q.Segments != nil:
		err = v.segments(a, q.Segments)
	case q.Usage != nil:
		err = v.usage(a, q.Usage)
	case q.Begin != nil:
		err = v.begin(q.BucketID, q.Begin)
	case q.Copies != nil:
		err = v.copies(a, q.Copies)
	case q.Scrub != nil:
		err = v.scrub(a)
	case q.BucketUsage != nil:
		err = v.bucketUsage(a, q.BucketID)
	case q.BucketUsages != nil:
		err = v.bucketUsages(a, q.BucketUsages.IDs)
	case q.Totals != nil:
		err = v.totals(a)
	default:
		err = v.answerIAM(a, q)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// pageSize is the number of entries that a limit means.
func pageSize(limit int) int {
	if limit == 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

func (v *view) bucket(a *Answer, name string) error {
	bucket, err := findBucket(v.rows, name)
	a.Bucket = &bucket
	return err
}

func (v *view) buckets(a *Answer, q *BucketsQuery) (err error) {
	limit := pageSize(q.Limit)
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: append(bucketKey(q.After), 0), UpperBound: after([]byte{kindBucket})})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	for ok := it.First(); ok; ok = it.Next() {
		if len(a.Buckets) == limit {
			a.More, a.Next = true, a.Buckets[limit-1].Name
			break
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		var bucket Bucket
		if err := decodeRow(rowVersion, value, &bucket); err != nil {
			return err
		}
		a.Buckets = append(a.Buckets, bucket)
	}
	return it.Error()
}

func (v *view) record(a *Answer, bucket [16]byte, q *RecordQuery) error {
	at := place{bucket, q.Key}
	if found := v.kept.get(at); found != nil {
		a.Record, a.Made = &found.Record, &found.made
		return nil
	}
	found, err := v.find(bucket, q.Key)
	if err != nil {
		return err
	}
	if found == nil {
		return fault.New(fault.ObjectNotFound, objectSubject(q.Bucket, q.Key), "doesn't exist")
	}
	v.kept.add(at, found)
	a.Record = &found.Record
	return nil
}

// recordAt reads the record that the iterator is at.
func recordAt(it *pebble.Iterator) (rec Record, err error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return rec, err
	}
	if err := decodeRow(RecordVersion, value, &rec); err != nil {
		return rec, fmt.Errorf("at %q: %w", it.Key(), err)
	}
	rec.Inline = bytes.Clone(rec.Inline) // the value is the iterator's
	return rec, nil
}

func (v *view) garbage(a *Answer, q *GarbageQuery) (err error) {
	limit := pageSize(q.Limit)
	bounds := &pebble.IterOptions{LowerBound: garbagePosition(q.Drive, 0), UpperBound: garbagePosition(q.Drive, q.Before)}
	if len(q.Present) > 0 {
		bounds = &pebble.IterOptions{LowerBound: []byte{kindGarbage}, UpperBound: after([]byte{kindGarbage})}
	}
	it, err := v.rows.NewIter(bounds)
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	for ok := it.First(); ok; ok = it.Next() {
		g, err := parseGarbageKey(it.Key())
		for err == nil && slices.Contains(q.Present, g.Drive) {
			if !it.SeekGE(garbagePosition(g.Drive, -1)) { // behind all of that drive
				return it.Error()
			}
			g, err = parseGarbageKey(it.Key())
		}
		if err != nil {
			return err
		}
		if len(a.Garbage) == limit {
			a.More = true
			break
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		var row garbageRow
		if err := decodeRow(rowVersion, value, &row); err != nil {
			return err
		}
		g.SizeBytes = row.SizeBytes
		if g.LogTime >= q.Before {
			continue // with Present, all ages are in the range
		}
		a.Garbage = append(a.Garbage, g)
	}
	return it.Error()
}

func (v *view) segments(a *Answer, q *SegmentsQuery) error {
	a.Known = make([]bool, len(q.IDs))
	owners := owners{v: v, records: map[place]*foundRecord{}}
	for i, id := range q.IDs {
		var row segmentRow
		found, err := get(v.rows, segmentKey(id), &row)
		if err != nil {
			return err
		}
		a.Known[i] = found
		if !found || q.Drive == "" || slices.Contains(row.Garbage, q.Drive) {
			continue
		}
		_, s, err := owners.of(id, &row)
		if err != nil {
			return err
		}
		a.Known[i] = s != nil && slices.Contains(s.Drives, q.Drive)
	}
	return nil
}

// usageRows is how many records one UsageQuery looks at.
const usageRows = 10_000

func (v *view) usage(a *Answer, q *UsageQuery) (err error) {
	from := []byte{kindRecord}
	if q.After != "" {
		from = []byte(q.After)
	}
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after([]byte{kindRecord})})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	set := make(map[string]bool, len(q.Drives))
	for _, d := range q.Drives {
		set[d] = true
	}
	safe := make(map[string]bool, len(q.Elsewhere))
	for _, d := range q.Elsewhere {
		safe[d] = true
	}
	asked := func(d string) bool { return set[d] }
	other := func(d string) bool { return !set[d] && (len(safe) == 0 || safe[d]) }
	count := 0
	ok := it.First()
	if ok && string(it.Key()) == q.After {
		ok = it.Next()
	}
	var rec Record
	for ; ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = decodeSegments(value, &rec)
		}
		if err != nil {
			return err
		}
		for i := range rec.Segments {
			if drives := rec.Segments[i].Drives; slices.ContainsFunc(drives, asked) && (!q.Sole || !slices.ContainsFunc(drives, other)) {
				a.Used = true
				return nil
			}
		}
		if count++; count == usageRows {
			a.More, a.Next = true, string(it.Key())
			return nil
		}
	}
	return it.Error()
}

// checksum is a hash over all rows. Two nodes that have applied the same
// entries have the same one: where they don't, they have diverged.
func checksum(r pebble.Reader) (sum uint64, err error) {
	it, err := r.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer closeInto(&err, it)
	h := xxh3.New()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return 0, err
		}
		for _, part := range [][]byte{it.Key(), value} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			_, _ = h.Write(size[:])
			_, _ = h.Write(part)
		}
	}
	return h.Sum64(), it.Error()
}
