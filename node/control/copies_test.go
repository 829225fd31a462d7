package control

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/fault"
)

// segmented is a put of a record with that many segments, numbered from first.
func segmented(b *Bucket, key string, first, count int, drives ...string) *Command {
	rec := Record{Key: key, ETag: "e", SizeBytes: int64(count)}
	for i := range count {
		rec.Segments = append(rec.Segments, Segment{ID: segmentID(first + i), SizeBytes: 1, Drives: drives})
	}
	return &Command{PutRecord: &PutRecord{BucketName: b.Name, BucketID: b.ID, Birth: 1, Record: rec}}
}

func segmentID(n int) [16]byte { return [16]byte{byte(n >> 16), byte(n >> 8), byte(n)} }

// pageOf asks for a page, and gives the numbers of the segments on it.
func (a *applier) pageOf(t *testing.T, q CopiesQuery) (numbers []int, next string) {
	t.Helper()
	a.commit(t)
	got, err := a.ask(&Query{Copies: &q})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.Copies {
		numbers = append(numbers, int(c.ID[0])<<16|int(c.ID[1])<<8|int(c.ID[2]))
	}
	if got.More != (got.Next != "") {
		t.Errorf("more is %v, and next %q", got.More, got.Next)
	}
	return numbers, got.Next
}

// A record that is overwritten, changed or deleted between two pages is met as
// it is then, and those behind it are as well.
func TestCopiesWhileRecordsChange(t *testing.T) {
	one := &Bucket{Name: "b", ID: [16]byte{1}}
	for name, tc := range map[string]struct {
		change *Command
		want   []int
	}{
		"nothing":     {&Command{NoteScrub: &NoteScrub{Scrub: ScrubState{Round: 1}}}, []int{13, 14, 20}},
		"overwritten": {segmented(one, "k", 30, 2, "d"), []int{30, 31, 20}},
		"deleted":     {&Command{DeleteRecords: &DeleteRecords{Bucket: "b", BucketID: one.ID, Keys: []string{"k"}}}, []int{20}},
		"recopied":    {&Command{Recopy: &Recopy{Birth: 1, Entries: []CopyChange{{ID: segmentID(14), Add: []string{"e"}}}}}, []int{13, 14, 20}},
		"moved on":    {moveOf(one, "k", one, "y"), []int{10, 11, 12, 13, 14, 20}},
		"moved back":  {moveOf(one, "k", one, "a"), []int{20}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApplier(t, dataGroup, vfs.NewMem())
			defer a.close(t)
			for _, c := range []*Command{segmented(one, "k", 10, 5, "d"), segmented(one, "z", 20, 1, "d")} {
				if out := a.next(t, 1, c); out.Refused {
					t.Fatalf("%+v", out)
				}
			}
			first, next := a.pageOf(t, CopiesQuery{Limit: 3})
			if !slices.Equal(first, []int{10, 11, 12}) {
				t.Fatalf("the first page has %v", first)
			}
			if out := a.next(t, 1, tc.change); out.Refused {
				t.Fatalf("%+v", out)
			}
			rest, next := a.pageOf(t, CopiesQuery{After: next})
			if !slices.Equal(rest, tc.want) || next != "" {
				t.Errorf("the second page has %v, want %v; next %q", rest, tc.want, next)
			}
		})
	}
}

// A page looks at no more than it may, and goes on where it stopped.
func TestCopiesAreBounded(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	b := &Bucket{Name: "b", ID: [16]byte{1}}
	const records, unfinished = copiesLooks/MaxSegments + 2, 3
	for i := range records {
		c := segmented(b, fmt.Sprintf("k%03d", i), i*MaxSegments, MaxSegments, "d", "e")
		if i < unfinished {
			c.PutRecord.Copies = 3
		}
		if out := a.next(t, 1, c); out.Refused {
			t.Fatalf("%+v", out)
		}
	}
	a.commit(t)
	for _, q := range []CopiesQuery{{Good: []string{"d", "e"}, Want: 2}, {Pending: true, Good: []string{"d", "e"}, Want: 2}} {
		pages := 0
		for {
			all, next := a.pageOf(t, q)
			if len(all) > 0 {
				t.Fatalf("%v aren't well", all)
			}
			pages++
			if next == "" {
				break
			}
			q.After = next
		}
		if want := map[bool]int{false: 2, true: 1}[q.Pending]; pages != want {
			t.Errorf("%d pages, pending %v", pages, q.Pending)
		}
	}
	count, q := 0, CopiesQuery{Pending: true}
	for {
		all, next := a.pageOf(t, q)
		for i, n := range all {
			if n != count+i {
				t.Fatalf("number %d is %d", count+i, n)
			}
		}
		count += len(all)
		if q.After = next; next == "" {
			break
		}
	}
	if count != unfinished*MaxSegments {
		t.Errorf("%d are pending", count)
	}
	// A page is bounded in bytes as well.
	long := strings.Repeat("x", MaxNameBytes-2)
	var drives []string
	for i := range 5 {
		drives = append(drives, fmt.Sprint(long, i))
	}
	if out := a.next(t, 1, segmented(b, "a", 1<<20, MaxSegments, drives...)); out.Refused {
		t.Fatalf("%+v", out)
	}
	if all, _ := a.pageOf(t, CopiesQuery{}); len(all) != MaxPage {
		t.Errorf("a page has %d entries", len(all))
	}
}

