package control

import (
	"context"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// A move is one command in one group: whoever reads sees the record at the one
// place or at the other, never at both and never at neither.

func (c *MoveRecord) validate() error {
	for _, p := range []*Place{&c.From, &c.To} {
		if err := checkBucket(p.Bucket); err != nil {
			return err
		}
		if err := checkKey(p.Key); err != nil {
			return err
		}
		if err := checkConditions(p.IfMatch, p.IfNoneMatch); err != nil {
			return err
		}
	}
	if (c.From.BucketID == [16]byte{}) != (c.To.BucketID == [16]byte{}) {
		return fault.New(fault.InvalidArgument, "bucket", "has an id at one end of the move and none at the other")
	}
	if c.From.Key == c.To.Key && c.From.Bucket == c.To.Bucket {
		return errOntoItself(&c.To)
	}
	return nil
}

func errOntoItself(p *Place) error {
	return fault.New(fault.InvalidArgument, objectSubject(p.Bucket, p.Key), "can't be moved onto itself")
}

// ownsBoth refuses a move that isn't a group's alone. There is no protocol over
// several groups, and two steps in its place could be seen, or cut off, between
// them.
func (t *slotTable) ownsBoth(g replica.GroupID, c *MoveRecord) error {
	if err := t.owns(g, c.From.BucketID, c.From.Key); err != nil {
		return err
	}
	if t.owns(g, c.To.BucketID, c.To.Key) != nil {
		return fault.New(fault.Unimplemented, objectSubject(c.To.Bucket, c.To.Key),
			"is in another group of the index than %s, and a move is within one: copy and delete instead", objectSubject(c.From.Bucket, c.From.Key))
	}
	return nil
}

func (m *machine) moveRecord(b *pebble.Batch, index uint64, c *MoveRecord) (*outcome, error) {
	if err := m.slots.ownsBoth(m.group, c); err != nil {
		return nil, err
	}
	if c.From.BucketID == c.To.BucketID && c.From.Key == c.To.Key {
		return nil, errOntoItself(&c.To) // validate compares the buckets' names, this is what they are
	}
	moved, err := m.occupant(b, &c.From)
	if err != nil {
		return nil, err
	}
	if moved == nil {
		return nil, fault.New(fault.ObjectNotFound, objectSubject(c.From.Bucket, c.From.Key), "doesn't exist")
	}
	if err := c.From.check(moved); err != nil {
		return nil, err
	}
	old, err := m.occupant(b, &c.To)
	if err != nil {
		return nil, err
	}
	if err := c.To.check(old); err != nil {
		return nil, err
	}
	if err := m.moveUsage(b, c, moved, old); err != nil {
		return nil, err
	}
	if old != nil {
		if err := m.dropRecord(b, old, nil); err != nil {
			return nil, err
		}
	}
	if err := remove(b, moved.row); err != nil {
		return nil, err
	}
	m.wrote(rowOrder.Split.Prefix(moved.row))
	record := stored(&moved.Record, m.meta.LogTime)
	record.Key, record.VersionID = c.To.Key, c.VersionID
	row := recordKey(c.To.BucketID, record.Key, index)
	if err := putVersion(b, row, RecordVersion, &record); err != nil {
		return nil, err
	}
	m.wrote(rowOrder.Split.Prefix(row))
	for i := range record.Segments {
		id := record.Segments[i].ID
		var owner segmentRow
		if _, err := m.row(b, segmentKey(id), &owner); err != nil {
			return nil, err
		}
		owner.Bucket, owner.Key = c.To.BucketID, record.Key
		if err := m.setSegment(b, id, &owner); err != nil {
			return nil, err
		}
	}
	record.Inline, record.Segments = nil, nil
	return &outcome{Replaced: old != nil, Moved: &record}, nil
}

// occupant gives the record at a place, nil where there is none.
func (m *machine) occupant(b *pebble.Batch, p *Place) (*foundRecord, error) {
	if err := m.checkOpen(b, p.Bucket, p.BucketID); err != nil {
		return nil, err
	}
	return m.find(b, p.BucketID, p.Key)
}

// check evaluates the conditions of a place on what is there.
func (p *Place) check(there *foundRecord) error {
	return checkPreconditions(there, func() string { return objectSubject(p.Bucket, p.Key) }, p.IfMatch, p.IfNoneMatch, p.IfUnmodifiedSince)
}

// move commits a MoveRecord with its buckets' ids, and once more if one of them
// turns out to be deleted and there is another of its name now. It leaves the
// row of a closed bucket alone: a refusal doesn't say which of the two that is.
func (c *Control) move(ctx context.Context, full *Command) (*Result, error) {
	find := func(name string) (*Bucket, error) {
		bucket, err := c.bucketNow(name)
		if fault.KindOf(err) == fault.BucketNotFound {
			bucket, err = c.bucketSurely(ctx, name)
		}
		return bucket, err
	}
	cmd, err := moveBetween(full, find)
	if err != nil {
		return nil, err
	}
	res, err := c.commit(ctx, cmd)
	if fault.KindOf(err) != fault.BucketNotFound {
		return res, err
	}
	again, sureErr := moveBetween(full, func(name string) (*Bucket, error) { return c.bucketSurely(ctx, name) })
	switch {
	case sureErr != nil:
		return nil, sureErr
	case again.MoveRecord.From.BucketID == cmd.MoveRecord.From.BucketID && again.MoveRecord.To.BucketID == cmd.MoveRecord.To.BucketID:
		return nil, err
	}
	again.RequestID = second(full.RequestID)
	return c.commit(ctx, again)
}

// moveBetween is a move with the ids of its buckets. A name is looked up once.
func moveBetween(full *Command, find func(name string) (*Bucket, error)) (*Command, error) {
	from, to := full.MoveRecord.From.Bucket, full.MoveRecord.To.Bucket
	source, err := find(from)
	if err != nil {
		return nil, err
	}
	target := source
	if to != from {
		if target, err = find(to); err != nil {
			return nil, err
		}
	}
	move := *full.MoveRecord
	move.From.BucketID, move.To.BucketID = source.ID, target.ID
	return &Command{Version: full.Version, RequestID: full.RequestID, MoveRecord: &move}, nil
}
