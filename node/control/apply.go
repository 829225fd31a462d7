package control

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

const (
	// putWindow is how long a put may take from its birth to its commit, in
	// log time. The collector of abandoned payload waits for twice that.
	putWindow = time.Hour
	// maxDroppedSegments is how many segments one DeleteRecords may drop. It
	// leaves the keys behind that, and Propose asks again for them.
	maxDroppedSegments = 4096
	// maxNodes bounds the topology, which every node holds and sends whole.
	maxNodes = 1024
)

// execute does what the command says. A *fault.Error is a refusal: nothing
// has been written then.
func (m *machine) execute(b *pebble.Batch, e *entry) (*outcome, error) {
	c := e.Command
	if groupOf(c) != m.group {
		return nil, fault.New(fault.InvalidArgument, "command", "isn't for group %s", groupName(m.group))
	}
	switch {
	case c.Init != nil:
		return m.init(b, c.Init)
	case c.CreateBucket != nil:
		return m.createBucket(b, c.CreateBucket)
	case c.RemoveBucket != nil:
		return m.removeBucket(b, c.RemoveBucket)
	case c.JoinNode != nil:
		return m.joinNode(b, c.JoinNode)
	case c.AdmitNode != nil:
		return m.admitNode(b, c.AdmitNode)
	case c.BindNode != nil:
		return m.bindNode(b, c.BindNode)
	case c.MarkNode != nil:
		return m.markNode(b, c.MarkNode)
	case c.ForgetNode != nil:
		return m.forgetNode(b, c.ForgetNode)
	case c.MarkDrive != nil:
		return m.markDrive(b, c.MarkDrive)
	}
	if out, err := m.executeIAM(b, e); out != nil || err != nil {
		return out, err
	}
	if c.Slots != m.slots.Epoch {
		return nil, errSlotsMoved(c.Slots, m.slots.Epoch)
	}
	switch {
	case c.PutRecord != nil:
		if err := m.slots.owns(m.group, c.PutRecord.BucketID, c.PutRecord.Record.Key); err != nil {
			return nil, err
		}
		return m.putRecord(b, e.Index, c.PutRecord)
	case c.DeleteRecords != nil:
		if err := m.slots.owns(m.group, c.DeleteRecords.BucketID, c.DeleteRecords.Keys...); err != nil {
			return nil, err
		}
		return m.deleteRecords(b, c.DeleteRecords)
	case c.MoveRecord != nil:
		return m.moveRecord(b, e.Index, c.MoveRecord)
	case c.CloseBucket != nil:
		return m.closeBucket(b, c.CloseBucket)
	case c.Reclaim != nil:
		return m.reclaim(b, c.Reclaim)
	case c.Recopy != nil:
		return m.recopy(b, c.Recopy)
	case c.SetQuota != nil:
		return m.setQuota(b, c.SetQuota)
	case c.NoteScrub != nil:
		return m.noteScrub(b, c.NoteScrub)
	}
	return nil, fault.New(fault.InvalidArgument, "command", "is empty")
}

func (m *machine) init(b *pebble.Batch, c *Init) (*outcome, error) {
	if m.identity.Deployment != "" {
		return nil, fault.New(fault.Conflict, "deployment", "is %s already", m.identity.Deployment)
	}
	m.identity.Deployment = c.Deployment
	return &outcome{}, put(b, identityKey(), &m.identity)
}

func (m *machine) createBucket(b *pebble.Batch, c *CreateBucket) (*outcome, error) {
	var bucket Bucket
	switch found, err := get(b, bucketKey(c.Name), &bucket); {
	case err != nil:
		return nil, err
	case found:
		return nil, fault.New(fault.AlreadyExists, bucketSubject(c.Name), "exists already")
	}
	bucket = Bucket{Name: c.Name, ID: c.ID, LogTime: m.meta.LogTime}
	return &outcome{Bucket: &bucket}, put(b, bucketKey(c.Name), &bucket)
}

func (m *machine) removeBucket(b *pebble.Batch, c *RemoveBucket) (*outcome, error) {
	var bucket Bucket
	found, err := get(b, bucketKey(c.Name), &bucket)
	if err != nil || !found || bucket.ID != c.ID {
		return &outcome{}, err
	}
	return &outcome{}, remove(b, bucketKey(c.Name))
}

