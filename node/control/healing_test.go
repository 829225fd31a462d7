package control

import (
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Segments are found by their ids, those that a record has.
func TestCopiesByID(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	b := &Bucket{Name: "b", ID: [16]byte{1}}
	for _, c := range []*Command{
		segmented(b, "k", 10, 5, "d"), segmented(b, "l", 20, 1, "d", "e"),
		{DeleteRecords: &DeleteRecords{Bucket: "b", BucketID: b.ID, Keys: []string{"l"}}},
	} {
		if out := a.next(t, 1, c); out.Refused {
			t.Fatalf("%+v", out)
		}
	}
	ids := [][16]byte{segmentID(14), segmentID(20), segmentID(11), segmentID(99)}
	if got, _ := a.pageOf(t, CopiesQuery{IDs: ids}); !slices.Equal(got, []int{14, 11}) {
		t.Errorf("found %v, want 14 and 11", got)
	}
	for _, q := range []CopiesQuery{{IDs: ids, Pending: true}, {IDs: ids, After: "x"}, {IDs: make([][16]byte, MaxSegmentIDs+1)}} {
		if q.validate() == nil {
			t.Errorf("a query of %d ids, pending %v, after %q, is taken", len(q.IDs), q.Pending, q.After)
		}
	}
}

// A change that was made from other drives than the record lists is refused, and
// one that was made before is not.
func TestRecopySeen(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	if out := a.next(t, 1, segmented(&Bucket{Name: "b", ID: [16]byte{1}}, "k", 10, 1, "d", "e", "f")); out.Refused {
		t.Fatalf("%+v", out)
	}
	for i, step := range []struct {
		change CopyChange
		want   CopyFate
	}{
		{CopyChange{Remove: []string{"d"}, Settled: true, Seen: []string{"d", "e"}}, FateRefused},
		{CopyChange{Remove: []string{"d"}, Settled: true, Seen: []string{"f", "e", "d"}}, FateDone},
		{CopyChange{Remove: []string{"d"}, Settled: true, Seen: []string{"f", "e", "d"}}, FateDone}, // once more
		{CopyChange{Remove: []string{"e"}, Settled: true, Seen: []string{"f", "e", "d"}}, FateRefused},
		{CopyChange{Remove: []string{"e"}, Seen: []string{"e", "f"}}, FateDone},
		{CopyChange{Settled: true, Seen: []string{"e", "f"}}, FateRefused},
		{CopyChange{Settled: true, Seen: []string{"f"}}, FateDone},
	} {
		step.change.ID = segmentID(10)
		out := a.next(t, 1, &Command{Recopy: &Recopy{Entries: []CopyChange{step.change}}})
		if out.Refused || CopyFate(out.Fates[0]) != step.want {
			t.Fatalf("step %d: %+v, want fate %v", i, out, step.want)
		}
	}
}

// The garbage of the drives that are gone is given, and no other.
func TestGarbageOfDrivesThatAreGone(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	b := &Bucket{Name: "b", ID: [16]byte{1}}
	for _, c := range []*Command{
		segmented(b, "k", 10, 5, "a", "aa", "b", "c", "cc"),
		{DeleteRecords: &DeleteRecords{Bucket: "b", BucketID: b.ID, Keys: []string{"k"}}},
	} {
		if out := a.next(t, 1, c); out.Refused {
			t.Fatalf("%+v", out)
		}
	}
	a.commit(t)
	for _, tc := range []struct{ present, want []string }{
		{[]string{"a", "b", "cc"}, []string{"aa", "c"}},
		{[]string{"c", "cc", "a", "aa", "b", "zz"}, nil},
		{[]string{"x"}, []string{"a", "aa", "b", "c", "cc"}},
	} {
		got := map[string]int{}
		q := &GarbageQuery{Present: tc.present, Before: math.MaxInt64}
		if err := (&Query{Version: QueryVersion, Garbage: q}).validate(); err != nil {
			t.Fatal(err)
		}
		answer, err := a.ask(&Query{Garbage: q})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range answer.Garbage {
			got[g.Drive]++
		}
		if len(got) != len(tc.want) {
			t.Errorf("with %v present: %v, want those of %v", tc.present, got, tc.want)
		}
		for _, d := range tc.want {
			if got[d] != 5 {
				t.Errorf("with %v present: %d of drive %s, want 5", tc.present, got[d], d)
			}
		}
	}
	q := &GarbageQuery{Present: []string{"a"}, Drive: "b", Before: 1}
	if (&Query{Version: QueryVersion, Garbage: q}).validate() == nil {
		t.Error("a query of a drive's garbage and of that of others is taken")
	}
}
