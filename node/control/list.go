package control

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// manyDead is how many rows a listing may step over beside those that it gives
// before they are cleared away. A step takes a tenth of a microsecond.
const manyDead = 10_000

func (v *view) records(a *Answer, bucket [16]byte, q *RecordsQuery) (err error) {
	first := recordPosition(bucket, q.Prefix)
	end := after(first)
	it, err := v.rows.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: end})
	if err != nil {
		return err
	}
	defer closeInto(&err, it)
	if err := list(it, a, bucket, q); err != nil {
		return err
	}
	if stats := it.Stats(); deadRows(&stats) > manyDead {
		if q.After > q.Prefix {
			first = appendBehind(nil, bucket, q.After)
		}
		if a.More {
			end = appendBehind(nil, bucket, a.Next)
		}
		v.store.Tidy(first, end)
	}
	return nil
}

// deadRows is how many rows an iterator has stepped over which its user hasn't
// seen: those that were deleted, and what deleted them.
func deadRows(s *pebble.IteratorStats) int {
	return s.ForwardStepCount[pebble.InternalIterCall] - s.ForwardStepCount[pebble.InterfaceCall]
}

// list fills a page from the rows that begin with the prefix. Every turn of
// the loop gives one entry and moves the iterator on, by one row most often and
// by a seek over a whole common prefix: what a page costs doesn't depend on how
// much there is.
func list(it *pebble.Iterator, a *Answer, bucket [16]byte, q *RecordsQuery) error {
	limit, room := pageSize(q.Limit), maxPageBytes
	behind := appendBehind(nil, bucket, q.After)
	ok := it.SeekGE(behind)
	for count := 0; ok; count++ {
		if count == limit || room <= 0 {
			a.More = true
			return it.Error()
		}
		_, key, _, err := parseRecordKey(it.Key())
		if err != nil {
			return err
		}
		if folded, is := commonPrefix(key, q.Prefix, q.Delimiter); is {
			a.CommonPrefixes = append(a.CommonPrefixes, string(folded))
			a.Next = string(folded) + "\xff"
			room -= len(folded)
			behind = appendBehind(behind[:0], bucket, a.Next)
			ok = it.SeekGE(behind)
		} else {
			a.Records = append(a.Records, Record{})
			rec := &a.Records[len(a.Records)-1]
			if err := listedAt(it, rec); err != nil {
				return err
			}
			a.Next = rec.Key
			room -= rec.Msgsize()
			behind = appendBehind(behind[:0], bucket, a.Next)
			if ok = it.Next(); ok && bytes.Compare(it.Key(), behind) < 0 { // an older version
				ok = it.SeekGE(behind)
			}
		}
	}
	a.Next = ""
	return it.Error()
}

// listedAt reads what a listing gives of the record that the iterator is at.
func listedAt(it *pebble.Iterator, rec *Record) error {
	value, err := it.ValueAndErr()
	if err == nil {
		err = decodeRow(RecordVersion, value, (*listedRecord)(rec))
	}
	if err != nil {
		return fmt.Errorf("at %q: %w", it.Key(), err)
	}
	return nil
}

// appendBehind is where the rows of the keys behind a position begin. The
// rows of a key K are K, NUL and an index, and no key has a NUL: so those of
// the keys behind K begin at K and 1. A position with a NUL stands, to keys
// without one, where the part before it does.
func appendBehind(dst []byte, bucket [16]byte, position string) []byte {
	dst = append(append(dst, kindRecord), bucket[:]...)
	if position == "" {
		return dst
	}
	position, _, _ = strings.Cut(position, "\x00")
	return append(append(dst, position...), 1)
}

// commonPrefix is what a key is folded into, and whether it is.
func commonPrefix(key []byte, prefix, delimiter string) ([]byte, bool) {
	if delimiter == "" {
		return nil, false
	}
	i := bytes.Index(key[len(prefix):], []byte(delimiter))
	if i < 0 {
		return nil, false
	}
	return key[:len(prefix)+i+len(delimiter)], true
}
