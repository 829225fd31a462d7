package control

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/fault"
)

// listings are those that give a full page of a bucket that spread has made: how
// much there is in front of the page, behind it, and folded away in it is all that n
// changes.
var listings = []struct {
	name string
	ask  func(n, page int) RecordsQuery
}{
	{"from the beginning", func(_, _ int) RecordsQuery { return RecordsQuery{} }},
	{"start after", func(n, page int) RecordsQuery { return RecordsQuery{After: spreadKey(n-page-1, n, page)} }},
	{"of a folder, start after", func(n, page int) RecordsQuery {
		return RecordsQuery{Prefix: "a/b/", Delimiter: "/", After: spreadKey(n-page-1, n, page)}
	}},
	{"all folded into one prefix", func(_, _ int) RecordsQuery { return RecordsQuery{Delimiter: "/"} }},
	{foldedPage, func(_, _ int) RecordsQuery { return RecordsQuery{Prefix: "a/b/", Delimiter: "-"} }},
}

const foldedPage = "a page of prefixes"

// spreadKey is the i-th of n keys in one folder that a page of others lies behind.
// Up to the hyphen there are as many as a page has room for.
func spreadKey(i, n, page int) string {
	if i >= n {
		return fmt.Sprintf("side-%06d", i-n)
	}
	return fmt.Sprintf("a/b/%06d-%09d", i/(n/page), i)
}

// spread is bulk for the listings.
func spread(t testing.TB, fs vfs.FS, dir string, n, page int) *disk.Store {
	t.Helper()
	return bulk(t, fs, dir, n+page, func(i int) string { return spreadKey(i, n, page) })
}

var listedBucket = Bucket{Name: "b", ID: [16]byte{1}}

// bulk writes the rows of n records as apply leaves them, in an order that
// spreads them over all tables, to a store as a data group's is.
func bulk(t testing.TB, fs vfs.FS, dir string, n int, key func(i int) string) *disk.Store {
	t.Helper()
	s, err := disk.Open(fs, dir, stateOptions(dataGroup), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rec := Record{
		Version: RecordVersion, ETag: strings.Repeat("0123456789abcdef", 4), SHA256: make([]byte, 32), CRC32C: 1, CRC64NVME: 2,
		ContentType: "application/octet-stream", SizeBytes: 1 << 20, LogTime: 1,
		Segments: []Segment{{SizeBytes: 1 << 20, Drives: []string{strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32)}}},
	}
	const stride, flushes = 7919, 4 // a prime that n isn't a multiple of: every one is met
	b := s.NewBatch()
	commit := func() {
		if err := b.Commit(pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = s.NewBatch()
	}
	var row []byte
	for i := range n {
		rec.Key = key(int(int64(i) * stride % int64(n)))
		rec.VersionID, rec.Segments[0].ID = randomID(), randomID()
		if row, err = rec.MarshalMsg(append(row[:0], RecordVersion)); err != nil {
			t.Fatal(err)
		}
		if err := b.Set(recordKey(listedBucket.ID, rec.Key, uint64(i+1)), row, nil); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 1<<20 || (i+1)%(n/flushes) == 0 {
			commit()
		}
		if (i+1)%(n/flushes) == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit()
	return s
}

// listOnce reads one page, which has to be full, and gives what Pebble did for it.
func listOnce(t testing.TB, s *disk.Store, q RecordsQuery, page int) pebble.IteratorStats {
	t.Helper()
	q.Bucket, q.Limit = listedBucket.Name, page
	a := &Answer{}
	first := recordPosition(listedBucket.ID, q.Prefix)
	it, err := s.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: after(first)})
	if err != nil {
		t.Fatal(err)
	}
	if err := list(it, a, listedBucket.ID, &q); err != nil {
		t.Fatal(err)
	}
	if n := len(a.Records) + len(a.CommonPrefixes); n != page {
		t.Fatalf("%d entries on a page of %d", n, page)
	}
	stats := it.Stats()
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return stats
}

