package control

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// Of 64 who want a key to be new there is one who gets it, and no update
// under If-Match is lost.
func TestConditionalPuts(t *testing.T) {
	c := openAlone(t, Options{})
	b := createBucket(t, c, "b")
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			cmd := putOf(b, "k", fmt.Sprint("e", i))
			cmd.PutRecord.IfNoneMatch = []string{"*"}
			_, err := c.Propose(t.Context(), cmd)
			switch {
			case err == nil:
				won.Add(1)
			case fault.KindOf(err) != fault.PreconditionFailed:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d winners", won.Load())
	}
	const writers, each = 8, 20
	if _, err := c.Propose(t.Context(), putOf(b, "n", "0")); err != nil {
		t.Fatal(err)
	}
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "n"}})
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(a.Record.ETag, &n)
				cmd := putOf(b, "n", fmt.Sprint(n+1))
				cmd.PutRecord.IfMatch = []string{a.Record.ETag}
				if _, err := c.Propose(t.Context(), cmd); err == nil {
					done++
				} else if fault.KindOf(err) != fault.PreconditionFailed {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "n"}})
	if err != nil || a.Record.ETag != fmt.Sprint(writers*each) {
		t.Errorf("%+v, %v", a, err)
	}
}

// Propose carries a delete through that takes several entries.
func TestLargeDelete(t *testing.T) {
	c := openAlone(t, Options{})
	b := createBucket(t, c, "b")
	del := &DeleteRecords{Bucket: "b", Keys: []string{"missing first"}}
	for i := range 6 {
		cmd := putOf(b, fmt.Sprint("k", i), "e")
		rec := &cmd.PutRecord.Record
		rec.Inline = nil
		for range MaxSegments {
			rec.Segments = append(rec.Segments, Segment{ID: randomID(), SizeBytes: 1, Drives: []string{"d"}})
		}
		rec.SizeBytes = MaxSegments
		res, err := c.Propose(t.Context(), cmd)
		if err != nil {
			t.Fatal(err)
		}
		if res.Record.LogTime != res.LogTime || res.Record.Version != RecordVersion || len(res.Record.Segments) != MaxSegments {
			t.Fatalf("stored as %+v", res.Record)
		}
		del.Keys = append(del.Keys, rec.Key)
	}
	del.Keys = append(del.Keys, "missing last")
	res, err := c.Propose(t.Context(), &Command{DeleteRecords: del})
	if err != nil || len(res.Deleted) != 6 || res.Deleted[5] != "k5" || len(res.Missing) != 2 || res.Missing[1] != "missing last" {
		t.Fatalf("%+v, %v", res, err)
	}
	var garbage int
	for {
		a, err := c.Read(t.Context(), &Query{Garbage: &GarbageQuery{Drive: "d", Before: 1 << 62}})
		if err != nil {
			t.Fatal(err)
		}
		if garbage += len(a.Garbage); len(a.Garbage) > 0 {
			if _, err := c.Propose(t.Context(), &Command{Reclaim: &Reclaim{Entries: a.Garbage}}); err != nil {
				t.Fatal(err)
			}
		}
		if !a.More {
			break
		}
	}
	if garbage != 6*MaxSegments {
		t.Errorf("%d segments to reclaim", garbage)
	}
	if _, err := c.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "b"}}); err != nil {
		t.Error(err)
	}
}

// A put of any size that is allowed comes back as it was.
func TestLargestRecord(t *testing.T) {
	c := openAlone(t, Options{})
	b := createBucket(t, c, "b")
	cmd := putOf(b, strings.Repeat("k", MaxKeyBytes), "e")
	rec := &cmd.PutRecord.Record
	rec.Inline = []byte(strings.Repeat("x", MaxInlineBytes))
	rec.SizeBytes = MaxInlineBytes
	rec.Metadata = Pairs{}
	for i := range MaxMetadataBytes / 8 {
		rec.Metadata[fmt.Sprintf("%04d", i)] = "1234"
	}
	cmd = logged(t, &entry{Command: complete(cmd)}).Command
	if _, err := c.Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: rec.Key}})
	if err != nil || string(a.Record.Inline) != string(rec.Inline) || len(a.Record.Metadata) != len(rec.Metadata) {
		t.Errorf("%v", err)
	}
}

// A birth is the present time also where nothing was written for hours, and
// log time never goes back, whatever the clock does.
func TestLogTime(t *testing.T) {
	var now atomic.Int64
	now.Store(int64(1000 * time.Hour))
	c := openAlone(t, Options{Clock: func() time.Time { return time.Unix(0, now.Load()) }})
	b := createBucket(t, c, "b")
	now.Add(int64(5 * time.Hour))
	a, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "b"}})
	if err != nil || a.Bucket.ID != b.ID || a.LogTime != now.Load() {
		t.Fatalf("%+v, %v", a, err)
	}
	put := putOf(b, "k", "e")
	if _, err := c.Propose(t.Context(), put); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a put that is five hours old: %v", err)
	}
	put = putOf(b, "k", "e")
	put.PutRecord.Birth = a.LogTime
	if _, err := c.Propose(t.Context(), put); err != nil {
		t.Errorf("a put that began just now: %v", err)
	}
	now.Add(-int64(3 * time.Hour))
	res, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "c"}})
	if err != nil || res.LogTime != a.LogTime {
		t.Errorf("log time went back to %v, %v", res, err)
	}
}
