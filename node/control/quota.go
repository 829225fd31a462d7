package control

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

// What buckets hold is counted as records come and go, in the batches that
// change them: it is exact at every entry. The machine has the buckets that are
// written to at hand, and a batch writes each of their rows once.

func (c *SetQuota) validate() error {
	if c.MaxObjects < 0 || c.MaxBytes < 0 {
		return fault.New(fault.InvalidArgument, "quota", "is %d objects and %d bytes", c.MaxObjects, c.MaxBytes)
	}
	return checkBucket(c.Bucket)
}

// usageOf gives what is in a bucket, for use to change.
func (m *machine) usageOf(b *pebble.Batch, id [16]byte) (*BucketUsage, error) {
	if u := m.usage[id]; u != nil {
		return u, nil
	}
	u := new(BucketUsage)
	if _, err := get(b, usageKey(id), u); err != nil {
		return nil, err
	}
	m.usage[id] = u
	return u, nil
}

// use changes what is in a bucket.
func (m *machine) use(id [16]byte, u *BucketUsage, grows Totals) {
	u.Objects += grows.Objects
	u.Bytes += grows.Bytes
	m.totals.Objects += grows.Objects
	m.totals.Bytes += grows.Bytes
	m.changed = append(m.changed, id)
}

// growth is what a bucket gains by one record in the place of another; either
// may be nil.
func growth(old *foundRecord, with *Record) (t Totals) {
	if with != nil {
		t.Objects, t.Bytes = 1, with.SizeBytes
	}
	if old != nil {
		t.Objects--
		t.Bytes -= old.SizeBytes
	}
	return t
}

// limited tells whether a bucket has a quota.
func (u *BucketUsage) limited() bool { return u.MaxObjects > 0 || u.MaxBytes > 0 }

// check refuses what a bucket's quota has no room for. What makes it no larger
// has room always, also in a bucket that has more than it may.
func (u *BucketUsage) check(bucket string, grows Totals) error {
	if u.MaxObjects > 0 && grows.Objects > 0 && u.Objects+grows.Objects > u.MaxObjects {
		return fault.New(fault.QuotaExceeded, bucketSubject(bucket), "has %d objects, and its quota is %d", u.Objects, u.MaxObjects)
	}
	if u.MaxBytes > 0 && grows.Bytes > 0 && u.Bytes+grows.Bytes > u.MaxBytes {
		return fault.New(fault.QuotaExceeded, bucketSubject(bucket), "has %d bytes, and its quota of %d has no room for %d more", u.Bytes, u.MaxBytes, grows.Bytes)
	}
	return nil
}

// moveUsage counts a move, or refuses it where the target has no room for it.
func (m *machine) moveUsage(b *pebble.Batch, c *MoveRecord, moved, old *foundRecord) error {
	from, err := m.usageOf(b, c.From.BucketID)
	if err != nil {
		return err
	}
	to, err := m.usageOf(b, c.To.BucketID)
	if err != nil {
		return err
	}
	out, in := growth(moved, nil), growth(old, &moved.Record)
	if from == to { // what comes was there before
		in.Objects += out.Objects
		in.Bytes += out.Bytes
		m.use(c.To.BucketID, to, in)
		return nil
	}
	if err := to.check(c.To.Bucket, in); err != nil {
		return err
	}
	m.use(c.From.BucketID, from, out)
	m.use(c.To.BucketID, to, in)
	return nil
}

func (m *machine) setQuota(b *pebble.Batch, c *SetQuota) (*outcome, error) {
	if err := m.checkOpen(b, c.Bucket, c.BucketID); err != nil {
		return nil, err
	}
	u, err := m.usageOf(b, c.BucketID)
	if err != nil {
		return nil, err
	}
	m.limit(u, c.MaxObjects, c.MaxBytes)
	m.use(c.BucketID, u, Totals{})
	return &outcome{}, nil
}

// limit sets a bucket's quota.
func (m *machine) limit(u *BucketUsage, objects, bytes int64) {
	if u.limited() {
		m.totals.Limited--
	}
	if u.MaxObjects, u.MaxBytes = objects, bytes; u.limited() {
		m.totals.Limited++
	}
}

// forgetUsage removes the row of a bucket that is empty and about to be closed.
func (m *machine) forgetUsage(b *pebble.Batch, id [16]byte) error {
	u, err := m.usageOf(b, id)
	if err != nil {
		return err
	}
	m.limit(u, 0, 0)
	m.use(id, u, Totals{}) // for the totals
	delete(m.usage, id)
	return remove(b, usageKey(id))
}

// sealUsage writes the rows of all buckets that have changed.
func (m *machine) sealUsage(b *pebble.Batch) (err error) {
	if len(m.changed) == 0 {
		return nil
	}
	written := make(map[[16]byte]bool, 1)
	for _, id := range m.changed {
		if u := m.usage[id]; u != nil && !written[id] { // else it was closed
			written[id] = true
			err = errors.Join(err, put(b, usageKey(id), u))
		}
	}
	m.changed = m.changed[:0]
	if len(m.usage) > maxOpenBuckets {
		clear(m.usage)
	}
	return errors.Join(err, put(b, totalsKey(), &m.totals))
}

// begin refuses a put that a quota has no room for, as long as any bucket has
// one.
func (v *view) begin(bucket [16]byte, q *BeginQuery) error {
	if v.limited == 0 || q.Key == "" {
		return nil
	}
	var u BucketUsage
	if _, err := get(v.rows, usageKey(bucket), &u); err != nil || !u.limited() {
		return err
	}
	old, err := v.find(bucket, q.Key)
	if err != nil {
		return err
	}
	return u.check(q.Bucket, growth(old, &Record{SizeBytes: max(q.SizeBytes, 0)}))
}

func (v *view) bucketUsage(a *Answer, bucket [16]byte) error {
	a.BucketUsage = new(BucketUsage)
	_, err := get(v.rows, usageKey(bucket), a.BucketUsage)
	return err
}

// bucketUsages answers for ids, in their order.
func (v *view) bucketUsages(a *Answer, ids [][16]byte) error {
	a.BucketUsages = make([]NamedUsage, len(ids))
	for i, id := range ids {
		if _, err := get(v.rows, usageKey(id), &a.BucketUsages[i].Usage); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) totals(a *Answer) error {
	var row totalsRow
	_, err := get(v.rows, totalsKey(), &row)
	a.Totals = &Totals{Objects: row.Objects, Bytes: row.Bytes}
	return err
}

// readUsages asks the system group for a page of buckets, and the data group
// for what is in them.
func (c *Control) readUsages(ctx context.Context, q *Query) (*Answer, error) {
	asked := *q
	asked.Buckets, asked.BucketUsages = &BucketsQuery{After: q.BucketUsages.After, Limit: q.BucketUsages.Limit}, nil
	buckets, err := c.readSystem(ctx, &asked)
	if err != nil {
		return nil, err
	}
	ids := make([][16]byte, len(buckets.Buckets))
	for i := range ids {
		ids[i] = buckets.Buckets[i].ID
	}
	asked.Buckets, asked.BucketUsages = nil, &BucketUsagesQuery{IDs: ids}
	a, err := c.readData(ctx, &asked)
	if err != nil {
		return nil, err
	}
	if len(a.BucketUsages) != len(ids) {
		return nil, fault.New(fault.Internal, "index", "answered for %d buckets of %d", len(a.BucketUsages), len(ids))
	}
	for i := range ids {
		a.BucketUsages[i].Name = buckets.Buckets[i].Name
	}
	a.Next, a.More = buckets.Next, buckets.More
	return a, nil
}
