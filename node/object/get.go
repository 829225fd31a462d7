package object

import (
	"context"
	"hash/crc32"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// lookup reads a record and checks a read's conditions on it.
func (s *Service) lookup(ctx context.Context, bucket, key string, c *Conditions, maxAge time.Duration) (*control.Record, *Info, error) {
	if err := ValidateBucket(bucket); err != nil {
		return nil, nil, err
	}
	if err := ValidateKey(key); err != nil {
		return nil, nil, err
	}
	if err := c.validate(); err != nil {
		return nil, nil, err
	}
	a, err := s.o.Index.Read(ctx, &control.Query{MaxAge: maxAge, Record: &control.RecordQuery{Bucket: bucket, Key: key}})
	if err != nil {
		return nil, nil, err
	}
	info := keptInfo(bucket, a.Record, a.Made)
	return a.Record, info, c.checkRead(info)
}

// keptInfo is what infoOf gives, kept with the record where that is: see
// control.Answer.Made.
func keptInfo(bucket string, record *control.Record, made *atomic.Value) *Info {
	if made == nil {
		return infoOf(bucket, record)
	}
	info, ok := made.Load().(*Info)
	if !ok {
		info = infoOf(bucket, record)
		info.Made = new(atomic.Value)
		made.Store(info)
	}
	return info
}

// Stat describes an object. With a maxAge of 0 it shows every change that was
// acknowledged before the call; with more, up to MaxAgeMax, this node may
// answer from its own copy of the index, if that is at most so old, and ask no
// other node. Errors: InvalidArgument, BucketNotFound, ObjectNotFound,
// PreconditionFailed, NotModified (see InfoOf).
func (s *Service) Stat(ctx context.Context, bucket, key string, c Conditions, maxAge time.Duration) (*Info, error) {
	if err := validateMaxAge(maxAge); err != nil {
		return nil, err
	}
	_, info, err := s.lookup(ctx, bucket, key, &c, maxAge)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// Open finds an object for reading; its errors are Stat's. What is read is the
// version found here, whatever becomes of the object meanwhile; its files are
// kept for ReclaimGrace after it was replaced or deleted. So a record is never
// taken that is older than half of that, whatever maxAge allows: the other half
// is for reading what it refers to.
func (s *Service) Open(ctx context.Context, bucket, key string, c Conditions, maxAge time.Duration) (*Reader, error) {
	if err := validateMaxAge(maxAge); err != nil {
		return nil, err
	}
	record, info, err := s.lookup(ctx, bucket, key, &c, min(maxAge, s.o.ReclaimGrace/2))
	if err != nil {
		return nil, err
	}
	if err := checkTotal(record); err != nil {
		return nil, err
	}
	return &Reader{Info: info, s: s, record: record}, nil
}

// checkTotal compares what a record says of the payload.
func checkTotal(record *control.Record) error {
	total := int64(len(record.Inline))
	for i := range record.Segments {
		total += record.Segments[i].SizeBytes
	}
	if total != record.SizeBytes || record.Layout != 0 {
		return fault.New(fault.Corrupted, "object", "has a record of %d bytes with payload of %d in layout %d", record.SizeBytes, total, record.Layout)
	}
	return nil
}

// recordsNow is an index that has some records at hand: see control.RecordNow.
type recordsNow interface {
	RecordNow(bucket, key string) (*control.Record, *atomic.Value)
}

// OpenNow is Open without conditions, where the record is at hand, into a reader
// that nothing is read with any more. Where it says false, Open may find it.
func (s *Service) OpenNow(r *Reader, bucket, key string) bool {
	if s.now == nil || ValidateBucket(bucket) != nil || ValidateKey(key) != nil {
		return false
	}
	record, made := s.now.RecordNow(bucket, key)
	if record == nil || checkTotal(record) != nil {
		return false
	}
	*r = Reader{Info: keptInfo(bucket, record, made), s: s, record: record}
	return true
}

// Reader reads one version of an object. It belongs to one goroutine at a
// time; Send may be called again, for another range.
type Reader struct {
	Info *Info

	// Verify has Send give only bytes that were compared with their checksums on
	// the drive that they come from. It costs reading each MiB that has one of
	// them, and that the kernel doesn't move them.
	Verify bool

	s      *Service
	record *control.Record
}

// AtHand says that all bytes are in memory: sending them waits for nobody but
// the destination.
func (r *Reader) AtHand() bool { return len(r.record.Segments) == 0 }

// Here says that what is sent is in memory, or that this node has a drive that has,
// or should have, a copy of each part.
func (r *Reader) Here() bool {
	for i := range r.record.Segments {
		if !slices.ContainsFunc(r.record.Segments[i].Drives, func(id string) bool {
			d, _ := r.s.drive(id)
			return d != nil
		}) {
			return false
		}
	}
	return true
}

// InOne says that there is no more than one payload to send.
func (r *Reader) InOne() bool { return len(r.record.Segments) <= 1 }

// Close releases the reader. It may be called again. Sending holds nothing
// beyond its return, so that there is nothing to release yet.
func (r *Reader) Close() error { return nil }

// Send writes the n bytes at off to w, and returns how many it has written; a
// negative n is all that follow. Bytes are always in order and never more than
// asked for; fewer come with an error, and then the response must be broken
// off, since its head has promised more.
//
// Payload of drives here and of large parts elsewhere is handed to w's
// ReadFrom, if it has one, as dataio.Send does it: on a plaintext connection
// of this node the kernel moves it, and so it is counted, unless w has a method
// InKernel() bool that says otherwise. win's first window counts for the first
// bytes only. A window is cut short where a copy fails within it; another one
// goes on with the next byte.
//
// The first byte is written when the first part has been opened and its first
// window is at hand: until then an error (RangeInvalid; Waiting or Unavailable,
// naming node and drive; Corrupted, if every copy is) can still become a status.
func (r *Reader) Send(ctx context.Context, w io.Writer, off, n int64, win dataio.Windows) (int64, error) {
	size := r.record.SizeBytes
	if n < 0 {
		n = size - off
	}
	if err := checkRange(off, n, size); err != nil || n == 0 {
		return 0, err
	}
	t := newSending(r.s, w, win)
	if len(r.record.Segments) > 0 {
		return t.parts(ctx, r.parts(off, n), r)
	}
	if err := r.verifyInline(); err != nil {
		return 0, err
	}
	return t.bytes(ctx, r.record.Inline[off:off+n], PathInline)
}

// Bytes gives the n bytes at off of an object that is AtHand, where they are, and
// counts them as sent. They are the record's: for reading only.
func (r *Reader) Bytes(off, n int64) ([]byte, error) {
	err := checkRange(off, n, int64(len(r.record.Inline)))
	if err == nil {
		err = r.verifyInline()
	}
	if err != nil {
		return nil, err
	}
	if r.s.o.Hooks.Sent != nil {
		r.s.o.Hooks.Sent(PathInline, n)
	}
	return r.record.Inline[off : off+n : off+n], nil
}

// verifyInline compares a payload in the record with its checksum, if the reader
// is to.
func (r *Reader) verifyInline() error {
	if r.Verify && crc32.Checksum(r.record.Inline, castagnoli) != r.record.CRC32C {
		return fault.New(fault.Corrupted, "object", "has other bytes than its record says")
	}
	return nil
}

// part is a range within a segment.
type part struct {
	segment *control.Segment
	off, n  int64
}

// parts cuts a range of the object into ranges of segments.
func (r *Reader) parts(off, n int64) []part {
	var parts []part
	for i := range r.record.Segments {
		seg := &r.record.Segments[i]
		if n > 0 && off < seg.SizeBytes {
			here := min(n, seg.SizeBytes-off)
			parts = append(parts, part{seg, off, here})
			off, n = 0, n-here
		} else {
			off -= seg.SizeBytes
		}
	}
	return parts
}

// replicas returns the copies of a part.
func (r *Reader) replicas(p part) *replicas {
	copies := r.s.replicasOf(p, r.Verify)
	copies.again = func(ctx context.Context) []string { return r.drivesNow(ctx, p.segment.ID) }
	return copies
}

// drivesNow returns the drives that have a segment by what the index says now,
// none if the object isn't the one that was opened any more.
func (r *Reader) drivesNow(ctx context.Context, id dataio.ID) []string {
	q := &control.RecordQuery{Bucket: r.Info.Bucket, Key: r.Info.Key}
	a, err := r.s.o.Index.Read(ctx, &control.Query{Record: q})
	if err != nil {
		return nil
	}
	for _, seg := range a.Record.Segments {
		if seg.ID == id {
			return seg.Drives
		}
	}
	return nil
}

// prefetch opens a part in a goroutine of its own, which take and drop join. A
// nil prefetch has nothing to drop.
type prefetch struct {
	copies *replicas
	opened chan struct{} // nil before start; closed when the fields below it are there
	src    *source
	err    error
	ended  time.Time
}

// start begins, once.
func (p *prefetch) start(ctx context.Context) {
	if p == nil || p.opened != nil {
		return
	}
	p.opened = make(chan struct{})
	go func() {
		defer close(p.opened)
		p.src, p.err = p.copies.open(ctx, 0)
		p.ended = time.Now()
	}()
}

// take returns the source.
func (p *prefetch) take(ctx context.Context) (*source, error) {
	p.start(ctx)
	<-p.opened
	return p.src, p.err
}

// drop closes a source that nobody needs any more.
func (p *prefetch) drop() {
	if p == nil || p.opened == nil {
		return
	}
	if <-p.opened; p.err == nil {
		p.copies.done(p.src)
	}
}

// again says that a prefetch that failed is worth another attempt: what it
// found in short supply may have been what the part before it held, and what
// it found missing long ago may be there now. Otherwise it has just waited for
// as long as a request may.
func (s *Service) again(p *prefetch) bool {
	return fault.KindOf(p.err) == fault.Overloaded || time.Since(p.ended) > s.o.WaitTimeout
}
