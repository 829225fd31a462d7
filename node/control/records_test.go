package control

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gridloom/gridloom/node/fault"
)

// What is read again and again is decoded once, and every change is seen at
// once, by the reader that comes after it.
func TestKeptRecords(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		m.openAll()
		c := m.node(0)
		b := createBucket(t, c, "b")
		read := func(key string) (*Record, error) {
			a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: key}})
			if err != nil {
				return nil, err
			}
			return a.Record, nil
		}
		mustRead := func(key, etag string) *Record {
			t.Helper()
			r, err := read(key)
			if err != nil || r.ETag != etag || r.Key != key {
				t.Fatalf("read %+v of %q, %v; want %q", r, key, err, etag)
			}
			return r
		}
		mustPut(t, c, b, "other", "other")
		for i := range 3 {
			etag := fmt.Sprint("e", i)
			mustPut(t, c, b, "k", etag)
			for range keepAfter {
				mustRead("k", etag)
				mustRead("other", "other")
			}
			again := 0
			for first := mustRead("k", etag); again < 10 && mustRead("k", etag) != first; first = mustRead("k", etag) {
				again++ // somebody else has written something in between
			}
			if again == 10 {
				t.Error("a record is decoded each time")
			}
		}
		if _, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k"}}}); err != nil {
			t.Fatal(err)
		}
		for range 2 * keepAfter {
			if r, err := read("k"); fault.KindOf(err) != fault.ObjectNotFound {
				t.Fatalf("of what was deleted: %v, %v", r, err)
			}
			mustRead("other", "other")
		}
	})
}

// TestRecordNow: what is at hand is what Read gives, and never older.
func TestRecordNow(t *testing.T) {
	virtual(t, 1, func(t *testing.T, m *mesh) {
		m.openAll()
		c := m.node(0)
		b := createBucket(t, c, "b")
		if r, _ := c.RecordNow("b", "k"); r != nil {
			t.Fatalf("of what isn't there: %+v", r)
		}
		found := 0
		for i := range 3 {
			etag := fmt.Sprint("e", i)
			mustPut(t, c, b, "k", etag)
			for range 2 * keepAfter {
				if r, made := c.RecordNow("b", "k"); r != nil {
					found++
					if r.ETag != etag || made == nil {
						t.Fatalf("there is %q at hand, want %q; %v", r.ETag, etag, made)
					}
				}
				if _, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "k"}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if found == 0 {
			t.Error("nothing was at hand")
		}
		if r, _ := c.RecordNow("other", "k"); r != nil {
			t.Errorf("of no bucket: %+v", r)
		}
		if _, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k"}}}); err != nil {
			t.Fatal(err)
		}
		if r, _ := c.RecordNow("b", "k"); r != nil {
			t.Errorf("of what was deleted: %+v", r)
		}
	})
}

// TestKeptRecordsAreBounded: there is never more than there is room for, nor
// what is too large, whoever reads at once.
func TestKeptRecordsAreBounded(t *testing.T) {
	var k keptRecords
	k.reads.Store(keepAfter)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 500 {
				at := place{key: fmt.Sprint(w, "-", i)}
				found := &foundRecord{Record: Record{Key: at.key, Inline: make([]byte, 1000*(i%70))}}
				k.add(at, found)
				if got := k.get(at); got != nil && got.Key != at.key {
					t.Errorf("%q is %q", at.key, got.Key)
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for at, r := range k.byKey {
		if r.bytes() > keptEach {
			t.Errorf("%q with %d bytes is kept", at.key, r.bytes())
		}
		sum += r.bytes()
	}
	if sum != k.bytes || sum > keptBytes || sum < keptBytes-2*keptEach {
		t.Errorf("%d bytes are kept, and counted as %d; there is room for %d", sum, k.bytes, keptBytes)
	}
}