// wantSameWork compares what two pages cost in seeks and steps, at the iterator and
// at what is below it.
func wantSameWork(t *testing.T, small, large *pebble.IteratorStats) {
	t.Helper()
	for kind, name := range []string{pebble.InterfaceCall: "the iterator", pebble.InternalIterCall: "the merged tables"} {
		for _, c := range []struct {
			what         string
			small, large int
		}{
			{"seeks", small.ForwardSeekCount[kind], large.ForwardSeekCount[kind]},
			{"steps", small.ForwardStepCount[kind], large.ForwardStepCount[kind]},
			{"seeks and steps back", small.ReverseSeekCount[kind] + small.ReverseStepCount[kind], large.ReverseSeekCount[kind] + large.ReverseStepCount[kind]},
		} {
			if diff := c.large - c.small; 10*max(diff, -diff) > c.small {
				t.Errorf("%s at %s: %d, and %d where there is little", c.what, name, c.large, c.small)
			}
		}
	}
}

// A page takes as many seeks and steps where there are forty times as many
// keys, in front of it, behind it, or folded away.
func TestListingIsFlat(t *testing.T) {
	const page, few, many = 40, 120, 4_800
	small, large := spread(t, vfs.NewMem(), "s", few, page), spread(t, vfs.NewMem(), "s", many, page)
	for _, l := range listings {
		t.Run(l.name, func(t *testing.T) {
			of, than := listOnce(t, large, l.ask(many, page), page), listOnce(t, small, l.ask(few, page), page)
			wantSameWork(t, &than, &of)
			if seeks, steps := of.ForwardSeekCount[pebble.InterfaceCall], of.ForwardStepCount[pebble.InterfaceCall]; seeks+steps > page+2 {
				t.Errorf("%d seeks and %d steps for %d entries", seeks, steps, page)
			}
		})
	}
	if err := errors.Join(small.Close(), large.Close()); err != nil {
		t.Error(err)
	}
}

