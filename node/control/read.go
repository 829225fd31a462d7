package control

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

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
	found, err := v.find(bucket, q.Key)
	if err != nil {
		return err
	}
	if found == nil {
		return fault.New(fault.ObjectNotFound, objectSubject(q.Bucket, q.Key), "doesn't exist")
	}
	a.Record = &found.Record
	return nil
}

func (v *view) records(a *Answer, bucket [16]byte, q *RecordsQuery) (err error) {
	first := recordPosition(bucket, q.Prefix)
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: after(first)})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	return list(it, a, bucket, q)
}

// list fills a page from the rows that begin with the prefix. Every turn of
// the loop gives one entry and moves the iterator once, over a whole common
// prefix too, so a page costs no more than its limit in seeks.
func list(it *pebble.Iterator, a *Answer, bucket [16]byte, q *RecordsQuery) error {
	limit, room := pageSize(q.Limit), maxPageBytes
	ok := it.SeekGE(recordsBehind(bucket, q.After))
	for count := 0; ok; count++ {
		if count == limit || room <= 0 {
			a.More = true
			return it.Error()
		}
		_, key, _, err := parseRecordKey(it.Key())
		if err != nil {
			return err
		}
		if folded, is := commonPrefix(string(key), q.Prefix, q.Delimiter); is {
			a.CommonPrefixes = append(a.CommonPrefixes, folded)
			a.Next = folded + "\xff"
			room -= len(folded)
		} else {
			rec, err := recordAt(it)
			if err != nil {
				return err
			}
			rec.Inline, rec.Segments = nil, nil
			a.Records = append(a.Records, rec)
			a.Next = rec.Key
			room -= rec.Msgsize()
		}
		ok = it.SeekGE(recordsBehind(bucket, a.Next))
	}
	a.Next = ""
	return it.Error()
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
	return rec, nil
}

// recordsBehind is where the rows of the keys behind a position begin. The
// rows of a key K are K, NUL and an index, and no key has a NUL: so those of
// the keys behind K begin at K and 1. A position with a NUL stands, to keys
// without one, where the part before it does.
func recordsBehind(bucket [16]byte, position string) []byte {
	if position == "" {
		return recordPosition(bucket, "")
	}
	position, _, _ = strings.Cut(position, "\x00")
	return append(recordPosition(bucket, position), 1)
}

// commonPrefix is what a key is folded into, and whether it is.
func commonPrefix(key, prefix, delimiter string) (string, bool) {
	if delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(prefix):], delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(prefix)+i+len(delimiter)], true
}

func (v *view) garbage(a *Answer, q *GarbageQuery) (err error) {
	limit := pageSize(q.Limit)
	it, err := v.rows.NewIter(&pebble.IterOptions{
		LowerBound: garbagePosition(q.Drive, 0),
		UpperBound: garbagePosition(q.Drive, q.Before),
	})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	for ok := it.First(); ok; ok = it.Next() {
		if len(a.Garbage) == limit {
			a.More = true
			break
		}
		g, err := parseGarbageKey(it.Key())
		if err != nil {
			return err
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
