package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
)

// fill writes a bucket and its records as apply leaves them.
func fill(t require, r *applier, bucket Bucket, keys []string) {
	t.Helper()
	b := r.store.NewBatch()
	if err := put(b, bucketKey(bucket.Name), &bucket); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		value, err := encodeRow(RecordVersion, &Record{Version: RecordVersion, Key: k, ETag: "e", Inline: []byte("x"), SizeBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Set(recordKey(bucket.ID, k, uint64(i+1)), value, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

// pages reads a whole listing and checks what every page promises.
func pages(t require, r *applier, id [16]byte, q RecordsQuery) (keys, prefixes []string) {
	t.Helper()
	for {
		a, err := r.ask(&Query{BucketID: id, Records: &q})
		if err != nil {
			t.Fatal(err)
		}
		n := len(a.Records) + len(a.CommonPrefixes)
		if n > pageSize(q.Limit) || a.More && n != pageSize(q.Limit) || a.More != (a.Next != "") {
			t.Fatalf("%d entries of %d, more %t, next %q", n, q.Limit, a.More, a.Next)
		}
		for _, rec := range a.Records {
			if rec.Inline != nil || rec.Segments != nil {
				t.Fatalf("a listing with payload: %+v", rec)
			}
			keys = append(keys, rec.Key)
		}
		prefixes = append(prefixes, a.CommonPrefixes...)
		if !a.More {
			return keys, prefixes
		}
		q.After = a.Next
	}
}

// A listing in pages of any size is what sorting, filtering and folding all
// keys gives.
func TestListing(t *testing.T) {
	r := newApplier(t, dataGroup, vfs.NewMem())
	defer r.close(t)
	number := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		number++
		keys := rapid.SliceOfNDistinct(objectKey(), 0, 30, rapid.ID[string]).Draw(t, "keys")
		bucket := Bucket{Name: fmt.Sprint("b", number), ID: [16]byte{byte(number >> 8), byte(number)}}
		fill(t, r, bucket, keys)
		fill(t, r, Bucket{Name: "neighbour", ID: [16]byte{byte(number >> 8), byte(number), 1}}, []string{"a", "a/b", "\U0010FFFF"})
		q := RecordsQuery{
			Bucket:    bucket.Name,
			Prefix:    rapid.SampledFrom([]string{"", "", "a", "a/", "b/", "/", "é"}).Draw(t, "prefix"),
			Delimiter: rapid.SampledFrom([]string{"", "/", "b", "//", "a/", "é"}).Draw(t, "delimiter"),
			After:     rapid.SampledFrom([]string{"", "", "a", "a/", "a/b", "a\x00b", "a\xff", "/", "z", "\xff"}).Draw(t, "after"),
			Limit:     rapid.IntRange(1, 5).Draw(t, "limit"),
		}
		var wantKeys, wantPrefixes []string
		slices.Sort(keys)
		for _, k := range keys {
			if !strings.HasPrefix(k, q.Prefix) || k <= q.After {
				continue
			}
			if i := strings.Index(k[len(q.Prefix):], q.Delimiter); q.Delimiter != "" && i >= 0 {
				wantPrefixes = append(wantPrefixes, k[:len(q.Prefix)+i+len(q.Delimiter)])
				continue
			}
			wantKeys = append(wantKeys, k)
		}
		gotKeys, gotPrefixes := pages(t, r, bucket.ID, q)
		if diff := gocmp.Diff(wantKeys, gotKeys); diff != "" {
			t.Fatalf("keys (-want +got):\n%s", diff)
		}
		if diff := gocmp.Diff(slices.Compact(wantPrefixes), gotPrefixes); diff != "" {
			t.Fatalf("common prefixes (-want +got):\n%s", diff)
		}
	})
}

// A page is bounded in bytes too: long records make it shorter, not larger.
func TestListingPageBytes(t *testing.T) {
	r := newApplier(t, dataGroup, vfs.NewMem())
	defer r.close(t)
	bucket := Bucket{Name: "b", ID: [16]byte{1}}
	fill(t, r, bucket, nil)
	b := r.store.NewBatch()
	const records = 700
	for i := range records {
		rec := Record{Version: RecordVersion, Key: fmt.Sprintf("%04d", i), ETag: "e", Metadata: Pairs{"m": strings.Repeat("x", MaxMetadataBytes-1)}}
		value, err := encodeRow(RecordVersion, &rec)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Set(recordKey(bucket.ID, rec.Key, 1), value, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	var total int
	for after, page := "", 0; ; page++ {
		a, err := r.ask(&Query{BucketID: bucket.ID, Records: &RecordsQuery{Bucket: "b", After: after}})
		if err != nil {
			t.Fatal(err)
		}
		if n := a.Msgsize(); n > maxPageBytes+16<<10 {
			t.Errorf("page %d has %d bytes", page, n)
		}
		total += len(a.Records)
		if !a.More {
			break
		}
		after = a.Next
	}
	if total != records {
		t.Errorf("%d records of %d", total, records)
	}
}

func TestBucketPages(t *testing.T) {
	r := newApplier(t, dataGroup, vfs.NewMem())
	defer r.close(t)
	var want, got []string
	for i := range 25 {
		name := fmt.Sprintf("b%02d", i)
		fill(t, r, Bucket{Name: name, ID: [16]byte{byte(i)}}, nil)
		want = append(want, name)
	}
	q := &BucketsQuery{Limit: 10}
	for {
		a, err := r.ask(&Query{Buckets: q})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range a.Buckets {
			got = append(got, b.Name)
		}
		if !a.More {
			break
		}
		if len(a.Buckets) != 10 {
			t.Fatalf("a page of %d", len(a.Buckets))
		}
		q.After = a.Next
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMissingThings(t *testing.T) {
	c := openAlone(t, Options{})
	mustPut(t, c, createBucket(t, c, "b"), "there/too", "e")
	for _, tc := range []struct {
		q    Query
		kind fault.Kind
		text string
	}{
		{Query{Bucket: &BucketQuery{Name: "x"}}, fault.BucketNotFound, `bucket "x": doesn't exist`},
		{Query{Begin: &BeginQuery{Bucket: "x"}}, fault.BucketNotFound, `bucket "x": doesn't exist`},
		{Query{Records: &RecordsQuery{Bucket: "x"}}, fault.BucketNotFound, `bucket "x": doesn't exist`},
		{Query{Record: &RecordQuery{Bucket: "x", Key: "k"}}, fault.BucketNotFound, `bucket "x": doesn't exist`},
		{Query{Record: &RecordQuery{Bucket: "b", Key: "there"}}, fault.ObjectNotFound, `object "b/there": doesn't exist`},
		{Query{Record: &RecordQuery{Bucket: "b", Key: "there/to"}}, fault.ObjectNotFound, `object "b/there/to": doesn't exist`},
	} {
		for _, age := range []time.Duration{0, time.Minute} {
			tc.q.MaxAge = age
			if _, err := c.Read(t.Context(), &tc.q); fault.KindOf(err) != tc.kind || err.Error() != tc.text {
				t.Errorf("%+v: %v", tc.q, err)
			}
		}
	}
}

// A row that can't be read fails the query: it is neither skipped nor taken
// for something that isn't there.
func TestUnreadableRows(t *testing.T) {
	r := newApplier(t, dataGroup, vfs.NewMem())
	defer r.close(t)
	fill(t, r, Bucket{Name: "b", ID: [16]byte{1}}, []string{"a", "k"})
	for _, row := range [][]byte{bucketKey("newer"), recordKey([16]byte{1}, "k", 2), segmentKey([16]byte{})} {
		if err := r.store.Set(row, []byte{9, 0x80}, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []Query{
		{Bucket: &BucketQuery{Name: "newer"}},
		{Buckets: &BucketsQuery{}},
		{Record: &RecordQuery{Bucket: "b", Key: "k"}},
		{Records: &RecordsQuery{Bucket: "b"}},
		{Segments: &SegmentsQuery{IDs: [][16]byte{{}}}},
	} {
		q.BucketID = [16]byte{1}
		a, err := r.ask(&q)
		if err == nil || !strings.Contains(err.Error(), "version 9 is not known here") {
			t.Errorf("%+v: %+v, %v", q, a, err)
		}
	}
}