func (m *machine) closeBucket(b *pebble.Batch, c *CloseBucket) (*outcome, error) {
	empty := true
	err := scan(b, recordPosition(c.ID, ""), func(_, _ []byte) error {
		empty = false
		return errEnough
	})
	if err != nil {
		return nil, err
	}
	if !empty {
		return nil, fault.New(fault.BucketNotEmpty, bucketSubject(c.Name), "isn't empty")
	}
	if err := m.forgetUsage(b, c.ID); err != nil {
		return nil, err
	}
	m.lastClosed = m.meta.Applied
	clear(m.open)
	return &outcome{}, put(b, closedKey(c.ID), &closedRow{LogTime: m.meta.LogTime})
}

// checkOpen refuses what belongs to a bucket that is deleted, and remembers
// which isn't.
func (m *machine) checkOpen(b *pebble.Batch, name string, id [16]byte) error {
	if m.open[id] {
		return nil
	}
	if err := checkOpen(b, name, id); err != nil {
		return err
	}
	if len(m.open) >= maxOpenBuckets {
		clear(m.open)
	}
	m.open[id] = true
	return nil
}

// checkOpen refuses what belongs to a bucket that is deleted. Nothing else
// about the bucket is known to a data group: whoever knows the id has it from
// the system group, and it is used once.
func checkOpen(r pebble.Reader, name string, id [16]byte) error {
	var closed closedRow
	found, err := get(r, closedKey(id), &closed)
	if err == nil && found {
		err = errNoBucket(name)
	}
	return err
}

func (m *machine) putRecord(b *pebble.Batch, index uint64, c *PutRecord) (*outcome, error) {
	if err := m.checkOpen(b, c.BucketName, c.BucketID); err != nil {
		return nil, err
	}
	subject := func() string { return objectSubject(c.BucketName, c.Record.Key) }
	if age, late := m.age(c.Birth); len(c.Record.Segments) > 0 && late {
		return nil, fault.New(fault.Conflict, subject(), "the put began %v before its commit, at most %v are allowed", age, putWindow)
	}
	old, err := m.find(b, c.BucketID, c.Record.Key)
	if err != nil {
		return nil, err
	}
	if err := checkPreconditions(old, subject, c.IfMatch, c.IfNoneMatch, c.IfUnmodifiedSince); err != nil {
		return nil, err
	}
	usage, err := m.usageOf(b, c.BucketID)
	if err != nil {
		return nil, err
	}
	grows := growth(old, &c.Record)
	if err := usage.check(c.BucketName, grows); err != nil {
		return nil, err
	}
	kept, err := m.checkSegments(b, subject, old, c.Record.Segments)
	if err != nil {
		return nil, err
	}
	m.use(c.BucketID, usage, grows)
	record := stored(&c.Record, m.meta.LogTime)
	if old != nil {
		if err := m.dropRecord(b, old, kept); err != nil {
			return nil, err
		}
	}
	row := recordKey(c.BucketID, record.Key, index)
	if err := putVersion(b, row, RecordVersion, &record); err != nil {
		return nil, err
	}
	m.wrote(rowOrder.Split.Prefix(row))
	for i := range record.Segments {
		if err := m.ownSegment(b, c, &record.Segments[i], kept); err != nil {
			return nil, err
		}
	}
	return &outcome{Replaced: old != nil}, nil
}

// age is how long ago something began, and whether that is too long for a put.
// Nothing begins ahead of its time: that would be a clock far off.
func (m *machine) age(birth int64) (age time.Duration, late bool) {
	age = time.Duration(m.meta.LogTime - birth)
	return age.Round(time.Second), age > putWindow || age < -putWindow
}

// ownSegment writes down that a put's record refers to a segment, and whether
// there are fewer copies of it than there should be.
func (m *machine) ownSegment(b *pebble.Batch, c *PutRecord, s *Segment, kept map[[16]byte]bool) error {
	row := segmentRow{Bucket: c.BucketID, Key: c.Record.Key}
	unfinished := len(s.Drives) < int(c.Copies)
	if kept[s.ID] {
		if !unfinished {
			return nil
		}
		if _, err := m.row(b, segmentKey(s.ID), &row); err != nil {
			return err
		}
	}
	if err := m.setHeal(b, s.ID, &row, unfinished); err != nil {
		return err
	}
	return m.setSegment(b, s.ID, &row)
}

