package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/gridloom/gridloom/node/fault"
)

// A bucket's row is in the system group, its records are in data groups. Two
// rules let a call for a record do without the system group:
//
//   - a name that is bound to an id stays so until every data group has closed
//     that id, and an id is never used again. So a name found in this node's
//     copy of the system group, however old, is right unless the data group
//     says that the bucket is closed;
//   - a name that isn't found there may be newer than the copy: then, and after
//     a refusal as closed, the system group is asked for good.
//
// For whoever puts, gets and lists, a bucket is deleted when it is closed. A
// deletion that was cut off between the two groups is finished by whoever
// comes across it.

// bucketNow finds a bucket in this node's copy of the system group.
func (c *Control) bucketNow(name string) (*Bucket, error) {
	v := c.system.acquire()
	defer c.system.release(v)
	if found := v.known.get(name); found != nil {
		return found, nil
	}
	bucket, err := findBucket(v.rows, name)
	if err != nil {
		return nil, c.readError(c.system, err)
	}
	v.known.put(&bucket)
	return &bucket, nil
}

// bucketSurely finds a bucket after everything that was acknowledged.
func (c *Control) bucketSurely(ctx context.Context, name string) (*Bucket, error) {
	a, err := c.readSystem(ctx, &Query{Version: QueryVersion, Bucket: &BucketQuery{Name: name}})
	if err != nil {
		return nil, err
	}
	return a.Bucket, nil
}

// withBucket calls do with the bucket of that name, and once more if that
// turns out to be one that was deleted, and there is another of the name now.
func (c *Control) withBucket(ctx context.Context, name string, do func(*Bucket) error) error {
	bucket, err := c.bucketNow(name)
	if fault.KindOf(err) == fault.BucketNotFound {
		bucket, err = c.bucketSurely(ctx, name)
	}
	if err != nil {
		return err
	}
	err = do(bucket)
	if fault.KindOf(err) != fault.BucketNotFound {
		return err
	}
	again, sureErr := c.bucketSurely(ctx, name)
	switch {
	case sureErr != nil:
		return sureErr
	case again.ID != bucket.ID:
		return do(again)
	}
	// Closed, and its row is still there: its deletion was cut off.
	_ = c.removeBucket(ctx, again)
	return err
}

// inBucket commits a command that is made with its bucket's id.
func (c *Control) inBucket(ctx context.Context, full *Command, name string, with func(id [16]byte) *Command) (res *Result, err error) {
	first := true
	err = c.withBucket(ctx, name, func(b *Bucket) error {
		cmd := with(b.ID)
		if !first {
			cmd.RequestID = second(full.RequestID)
		}
		first = false
		res, err = c.commit(ctx, cmd)
		return err
	})
	return res, err
}

// createBucket makes a bucket, after the deletion of an earlier one of its name
// if that was cut off.
func (c *Control) createBucket(ctx context.Context, full *Command) (*Result, error) {
	res, err := c.commit(ctx, full)
	if fault.KindOf(err) != fault.AlreadyExists {
		return res, err
	}
	there, findErr := c.bucketSurely(ctx, full.CreateBucket.Name)
	if findErr != nil || there.ID == full.CreateBucket.ID {
		return nil, err
	}
	_, closedErr := c.readData(ctx, &Query{Version: QueryVersion, BucketID: there.ID, Begin: &BeginQuery{Bucket: there.Name}})
	if fault.KindOf(closedErr) != fault.BucketNotFound || c.removeBucket(ctx, there) != nil {
		return nil, err
	}
	again := *full
	again.RequestID = second(full.RequestID)
	return c.commit(ctx, &again)
}

// second is the request id of a command's second form: the first is taken, by a
// refusal. Whoever proposes the command once more comes to the same.
func second(id [16]byte) [16]byte {
	id[15] ^= 0xff
	return id
}

// deleteBucket closes a bucket in the data groups and then removes its row.
func (c *Control) deleteBucket(ctx context.Context, name string) (*Result, error) {
	bucket, err := c.bucketSurely(ctx, name)
	if err != nil {
		return nil, err
	}
	_, err = c.commit(ctx, complete(&Command{CloseBucket: &CloseBucket{Name: name, ID: bucket.ID}}))
	if err != nil {
		return nil, err
	}
	res, err := c.commit(ctx, complete(&Command{RemoveBucket: &RemoveBucket{Name: name, ID: bucket.ID}}))
	if err != nil {
		return nil, errors.Join(fault.New(fault.Unavailable, bucketSubject(name), "is deleted for whoever uses it, and its name not yet free: delete it again"), err)
	}
	return res, nil
}

// removeBucket frees the name of a bucket that is closed.
func (c *Control) removeBucket(ctx context.Context, b *Bucket) error {
	_, err := c.commit(ctx, complete(&Command{RemoveBucket: &RemoveBucket{Name: b.Name, ID: b.ID}}))
	return err
}

// maxOpenBuckets bounds what is remembered of buckets.
const maxOpenBuckets = 4096

// openBuckets remembers of buckets up to which entry they were seen to be open,
// so that calls needn't look: nothing closes a bucket but a CloseBucket, and
// nothing opens it again.
type openBuckets struct {
	count atomic.Int64
	seen  sync.Map // [16]byte to uint64
}

// check refuses a bucket that is closed in a view.
func (o *openBuckets) check(v *view, name string, id [16]byte) error {
	if seen, ok := o.seen.Load(id); ok && seen.(uint64) >= v.lastClosed {
		return nil
	}
	if err := checkOpen(v.rows, name, id); err != nil {
		return err
	}
	if o.count.Add(1) > maxOpenBuckets {
		o.seen.Clear()
		o.count.Store(1)
	}
	o.seen.Store(id, v.applied)
	return nil
}

// bucketRows are the buckets that were read from a view of the system group, of
// which there are few.
type bucketRows struct {
	count atomic.Int64
	rows  sync.Map // string to *Bucket
}

func (r *bucketRows) get(name string) *Bucket {
	if found, ok := r.rows.Load(name); ok {
		return found.(*Bucket)
	}
	return nil
}

// put remembers a bucket, while there are fewer than maxOpenBuckets.
func (r *bucketRows) put(b *Bucket) {
	if r.count.Add(1) <= maxOpenBuckets {
		r.rows.Store(b.Name, b)
	}
}
