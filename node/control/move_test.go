package control

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/node/fault"
)

// moveOf is a move without conditions.
func moveOf(from *Bucket, key string, to *Bucket, target string) *Command {
	return &Command{MoveRecord: &MoveRecord{
		From:      Place{Bucket: from.Name, BucketID: from.ID, Key: key},
		To:        Place{Bucket: to.Name, BucketID: to.ID, Key: target},
		VersionID: randomID(),
	}}
}

// moveRows are what a move changes, read from the rows.
type moveRows struct {
	records map[string]string // bucket/key to ETag
	owners  map[byte]string   // segment to bucket/key; "" is garbage
	garbage map[byte]string   // segment to drive
}

func (a *applier) moveRows(t *testing.T) moveRows {
	t.Helper()
	a.commit(t)
	r := moveRows{map[string]string{}, map[byte]string{}, map[byte]string{}}
	err := errors.Join(
		scan(a.store, []byte{kindRecord}, func(row, value []byte) error {
			bucket, key, _, err := parseRecordKey(row)
			if err != nil {
				return err
			}
			at := fmt.Sprintf("%d/%s", bucket[0], key)
			if r.records[at] != "" {
				return fmt.Errorf("%s is there twice", at)
			}
			var rec Record
			err = decodeRow(RecordVersion, value, &rec)
			if rec.Key != string(key) {
				return fmt.Errorf("the row of %s has the key %s", at, rec.Key)
			}
			r.records[at] = rec.ETag
			return err
		}),
		scan(a.store, []byte{kindSegment}, func(row, value []byte) error {
			var owner segmentRow
			err := decodeRow(rowVersion, value, &owner)
			r.owners[row[1]] = ""
			if owner.Key != "" {
				r.owners[row[1]] = fmt.Sprintf("%d/%s", owner.Bucket[0], owner.Key)
			}
			return err
		}),
		scan(a.store, []byte{kindGarbage}, func(row, _ []byte) error {
			g, err := parseGarbageKey(row)
			r.garbage[g.ID[0]] = g.Drive
			return err
		}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What a move does to the rows, or is refused for and then leaves as they are.
// Bucket 1 has "a" with segment 1 and "b" inline, bucket 2 "c" with segment 2;
// bucket 3 is closed.
func TestMoveRecord(t *testing.T) {
	one, two, three := &Bucket{Name: "one", ID: [16]byte{1}}, &Bucket{Name: "two", ID: [16]byte{2}}, &Bucket{Name: "three", ID: [16]byte{3}}
	before := moveRows{map[string]string{"1/a": "ea", "1/b": "eb", "2/c": "ec"}, map[byte]string{1: "1/a", 2: "2/c"}, map[byte]string{}}
	with := func(c *Command, change func(from, to *Place)) *Command {
		change(&c.MoveRecord.From, &c.MoveRecord.To)
		return c
	}
	for name, tc := range map[string]struct {
		move *Command
		kind fault.Kind
		want moveRows
	}{
		"to a free key": {moveOf(one, "a", one, "x"), 0, moveRows{
			map[string]string{"1/x": "ea", "1/b": "eb", "2/c": "ec"}, map[byte]string{1: "1/x", 2: "2/c"}, map[byte]string{}}},
		"to a key below": {moveOf(one, "a", one, "a/b"), 0, moveRows{
			map[string]string{"1/a/b": "ea", "1/b": "eb", "2/c": "ec"}, map[byte]string{1: "1/a/b", 2: "2/c"}, map[byte]string{}}},
		"to another bucket": {moveOf(one, "a", two, "a"), 0, moveRows{
			map[string]string{"2/a": "ea", "1/b": "eb", "2/c": "ec"}, map[byte]string{1: "2/a", 2: "2/c"}, map[byte]string{}}},
		"over segments": {moveOf(one, "a", two, "c"), 0, moveRows{
			map[string]string{"2/c": "ea", "1/b": "eb"}, map[byte]string{1: "2/c", 2: ""}, map[byte]string{2: "d2"}}},
		"inline over segments": {moveOf(one, "b", one, "a"), 0, moveRows{
			map[string]string{"1/a": "eb", "2/c": "ec"}, map[byte]string{1: "", 2: "2/c"}, map[byte]string{1: "d1"}}},
		"conditions that hold": {with(moveOf(one, "a", one, "b"), func(from, to *Place) {
			from.IfMatch, from.IfNoneMatch, from.IfUnmodifiedSince = []string{"x", "ea"}, []string{"y"}, 1
			to.IfMatch, to.IfUnmodifiedSince = []string{"*"}, 1
		}), 0, moveRows{map[string]string{"1/b": "ea", "2/c": "ec"}, map[byte]string{1: "1/b", 2: "2/c"}, map[byte]string{}}},
		"where there is none": {with(moveOf(one, "a", one, "x"), func(_, to *Place) { to.IfNoneMatch = []string{"*"} }), 0, moveRows{
			map[string]string{"1/x": "ea", "1/b": "eb", "2/c": "ec"}, map[byte]string{1: "1/x", 2: "2/c"}, map[byte]string{}}},
		"of nothing":                {moveOf(one, "x", one, "b"), fault.ObjectNotFound, before},
		"of nothing, with a match":  {with(moveOf(one, "x", one, "b"), func(from, _ *Place) { from.IfMatch = []string{"*"} }), fault.ObjectNotFound, before},
		"from a closed bucket":      {moveOf(three, "a", one, "x"), fault.BucketNotFound, before},
		"to a closed bucket":        {moveOf(one, "a", three, "a"), fault.BucketNotFound, before},
		"of another version":        {with(moveOf(one, "a", one, "x"), func(from, _ *Place) { from.IfMatch = []string{"eb"} }), fault.PreconditionFailed, before},
		"unless it is this":         {with(moveOf(one, "a", one, "x"), func(from, _ *Place) { from.IfNoneMatch = []string{"ea"} }), fault.PreconditionFailed, before},
		"not over anything":         {with(moveOf(one, "a", one, "b"), func(_, to *Place) { to.IfNoneMatch = []string{"*"} }), fault.PreconditionFailed, before},
		"only over another version": {with(moveOf(one, "a", one, "b"), func(_, to *Place) { to.IfMatch = []string{"ea"} }), fault.PreconditionFailed, before},
		"only over something":       {with(moveOf(one, "a", one, "x"), func(_, to *Place) { to.IfMatch = []string{"*"} }), fault.PreconditionFailed, before},
		"onto itself by its id":     {moveOf(one, "a", &Bucket{Name: "alias", ID: one.ID}, "a"), fault.InvalidArgument, before},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApplier(t, dataGroup, vfs.NewMem())
			defer a.close(t)
			segmented := func(b *Bucket, key, etag string, segment byte, drive string) *Command {
				return &Command{PutRecord: &PutRecord{BucketName: b.Name, BucketID: b.ID, Birth: 1, Record: Record{
					Key: key, ETag: etag, SizeBytes: 5, Segments: []Segment{{ID: [16]byte{segment}, SizeBytes: 5, Drives: []string{drive}}}}}}
			}
			for _, c := range []*Command{
				segmented(one, "a", "ea", 1, "d1"), putOf(one, "b", "eb"), segmented(two, "c", "ec", 2, "d2"),
				{CloseBucket: &CloseBucket{Name: "three", ID: three.ID}},
			} {
				if out := a.next(t, 1e9, c); out.Refused {
					t.Fatalf("%+v", out)
				}
			}
			c := complete(tc.move)
			out := a.next(t, 2e9, c)
			if fault.Kind(out.Kind) != tc.kind || out.Refused != (tc.kind != 0) {
				t.Fatalf("came to %+v", out)
			}
			if diff := gocmp.Diff(tc.want, a.moveRows(t), gocmp.AllowUnexported(moveRows{})); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			res, _, err := out.result(c)
			if tc.kind == 0 {
				to, rec := c.MoveRecord.To, res.Record
				if _, there := before.records[fmt.Sprintf("%d/%s", to.BucketID[0], to.Key)]; res.Replaced != there {
					t.Errorf("replaced is %v", res.Replaced)
				}
				if rec.Key != to.Key || rec.VersionID != c.MoveRecord.VersionID || rec.LogTime != 2e9 || rec.SizeBytes == 0 || rec.Segments != nil || rec.Inline != nil {
					t.Errorf("the record is %+v", rec)
				}
			} else if !Refused(err) {
				t.Errorf("refused with %v", err)
			}
			// The same once more is the same, and changes nothing.
			if diff := gocmp.Diff(out, a.next(t, 3e9, c), allowUnexported); diff != "" {
				t.Errorf("a retry has another outcome:\n%s", diff)
			}
			if diff := gocmp.Diff(tc.want, a.moveRows(t), gocmp.AllowUnexported(moveRows{})); diff != "" {
				t.Errorf("rows after a retry (-want +got):\n%s", diff)
			}
		})
	}
}

// A move whose ends are in different groups is refused, before and after the
// slots have moved, and isn't made of two steps.
func TestMoveBetweenGroups(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	b := &Bucket{Name: "b", ID: [16]byte{1}}
	if out := a.next(t, 1, putOf(b, "k", "e")); out.Refused {
		t.Fatalf("%+v", out)
	}
	// The half of the slots that the source is in stays, the other one goes.
	half := slotRange{First: 0, Last: slotCount/2 - 1, Group: uint32(dataGroup)}
	if slotOf(b.ID, "k") > half.Last {
		half.First, half.Last = slotCount/2, slotCount-1
	}
	near, far := "", ""
	for i := 0; near == "" || far == ""; i++ {
		key := fmt.Sprint("t", i)
		if slot := slotOf(b.ID, key); half.First <= slot && slot <= half.Last {
			near = key
		} else {
			far = key
		}
	}
	before := complete(moveOf(b, "k", b, far))
	before.Slots = a.m.slots.Epoch
	a.m.slots = slotTable{Epoch: 2, Ranges: []slotRange{half, {First: slotCount/2 - half.First, Last: slotCount - 1 - half.First, Group: 2}}}
	out := a.apply(t, &entry{Index: a.m.meta.Applied + 1, Stamp: 1, Command: before})
	if fault.Kind(out.Kind) != fault.Waiting {
		t.Errorf("led by the table before: %+v", out)
	}
	for _, tc := range []struct {
		from, to string
		kind     fault.Kind
	}{{"k", far, fault.Unimplemented}, {far, "k", fault.Conflict}, {"k", near, 0}} {
		if out := a.next(t, 1, moveOf(b, tc.from, b, tc.to)); fault.Kind(out.Kind) != tc.kind {
			t.Errorf("%s to %s: %+v", tc.from, tc.to, out)
		}
	}
	if got := a.moveRows(t).records; len(got) != 1 || got["1/"+near] != "e" {
		t.Errorf("the records are %v", got)
	}
}

// Of 64 that move one key, through all nodes of a mesh, exactly one does.
func TestOneMover(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		for i := range 3 {
			m.open(i, nil)
		}
		m.sameMesh()
		nodes := m.running()
		b := createBucket(t, nodes[0], "b")
		mustPut(t, nodes[0], b, "k", "e")
		names := Bucket{Name: "b"} // the id is found on the way
		const movers = 64
		errs := make([]error, movers)
		var all sync.WaitGroup
		for i := range movers {
			all.Go(func() {
				_, errs[i] = nodes[i%3].Propose(t.Context(), moveOf(&names, "k", &names, fmt.Sprintf("target-%02d", i)))
			})
		}
		all.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("%d and %d have moved it", winner, i)
			case err == nil:
				winner = i
			case fault.KindOf(err) != fault.ObjectNotFound || !Refused(err):
				t.Errorf("%d: %v", i, err)
			}
		}
		for _, n := range nodes {
			a, err := n.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
			if err != nil || len(a.Records) != 1 || a.Records[0].Key != fmt.Sprintf("target-%02d", winner) || a.Records[0].ETag != "e" {
				t.Errorf("%d has moved it, and there is %+v, %v", winner, a, err)
			}
		}
	})
}