// setHeal says in a segment's row whether it has a healRow, and sees to that.
func (m *machine) setHeal(b *pebble.Batch, id [16]byte, row *segmentRow, heal bool) error {
	if row.Heal == heal {
		return nil
	}
	row.Heal = heal
	if heal {
		return put(b, healKey(id), &healRow{})
	}
	return remove(b, healKey(id))
}

// checkSegments refuses a segment that is known already: it belongs to
// another record, or is garbage and its file about to go. The record that is
// replaced may hand its own on as they are: those are kept.
func (m *machine) checkSegments(b *pebble.Batch, subject func() string, old *foundRecord, segments []Segment) (kept map[[16]byte]bool, err error) {
	var own map[[16]byte][]string
	if old != nil && len(old.Segments) > 0 {
		own = make(map[[16]byte][]string, len(old.Segments))
		for i := range old.Segments {
			own[old.Segments[i].ID] = old.Segments[i].Drives
		}
	}
	for i := range segments {
		s := &segments[i]
		if drives, ok := own[s.ID]; ok && slices.Equal(drives, s.Drives) {
			if kept == nil {
				kept = make(map[[16]byte]bool, len(segments))
			}
			kept[s.ID] = true
			continue
		}
		var row segmentRow
		found, err := m.row(b, segmentKey(s.ID), &row)
		if err != nil {
			return nil, err
		}
		if found {
			return nil, fault.New(fault.Conflict, subject(), "segment %x has been used before", s.ID)
		}
	}
	return kept, nil
}

// dropRecord deletes a record's row. Its segments become garbage, except
// those that are kept by the one that replaces it. The usage is its caller's.
func (m *machine) dropRecord(b *pebble.Batch, old *foundRecord, kept map[[16]byte]bool) error {
	if err := remove(b, old.row); err != nil {
		return err
	}
	m.wrote(rowOrder.Split.Prefix(old.row))
	for i := range old.Segments {
		s := &old.Segments[i]
		if kept[s.ID] {
			continue
		}
		var row segmentRow
		if _, err := m.row(b, segmentKey(s.ID), &row); err != nil {
			return err
		}
		if err := m.setHeal(b, s.ID, &row, false); err != nil {
			return err
		}
		row = segmentRow{Garbage: row.Garbage} // of copies that were taken away before
		if err := m.discard(b, s, &row, s.Drives); err != nil {
			return err
		}
		if err := m.setSegment(b, s.ID, &row); err != nil {
			return err
		}
	}
	return nil
}

// discard makes garbage of a segment's copies on some drives.
func (m *machine) discard(b *pebble.Batch, s *Segment, row *segmentRow, drives []string) error {
	for _, drive := range drives {
		if err := put(b, garbageKey(drive, m.meta.LogTime, s.ID), &garbageRow{SizeBytes: s.SizeBytes}); err != nil {
			return err
		}
		row.Garbage = append(row.Garbage, drive)
	}
	return nil
}

func (m *machine) deleteRecords(b *pebble.Batch, c *DeleteRecords) (*outcome, error) {
	if err := m.checkOpen(b, c.Bucket, c.BucketID); err != nil {
		return nil, err
	}
	usage, err := m.usageOf(b, c.BucketID)
	if err != nil {
		return nil, err
	}
	out := &outcome{Fates: make([]byte, len(c.Keys))}
	dropped := 0
	for i, key := range c.Keys {
		if dropped >= maxDroppedSegments {
			out.Fates[i] = fateLeft
			continue
		}
		old, err := m.find(b, c.BucketID, key)
		if err != nil {
			return nil, err
		}
		subject := func() string { return objectSubject(c.Bucket, key) }
		// With a condition there is only one key: a refusal comes before
		// anything was written.
		if err := checkPreconditions(old, subject, c.IfMatch, nil, c.IfUnmodifiedSince); err != nil {
			return nil, err
		}
		if old == nil {
			out.Fates[i] = fateMissing
			continue
		}
		if err := m.dropRecord(b, old, nil); err != nil {
			return nil, err
		}
		m.use(c.BucketID, usage, growth(old, nil))
		dropped += len(old.Segments)
		out.Fates[i] = fateDeleted
	}
	return out, nil
}