// What would make an entry of the log too large to apply is carried out in
// parts, and comes to one result.
func TestLargeRecopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openAlone(t, Options{fs: vfs.NewMem()})
		defer c.Close()
		b := createBucket(t, c, "b")
		const records = maxRewrittenSegments/MaxSegments + 4
		change := &Recopy{Birth: b.LogTime}
		for i := range records {
			put := segmented(b, fmt.Sprint("k", i), i*MaxSegments, MaxSegments, "d")
			put.PutRecord.Birth = b.LogTime
			carryOut(t, c, put)
			change.Entries = append(change.Entries,
				CopyChange{ID: segmentID(i * MaxSegments), Add: []string{"e"}},
				CopyChange{ID: segmentID(i*MaxSegments + 1), Remove: []string{"d"}})
		}
		change.Entries = append(change.Entries, CopyChange{ID: [16]byte{15: 1}, Settled: true})
		first, err := c.submit(t.Context(), complete(&Command{Recopy: change}))
		if err != nil || first.Fates[0] != byte(FateDone) || first.Fates[2*records-1] != byte(copyLeft) {
			t.Fatalf("%+v, %v", first, err)
		}
		res := carryOut(t, c, &Command{Recopy: change})
		for i, fate := range res.Fates {
			want := FateDone
			if i%2 == 1 {
				want = FateRefused
			} else if i == 2*records {
				want = FateGone
			}
			if fate != want {
				t.Errorf("entry %d came to %d, want %d", i, fate, want)
			}
		}
		a, err := c.Read(t.Context(), &Query{Copies: &CopiesQuery{Good: []string{"d"}}})
		if err != nil || len(a.Copies) != records {
			t.Errorf("%d segments have a copy on e: %v", len(a.Copies), err)
		}
		change.Birth = b.LogTime - int64(2*time.Hour)
		if _, err := c.Propose(t.Context(), &Command{Recopy: change}); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "before their commit") {
			t.Errorf("copies that took too long: %v", err)
		}
	})
}

// A node has as many drives as it may, those that are away among them.
func TestManyDrives(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	join := func(first int) *outcome {
		j := &JoinNode{Node: "n0", URL: "u", Pool: "p"}
		for i := range MaxDrives {
			j.Drives = append(j.Drives, fmt.Sprint("d", first+i))
		}
		return a.next(t, 1, &Command{JoinNode: j})
	}
	if out := join(0); out.Refused {
		t.Errorf("%+v", out)
	}
	if out := join(1); fault.Kind(out.Kind) != fault.QuotaExceeded {
		t.Errorf("one too many: %+v", out)
	}
	if out := a.next(t, 1, &Command{MarkDrive: &MarkDrive{Drive: "d0", Remove: true}}); out.Refused {
		t.Errorf("%+v", out)
	}
	if out := join(1); out.Refused {
		t.Errorf("after one has left: %+v", out)
	}
	if n, _ := a.m.topology.Drive("d0"); n != nil {
		t.Errorf("%s has a drive that was removed", n.Name)
	}
}

// BenchmarkCopies goes over a million segments, of which none needs anything.
func BenchmarkCopies(b *testing.B) {
	const records = 1_000_000
	a := &applier{group: dataGroup, fs: vfs.Default, sizes: stateOptions(dataGroup)}
	store, err := disk.Open(vfs.Default, b.TempDir()+"/state", a.sizes, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	a.store = store
	defer store.Close()
	drives := []string{randomDrive(), randomDrive(), randomDrive()}
	for i := 0; i < records; {
		batch := store.NewBatch()
		for range 10_000 {
			rec := Record{Version: RecordVersion, Key: fmt.Sprintf("some/folder/%08d", i), VersionID: randomID(), ETag: fmt.Sprintf("%064x", i),
				SizeBytes: 64 << 10, ContentType: "application/octet-stream", LogTime: 1,
				Segments: []Segment{{ID: randomID(), SizeBytes: 64 << 10, CRC32C: 1, Drives: drives}}}
			if err := putVersion(batch, recordKey([16]byte{1}, rec.Key, 1), RecordVersion, &rec); err != nil {
				b.Fatal(err)
			}
			i++
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Flush(); err != nil {
		b.Fatal(err)
	}
	a.m = &machine{topology: &Topology{}}
	b.ResetTimer()
	var longest time.Duration
	for range b.N {
		pages := 0
		for q := (CopiesQuery{Good: drives, Want: 3}); ; pages++ {
			began := time.Now()
			got, err := a.ask(&Query{Copies: &q})
			if err != nil || len(got.Copies) > 0 {
				b.Fatal(len(got.Copies), err)
			}
			longest = max(longest, time.Since(began))
			if q.After = got.Next; !got.More {
				break
			}
		}
		b.ReportMetric(float64(pages+1), "pages/op")
	}
	b.ReportMetric(float64(longest.Milliseconds()), "ms/longest")
}

func randomDrive() string { return fmt.Sprintf("%x", randomID()) }