// A move finds its buckets by their names, also one that was made again, and
// never takes the one that is there for the one that is gone.
func TestMoveFindsItsBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := Open(t.Context(), Options{Dir: "data", Self: "a", fs: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from, to := createBucket(t, c, "from"), createBucket(t, c, "to")
		mustPut(t, c, from, "k", "e")
		move := func() error {
			_, err := c.Propose(t.Context(), moveOf(&Bucket{Name: "from"}, "k", &Bucket{Name: "to"}, "l"))
			return err
		}
		if _, err := c.commit(t.Context(), complete(&Command{CloseBucket: &CloseBucket{Name: "to", ID: to.ID}})); err != nil {
			t.Fatal(err)
		}
		if err := move(); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("to a closed bucket: %v", err)
		}
		createBucket(t, c, "to") // which ends the deletion first
		if err := move(); err != nil {
			t.Errorf("to a bucket that was made again: %v", err)
		}
		if got := etagOf(t, c, "to", "l"); got != "e" {
			t.Errorf("read %q", got)
		}
		if err := move(); fault.KindOf(err) != fault.ObjectNotFound {
			t.Errorf("once more: %v", err)
		}
		if _, err := c.Propose(t.Context(), moveOf(&Bucket{Name: "from"}, "k", &Bucket{Name: "none"}, "l")); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("to a bucket that never was: %v", err)
		}
	})
}