func (m *machine) joinNode(b *pebble.Batch, c *JoinNode) (*outcome, error) {
	n, err := m.node(c.Node)
	if err != nil {
		return nil, err
	}
	drives := slices.Concat(n.Drives, c.Drives)
	slices.Sort(drives)
	drives = slices.Compact(drives)
	if len(drives) > MaxDrives {
		return nil, fault.New(fault.QuotaExceeded, nodeSubject(c.Node), "would have %d drives with those that it had before, at most %d are allowed", len(drives), MaxDrives)
	}
	for i := range m.topology.Nodes {
		known := &m.topology.Nodes[i]
		for _, d := range drives {
			if _, taken := slices.BinarySearch(known.Drives, d); taken && known.Name != n.Name {
				return nil, fault.New(fault.Conflict, "drive "+d, "belongs to node %s, and node %s has it too", known.Name, n.Name)
			}
		}
	}
	pool := cmp.Or(c.Pool, DefaultPool)
	if n.URL == c.URL && n.Pool == pool && n.Zone == c.Zone && slices.Equal(n.Drives, drives) {
		return &outcome{}, nil
	}
	n.URL, n.Pool, n.Zone, n.Drives = c.URL, pool, c.Zone, nilIfEmpty(drives)
	return m.setNode(b, &n)
}

func (m *machine) reclaim(b *pebble.Batch, c *Reclaim) (*outcome, error) {
	for i := range c.Entries {
		g := &c.Entries[i]
		key := garbageKey(g.Drive, g.LogTime, g.ID)
		var copied garbageRow
		if found, err := get(b, key, &copied); err != nil {
			return nil, err
		} else if !found {
			continue
		}
		var row segmentRow
		if _, err := m.row(b, segmentKey(g.ID), &row); err != nil {
			return nil, err
		}
		row.Garbage = slices.DeleteFunc(row.Garbage, func(d string) bool { return d == g.Drive })
		if row.Key != "" {
			row.Reclaimed = m.meta.LogTime
		}
		if err := errors.Join(remove(b, key), m.setSegment(b, g.ID, &row)); err != nil {
			return nil, err
		}
	}
	return &outcome{}, nil
}

// checkPreconditions evaluates the conditions of a write in the order of RFC
// 9110, 13.2.2. old is nil where there is no record. subject is asked for where
// they don't hold.
func checkPreconditions(old *foundRecord, subject func() string, ifMatch, ifNoneMatch []string, since int64) error {
	holds := func(tag string) bool { return old != nil && (tag == "*" || tag == old.ETag) }
	switch {
	case len(ifMatch) > 0:
		if !slices.ContainsFunc(ifMatch, holds) {
			return fault.New(fault.PreconditionFailed, subject(), "doesn't match If-Match")
		}
	case since != 0 && old != nil && old.LogTime/int64(time.Second) > since:
		return fault.New(fault.PreconditionFailed, subject(), "was modified after If-Unmodified-Since")
	}
	if slices.ContainsFunc(ifNoneMatch, holds) {
		return fault.New(fault.PreconditionFailed, subject(), "matches If-None-Match")
	}
	return nil
}

func bucketSubject(name string) string        { return fmt.Sprintf("bucket %q", name) }
func objectSubject(bucket, key string) string { return fmt.Sprintf("object %q", bucket+"/"+key) }
func errNoBucket(name string) error {
	return fault.New(fault.BucketNotFound, bucketSubject(name), "doesn't exist")
}

// findBucket gives a bucket's row; there being none is a BucketNotFound.
func findBucket(r pebble.Reader, name string) (Bucket, error) {
	var bucket Bucket
	found, err := get(r, bucketKey(name), &bucket)
	if err == nil && !found {
		err = errNoBucket(name)
	}
	return bucket, err
}

// foundRecord is a record with the key of its row.
type foundRecord struct {
	Record
	row  []byte
	made atomic.Value // see Answer.Made
}

// findRecord gives the newest version of a record, nil where there is none.
func findRecord(r pebble.Reader, bucket [16]byte, key string) (found *foundRecord, err error) {
	it, err := r.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, err
	}
	defer closeInto(&err, it)
	return seekRecord(it, bucket, key)
}

// seekRecord is findRecord by an iterator.
func seekRecord(it *pebble.Iterator, bucket [16]byte, key string) (*foundRecord, error) {
	if !it.SeekPrefixGE(recordPrefix(bucket, key)) {
		return nil, it.Error()
	}
	found := &foundRecord{row: bytes.Clone(it.Key())}
	var err error
	found.Record, err = recordAt(it)
	return found, err
}
