package control

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gridloom/gridloom/node/fault"
)

// cutOff leaves a bucket as a deletion does that was cut off in the middle.
func cutOff(t *testing.T, c *Control, name string) *Bucket {
	t.Helper()
	b := createBucket(t, c, name)
	if _, err := c.commit(t.Context(), complete(&Command{CloseBucket: &CloseBucket{Name: name, ID: b.ID}})); err != nil {
		t.Fatal(err)
	}
	return b
}

// hasRow tells whether a bucket's name is still bound.
func hasRow(t *testing.T, c *Control, name string) bool {
	t.Helper()
	_, err := c.Read(t.Context(), &Query{Bucket: &BucketQuery{Name: name}})
	if err != nil && fault.KindOf(err) != fault.BucketNotFound {
		t.Fatal(err)
	}
	return err == nil
}

// A deletion that was cut off between the groups is finished by whoever comes
// across it, and the bucket is gone from its first half on.
func TestDeletionThatWasCutOff(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		c := m.node(1)
		for what, do := range map[string]func(b *Bucket) error{
			"put": func(b *Bucket) error { _, err := c.Propose(t.Context(), putOf(b, "k", "e")); return err },
			"put by name": func(b *Bucket) error {
				_, err := c.Propose(t.Context(), putOf(&Bucket{Name: b.Name}, "k", "e"))
				return err
			},
			"begin": func(b *Bucket) error {
				_, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: b.Name}})
				return err
			},
			"get": func(b *Bucket) error {
				_, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: b.Name, Key: "k"}})
				return err
			},
			"delete": func(b *Bucket) error {
				_, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: b.Name, Keys: []string{"k"}}})
				return err
			},
		} {
			b := cutOff(t, m.node(0), "b-"+what)
			if err := do(b); fault.KindOf(err) != fault.BucketNotFound {
				t.Errorf("%s: %v", what, err)
			}
			if what != "put" && hasRow(t, c, b.Name) {
				t.Errorf("%s has left the name bound", what)
			}
		}
		b := cutOff(t, m.node(0), "created")
		if again := createBucket(t, c, "created"); again.ID == b.ID {
			t.Error("the bucket has come back")
		} else {
			mustPut(t, m.node(2), &Bucket{Name: "created"}, "k", "e")
			a, err := m.node(0).Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "created"}})
			if err != nil || len(a.Records) != 1 || a.Bucket.ID != again.ID {
				t.Errorf("%+v, %v", a, err)
			}
		}
		b = cutOff(t, m.node(0), "deleted")
		if _, err := c.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "deleted"}}); err != nil {
			t.Errorf("deleting it again: %v", err)
		}
		if hasRow(t, c, b.Name) {
			t.Error("deleting again has left the name bound")
		}
		if _, err := c.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "deleted"}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("deleting once more: %v", err)
		}
		m.agree()
	})
}

// Puts race with the deletion of their bucket and with the making of another
// of its name: what was acknowledged is there, or was deleted with a bucket
// that was empty when it went, which can't be.
func TestPutsRaceWithDeletions(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		for round := range 40 {
			name := fmt.Sprint("b", round)
			b := createBucket(t, m.node(round%3), name)
			var put, deleted, created error
			var wg sync.WaitGroup
			wg.Go(func() {
				target := b
				if round%2 == 0 {
					target = &Bucket{Name: name}
				}
				_, put = m.node((round+1)%3).Propose(t.Context(), putOf(target, "k", "e"))
			})
			wg.Go(func() {
				_, deleted = m.node((round+2)%3).Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: name}})
			})
			if round%4 < 2 {
				wg.Go(func() {
					_, created = m.node(round%3).Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: name}})
				})
			}
			wg.Wait()
			m.judge(name, b, put, deleted, created)
		}
		m.agree()
	})
}

// judge checks what has come of a race.
func (m *mesh) judge(name string, b *Bucket, put, deleted, created error) {
	t := m.t
	t.Helper()
	for what, err := range map[string]error{"put": put, "delete": deleted, "create": created} {
		switch fault.KindOf(err) {
		case fault.BucketNotFound, fault.BucketNotEmpty, fault.AlreadyExists:
		default:
			if err != nil {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	a, err := m.node(0).Read(t.Context(), &Query{Record: &RecordQuery{Bucket: name, Key: "k"}})
	if (err == nil) != (put == nil) {
		t.Errorf("%s: put %v, deleted %v, created %v; reading: %v", name, put, deleted, created, err)
	}
	// No record lies under an id that no bucket has.
	for _, c := range m.running() {
		v := c.data.acquire()
		scanned := scan(v.rows, recordPosition(b.ID, ""), func(row, _ []byte) error {
			if err != nil || a.Bucket.ID != b.ID {
				t.Errorf("%s: node %s has a record of a bucket that isn't there: %q", name, c.self, row)
			}
			return nil
		})
		c.data.release(v)
		if scanned != nil {
			t.Error(scanned)
		}
	}
}

// A bucket that was deleted and made again is another: nobody's old copy of
// the name leads to the old one.
func TestBucketMadeAgain(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		for round := range 9 {
			c := m.node(round % 3)
			b := createBucket(t, c, "b")
			for _, x := range m.running() {
				mustPut(t, x, &Bucket{Name: "b"}, "k-"+x.self, fmt.Sprint(round))
				a, err := x.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "b"}})
				if err != nil || a.Bucket.ID != b.ID {
					t.Errorf("round %d, node %s: %+v, %v", round, x.self, a, err)
				}
			}
			next := m.node((round + 1) % 3)
			if _, err := next.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k-a", "k-b", "k-c"}}}); err != nil {
				t.Error(err)
			}
			if _, err := next.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "b"}}); err != nil {
				t.Error(err)
			}
			if _, err := c.Propose(t.Context(), putOf(b, "k", "late")); fault.KindOf(err) != fault.BucketNotFound {
				t.Errorf("a put that began before the deletion: %v", err)
			}
		}
	})
}

// Making a bucket twice is refused, and a retry of the first try is not.
func TestBucketIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openAlone(t, Options{})
		cmd := complete(&Command{CreateBucket: &CreateBucket{Name: "b"}})
		first, err := c.Propose(t.Context(), cmd)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.Propose(t.Context(), cmd)
		if err != nil || *again.Bucket != *first.Bucket || again.LogTime != first.LogTime {
			t.Errorf("a retry: %+v, %v", again, err)
		}
		if _, err := c.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}}); fault.KindOf(err) != fault.AlreadyExists || !Refused(err) {
			t.Errorf("another: %v", err)
		}
	})
}
