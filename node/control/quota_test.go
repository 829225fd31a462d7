package control

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
)

// A quota by a bucket's name limits what grows: puts and moves into it, and not
// what is there, smaller or on its way out. The same is known before the payload
// comes.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openAlone(t, Options{fs: vfs.NewMem()})
		defer c.Close()
		b, other := createBucket(t, c, "b"), createBucket(t, c, "other")
		mustPut(t, c, b, "k", "12345")
		mustPut(t, c, other, "m", "123456789")
		carryOut(t, c, &Command{SetQuota: &SetQuota{Bucket: "b", MaxObjects: 2, MaxBytes: 8}})
		put := func(key, payload string) error {
			_, err := c.Propose(t.Context(), putOf(b, key, payload))
			return err
		}
		begin := func(key string, size int64) error {
			_, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: "b", Key: key, SizeBytes: size}})
			return err
		}
		refused := func(what string, err error, text string) {
			t.Helper()
			if fault.KindOf(err) != fault.QuotaExceeded || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused("too many bytes", put("l", "1234"), `bucket "b": has 5 bytes, and its quota of 8 has no room for 4 more`)
		refused("a larger one in its place", put("k", "123456789"), "no room for 4 more")
		refused("the same before it begins", begin("l", 4), "no room for 4 more")
		refused("a move", func() error {
			_, err := c.Propose(t.Context(), moveOf(other, "m", b, "m"))
			return err
		}(), "no room for 9 more")
		for _, err := range []error{begin("l", 3), begin("k", 8), begin("k", -1), begin("", 100), put("l", "123")} {
			if err != nil {
				t.Error(err)
			}
		}
		refused("too many objects", begin("m", -1), `bucket "b": has 2 objects, and its quota is 2`)
		refused("too many objects", put("m", "1"), "has 2 objects")
		if err := begin("k", 5); err != nil {
			t.Errorf("one in the place of another: %v", err)
		}
		carryOut(t, c, &Command{SetQuota: &SetQuota{Bucket: "b", MaxBytes: 1}})
		if err := put("k", "1234"); err != nil {
			t.Errorf("a smaller one where there is too much: %v", err)
		}
		carryOut(t, c, moveOf(b, "l", other, "l"))
		carryOut(t, c, &Command{DeleteRecords: &DeleteRecords{Bucket: "b", Keys: []string{"k"}}})
		usages := []NamedUsage{{"b", BucketUsage{MaxBytes: 1}}, {"other", BucketUsage{Objects: 2, Bytes: 12}}}
		for i, want := range usages {
			a, err := c.Read(t.Context(), &Query{BucketUsage: &BucketUsageQuery{Bucket: want.Name}})
			if err != nil || *a.BucketUsage != want.Usage {
				t.Errorf("usage of %s: %+v, %v", want.Name, a, err)
			}
			after := ""
			if i > 0 {
				after = usages[i-1].Name
			}
			a, err = c.Read(t.Context(), &Query{BucketUsages: &BucketUsagesQuery{After: after, Limit: 1}})
			if err != nil || !slices.Equal(a.BucketUsages, usages[i:i+1]) || a.More != (i == 0) {
				t.Errorf("the page after %q: %+v, %v", after, a, err)
			}
		}
		a, err := c.Read(t.Context(), &Query{Totals: &TotalsQuery{}})
		if err != nil || *a.Totals != (Totals{Objects: 2, Bytes: 12}) {
			t.Errorf("totals: %+v, %v", a, err)
		}
		carryOut(t, c, &Command{DeleteBucket: &DeleteBucket{Name: "b"}})
		if _, err := c.Propose(t.Context(), &Command{SetQuota: &SetQuota{Bucket: "b"}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("a quota for a bucket that is deleted: %v", err)
		}
		if _, err := c.Read(t.Context(), &Query{BucketUsage: &BucketUsageQuery{Bucket: "b"}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("the usage of a bucket that is deleted: %v", err)
		}
	})
}

// Of many that put at once through all nodes, as many come in as the quota has
// room for, and what is in the bucket is known on a node without records too.
func TestQuotaHolds(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		m.settle("a b c, d", "a b c")
		b := createBucket(t, m.node(0), "b")
		carryOut(t, m.node(3), &Command{SetQuota: &SetQuota{Bucket: "b", MaxObjects: 20}})
		errs := make([]error, 60)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() { _, errs[i] = m.node(i%4).Propose(t.Context(), putOf(b, fmt.Sprint("k", i), "payload")) })
		}
		all.Wait()
		in := 0
		for i, err := range errs {
			if err == nil {
				in++
			} else if fault.KindOf(err) != fault.QuotaExceeded {
				t.Errorf("%d: %v", i, err)
			}
		}
		if in != 20 {
			t.Errorf("%d of 20 came in", in)
		}
		for _, c := range m.running() {
			a, err := c.Read(t.Context(), &Query{BucketUsages: &BucketUsagesQuery{}})
			want := NamedUsage{"b", BucketUsage{Objects: 20, Bytes: 20 * int64(len("payload")), MaxObjects: 20}}
			if err != nil || len(a.BucketUsages) != 1 || a.BucketUsages[0] != want {
				t.Errorf("node %s: %+v, %v", c.self, a, err)
			}
		}
		m.agree()
	})
}

// Every node knows who leads the data group, soon after that has changed as
// well, and only the leader takes itself for it.
func TestDataLeader(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		m.settle("a b c, d", "a b c")
		known := func() {
			t.Helper()
			m.eventually("all know the leader", func() bool {
				leader := m.leader(dataGroup)
				return !slices.ContainsFunc(m.running(), func(c *Control) bool {
					name, self := c.DataLeader()
					return name != leader.self || self != (c == leader)
				})
			})
		}
		known()
		m.kill(m.index(m.leader(dataGroup)))
		known()
	})
}

// The machine has few of many buckets at hand, and loses count of none.
func TestUsageOfManyBuckets(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	const buckets, batch = maxOpenBuckets + 100, 500
	bucket := func(i int) [16]byte { return [16]byte{1, byte(i >> 8), byte(i)} }
	for round := range 2 {
		for i := 0; i < buckets; {
			a.batch = a.store.NewIndexedBatch()
			for range batch {
				id := bucket(i % buckets)
				u, err := a.m.usageOf(a.batch, id)
				if err != nil {
					t.Fatal(err)
				}
				if i < buckets {
					a.m.use(id, u, Totals{Objects: 1, Bytes: int64(round) + 2})
				}
				i++
			}
			a.commit(t)
			if len(a.m.usage) > maxOpenBuckets+batch {
				t.Fatalf("%d buckets are at hand", len(a.m.usage))
			}
		}
	}
	a.close(t)
	a.open(t)
	for _, i := range []int{0, 1, 4095, 4096, buckets - 1} {
		got, err := a.ask(&Query{BucketID: bucket(i), BucketUsage: &BucketUsageQuery{Bucket: "b"}})
		if err != nil || *got.BucketUsage != (BucketUsage{Objects: 2, Bytes: 5}) {
			t.Errorf("bucket %d: %+v, %v", i, got, err)
		}
	}
	if want := (totalsRow{Objects: 2 * buckets, Bytes: 5 * buckets}); a.m.totals != want {
		t.Errorf("totals are %+v", a.m.totals)
	}
}