// clearFirst deletes the first n records.
func clearFirst(t testing.TB, s *disk.Store, n int) {
	t.Helper()
	var rows [][]byte
	err := scan(s, recordPosition(listedBucket.ID, ""), func(row, _ []byte) error {
		if len(rows) == n {
			return errEnough
		}
		rows = append(rows, bytes.Clone(row))
		return nil
	})
	for batch := range slices.Chunk(rows, 100) { // a large one wouldn't go into the memtable
		b := s.NewBatch()
		for _, row := range batch {
			err = errors.Join(err, b.Delete(row, nil))
		}
		err = errors.Join(err, b.Commit(pebble.NoSync), b.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A listing that has to step over many deleted rows has them cleared away, and
// those that follow don't meet them.
func TestListingClearsTheDead(t *testing.T) {
	const keys, deleted, page = 5_500, 5_200, 100
	s := bulk(t, vfs.NewMem(), "s", keys, func(i int) string { return fmt.Sprintf("%09d", i) })
	r := &applier{store: s, m: &machine{}}
	defer r.close(t)
	clearFirst(t, s, deleted)
	dead := func() int {
		stats := listOnce(t, s, RecordsQuery{}, page)
		return deadRows(&stats)
	}
	if n := dead(); n < manyDead {
		t.Fatalf("only %d rows are in the way", n)
	}
	q := Query{BucketID: listedBucket.ID, Records: &RecordsQuery{Bucket: listedBucket.Name, Limit: page}}
	first, err := r.ask(&q)
	if err != nil {
		t.Fatal(err)
	}
	for n, began := dead(), time.Now(); n > page; n = dead() {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d rows are still in the way", n)
		}
	}
	second, err := r.ask(&q)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Records) != page || first.Records[0].Key != fmt.Sprintf("%09d", deleted) || !slices.EqualFunc(first.Records, second.Records, sameKey) {
		t.Errorf("%d records, and %d afterwards", len(first.Records), len(second.Records))
	}
}

// Clearing away ends with the store.
func TestTidyEndsWithTheStore(t *testing.T) {
	s := bulk(t, vfs.NewMem(), "s", 1000, func(i int) string { return fmt.Sprintf("%09d", i) })
	clearFirst(t, s, 500)
	first := recordPosition(listedBucket.ID, "")
	s.Tidy(first, after(first))
	if err := errors.Join(s.Close(), s.Err()); err != nil {
		t.Error(err)
	}
}

func sameKey(a, b Record) bool { return a.Key == b.Key }

// What comes and goes between the pages of a listing may be on one of them; what
// is there all the while is, once, whether as itself or folded; what isn't there
// at any time never is; and the order is strict.
func TestListingIsStable(t *testing.T) {
	number := uint16(0)
	r := newApplier(t, dataGroup, vfs.NewMem())
	defer r.close(t)
	clock := int64(1)
	rapid.Check(t, func(t *rapid.T) {
		number++
		l := &stableListing{applier: r, clock: &clock, bucket: Bucket{Name: "b", ID: [16]byte{byte(number >> 8), byte(number)}}, live: map[string]bool{}}
		for range rapid.IntRange(0, 20).Draw(t, "keys at first") {
			l.change(t)
		}
		l.q = RecordsQuery{
			Bucket: "b", Limit: rapid.IntRange(1, 4).Draw(t, "limit"),
			Prefix:    rapid.SampledFrom([]string{"", "", "a", "b/"}).Draw(t, "prefix"),
			Delimiter: rapid.SampledFrom([]string{"", "/"}).Draw(t, "delimiter"),
		}
		l.run(t)
	})
}

// stableListing is a listing in pages, with changes between them.
type stableListing struct {
	*applier
	clock  *int64
	bucket Bucket
	q      RecordsQuery

	live map[string]bool
	// ever and gone are the entries that were and that weren't there at some time
	// since the listing began.
	ever, gone map[string]bool
}

// change puts or deletes one key.
func (l *stableListing) change(t *rapid.T) {
	key := rapid.StringMatching(`[ab]{1,2}(/[ab]{1,2})?`).Draw(t, "key")
	*l.clock++
	if rapid.Bool().Draw(t, "delete") {
		if out := l.next(t, *l.clock, &Command{DeleteRecords: &DeleteRecords{Bucket: l.bucket.Name, BucketID: l.bucket.ID, Keys: []string{key}}}); out.Refused && fault.Kind(out.Kind) != fault.ObjectNotFound {
			t.Fatalf("%+v", out)
		}
		delete(l.live, key)
	} else {
		if out := l.next(t, *l.clock, putOf(&l.bucket, key, "e")); out.Refused {
			t.Fatalf("%+v", out)
		}
		l.live[key] = true
	}
	l.commit(t)
}

// entries is what a listing of what is live gives.
func (l *stableListing) entries() map[string]bool {
	found := map[string]bool{}
	for key := range l.live {
		if !strings.HasPrefix(key, l.q.Prefix) {
			continue
		}
		if folded, is := commonPrefix([]byte(key), l.q.Prefix, l.q.Delimiter); is {
			key = string(folded)
		}
		found[key] = true
	}
	return found
}

// note takes down what is there now.
func (l *stableListing) note() {
	now := l.entries()
	for key := range now {
		if !l.ever[key] {
			l.gone[key] = true // it wasn't before
		}
		l.ever[key] = true
	}
	for key := range l.ever {
		if !now[key] {
			l.gone[key] = true
		}
	}
}

func (l *stableListing) run(t *rapid.T) {
	l.ever, l.gone = l.entries(), map[string]bool{}
	var got []string
	for {
		a, err := l.ask(&Query{BucketID: l.bucket.ID, Records: &l.q})
		if err != nil {
			t.Fatal(err)
		}
		page := slices.Clone(a.CommonPrefixes)
		for _, rec := range a.Records {
			page = append(page, rec.Key)
		}
		slices.Sort(page)
		got = append(got, page...)
		if !a.More {
			break
		}
		l.q.After = a.Next
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			l.change(t)
			l.note()
		}
	}
	for i, key := range got {
		if i > 0 && got[i-1] >= key {
			t.Fatalf("%q comes before %q", got[i-1], key)
		}
		if !l.ever[key] {
			t.Fatalf("%q was given and never there", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(l.ever)) {
		if _, is := slices.BinarySearch(got, key); !l.gone[key] && !is {
			t.Fatalf("%q was there all the while, and isn't among %q", key, got)
		}
	}
}
