package object

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// putMax is less than the hour after its birth at which the index refuses
	// a put, and far less than the two at which its files count as left behind.
	putMax = 55 * time.Minute
	// discardTimeout bounds the removal of what a failed put has written.
	discardTimeout = 5 * time.Second
	// commitsAtOnce is how many full segments are synced while the next one is
	// being written.
	commitsAtOnce = 2
)

// objectMax is the largest object, in bytes: a record has a limited number of
// segments.
func (s *Service) objectMax() int64 {
	return min(ObjectMaxBytes, control.MaxSegments*s.o.SegmentBytes)
}

// Put stores an object: body to its end, which trailer (nil: no checksums) is
// called after, once. The object becomes visible with the return, whole or not
// at all; ETag is the SHA-256 in hex.
//
// Where the size is known and over GridMaxBytes, room for the first segment is
// allocated before the body is read, so that a full mesh refuses it unread.
//
// Payload is acknowledged when a majority of the copies that it is to have are
// synced, each on a drive of its own, and only those are in the record.
//
// Errors: InvalidArgument for a bad name, header or metadata; BucketNotFound;
// PreconditionFailed and QuotaExceeded, before the body is read if it is clear
// by then;
// IncompleteBody where body fails or has another size than was said;
// ChecksumMismatch; TooLarge over 62.5 GiB; NoSpace; Waiting and Unavailable where no drive
// or index can be reached; Deadline after 55 minutes. Files written until then
// are removed, on every node, before Put returns.
//
// The commit isn't interrupted by the end of ctx. If it is unknown in the end
// whether it went through, the files stay, since a record may name them.
func (s *Service) Put(ctx context.Context, req PutRequest, body io.Reader, trailer func() ([]Checksum, error)) (*Info, error) {
	limit := s.objectMax()
	if err := req.validate(limit); err != nil {
		return nil, err
	}
	begin, err := s.begin(ctx, &req)
	if err != nil {
		return nil, err
	}
	late := fault.New(fault.Deadline, "put", "took longer than %v", putMax)
	ctx, cancel := context.WithTimeoutCause(ctx, putMax, late)
	defer cancel()
	p := &put{
		s:      s,
		req:    &req,
		bucket: begin.Bucket,
		birth:  begin.LogTime,
		body:   &bodyReader{r: body, declared: req.SizeBytes, limit: limit},
		sums:   newSums(req.Sums...),
	}
	err = because(ctx, p.store(ctx))
	if err == nil && trailer != nil {
		err = p.verify(trailer)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	var info *Info
	if err == nil {
		info, err = p.commit(ctx)
	}
	if err == nil {
		info.Sums = p.sums.extra()
	}
	if err != nil {
		p.discard(ctx)
		return nil, err
	}
	return info, nil
}

// begin refuses a put that can't succeed before its body is read, and takes its
// birth.
func (s *Service) begin(ctx context.Context, req *PutRequest) (*control.Answer, error) {
	q := &control.Query{Begin: &control.BeginQuery{Bucket: req.Bucket, Key: req.Key, SizeBytes: req.SizeBytes}}
	if 0 <= req.SizeBytes && req.SizeBytes <= InlineMaxBytes {
		// It goes into its record, so that there is no file which its birth
		// protects. What an old answer lets through, the commit refuses.
		q.MaxAge = time.Hour
	}
	a, err := s.o.Index.Read(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := s.precheck(ctx, req.Bucket, req.Key, &req.Conditions); err != nil {
		return nil, err
	}
	return a, s.room(ctx, req.SizeBytes)
}

// because is err, or why ctx was ended if err is just that it was.
func because(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
	}
	return err
}

// put is one Put. Its methods run in the caller's goroutine.
type put struct {
	s      *Service
	req    *PutRequest
	bucket *control.Bucket
	birth  int64
	body   *bodyReader
	sums   *sums

	inline   []byte            // the payload, if it is small
	segments []control.Segment // of the object, in order; once all are synced
	copies   int               // that each segment was to have
	missing  int               // and that aren't in segments
	files    []placed          // that may be there

	cur     *segment        // being written
	written []*segment      // in order, with cur
	stored  int64           // bytes written into segments
	commits *errgroup.Group // of full segments
}

// placed is a payload file on a node's drive.
type placed struct {
	node string
	payloadRef
}

// store reads the body and writes it where it belongs.
func (p *put) store(ctx context.Context) error {
	if p.req.SizeBytes > GridMaxBytes {
		return p.stream(ctx)
	}
	first := p.s.chunk()
	defer first.release()
	n, err := p.body.fill(ctx, first.buf[:])
	if err != nil {
		return err
	}
	first.n = n
	if !p.body.ended {
		// It may end right here.
		second := p.s.chunk()
		defer second.release()
		if second.n, err = p.body.fill(ctx, second.buf[:]); err != nil {
			return err
		}
		if second.n > 0 {
			return p.stream(ctx, first, second)
		}
	}
	p.sums.add(first.bytes())
	if n <= InlineMaxBytes {
		p.inline = slices.Clone(first.bytes())
		return nil
	}
	return p.writeWhole(ctx, first)
}

// stream writes the chunks read so far and the rest of the body into segments.
func (p *put) stream(ctx context.Context, read ...*chunk) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.commits, ctx = errgroup.WithContext(ctx) // a failed sync ends the put at the next Read of the body
	p.commits.SetLimit(commitsAtOnce)
	h := newHasher(p.sums)
	err := p.pump(ctx, h, read)
	if err == nil && p.cur != nil {
		p.end(ctx)
	}
	if err != nil {
		err = because(ctx, err)
		cancel()
	}
	h.finish()
	if werr := p.commits.Wait(); err == nil {
		err = werr
	}
	for _, g := range p.written {
		p.sums.crc32c = dataio.CombineCRC32C(p.sums.crc32c, g.crc, g.size)
		p.files = append(p.files, g.files()...)
		if err == nil {
			seg := g.describe()
			p.segments = append(p.segments, seg)
			p.missing += g.want - len(seg.Drives)
		}
	}
	if err != nil {
		p.abandon(ctx, err)
	}
	return err
}

// abandon ends what is being written, and waits a while for the ends.
func (p *put) abandon(ctx context.Context, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	for _, g := range p.written {
		for _, r := range g.copies {
			g.giveUp(r, why)
		}
	}
	for _, g := range p.written {
		g.join(ctx)
	}
}

// pump moves the body, chunk by chunk, to the hasher and to the segments.
func (p *put) pump(ctx context.Context, h *hasher, read []*chunk) error {
	if len(read) == 0 {
		// Its size is known: it is refused unread where there is no room.
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	for _, c := range read {
		h.add(c)
		if err := p.write(ctx, c); err != nil {
			return err
		}
	}
	for !p.body.ended {
		if err := p.move(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// move moves one chunk.
func (p *put) move(ctx context.Context, h *hasher) error {
	c := p.s.chunk()
	defer c.release()
	var err error
	if c.n, err = p.body.fill(ctx, c.buf[:]); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	h.add(c)
	return p.write(ctx, c)
}

// write writes a chunk into the present segment and those after it.
func (p *put) write(ctx context.Context, c *chunk) error {
	for data := c.bytes(); len(data) > 0; {
		if p.cur == nil {
			if err := p.begin(ctx); err != nil {
				return err
			}
		}
		part := data[:min(int64(len(data)), p.cur.left)]
		if err := p.cur.write(ctx, c, part); err != nil {
			return err
		}
		data = data[len(part):]
		p.stored += int64(len(part))
		if p.cur.left == 0 {
			p.end(ctx)
		}
	}
	return nil
}

// begin opens the next segment on as many drives as there are to be copies, in
// the first pool where enough take it.
func (p *put) begin(ctx context.Context) error {
	size, left := int64(-1), p.s.o.SegmentBytes
	if p.req.SizeBytes >= 0 {
		size = min(p.req.SizeBytes-p.stored, left)
		left = size
	}
	id := dataio.NewID()
	return p.place(ctx, size, func(pool *pool) error {
		g := &gatherer[sink]{s: p.s, pool: pool, picker: newPicker(pool.found, id), opening: true}
		g.start = func(t target) func(context.Context) (sink, error) {
			return func(ctx context.Context) (sink, error) { return p.s.openSink(ctx, t, id, size) }
		}
		g.late = func(a *attempt[sink]) { a.value.Abort() }
		opened, err := g.gather(ctx)
		if err != nil {
			for _, a := range opened {
				a.cancel(err)
				a.value.Abort()
			}
			return err
		}
		p.cur = p.s.newSegment(id, left, pool, opened)
		p.written = append(p.written, p.cur)
		return nil
	})
}

// place tries the pools that take a payload file of a size, until one does.
func (p *put) place(ctx context.Context, sizeBytes int64, try func(*pool) error) error {
	pools, err := p.s.placements(ctx, sizeBytes)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		switch terr := try(pool); {
		case terr == nil:
			p.copies = max(p.copies, pool.want)
			return nil
		case ctx.Err() != nil:
			return terr
		case err == nil:
			err = terr // that of the best pool
		}
	}
	return err
}

// end has the present segment synced, in the background.
func (p *put) end(ctx context.Context) {
	cur := p.cur
	p.cur = nil
	cur.end()
	p.commits.Go(func() error { return cur.sync(ctx) })
}

// checkWritten compares what a drive says it has with what was sent to it.
func checkWritten(w dataio.Written, sizeBytes int64, crc uint32) error {
	if w.SizeBytes != sizeBytes || w.CRC32C != crc {
		return fault.New(fault.Corrupted, "payload", "was damaged on its way: %d bytes with CRC32C %08x were sent, %d with %08x arrived",
			sizeBytes, crc, w.SizeBytes, w.CRC32C)
	}
	return nil
}

// writeWhole writes a payload that is in memory as one segment.
func (p *put) writeWhole(ctx context.Context, c *chunk) error {
	id := dataio.NewID()
	data, crc := c.bytes(), p.sums.crc32c
	return p.place(ctx, int64(len(data)), func(pool *pool) error {
		g := &gatherer[struct{}]{s: p.s, pool: pool, picker: newPicker(pool.found, id)}
		g.start = func(t target) func(context.Context) (struct{}, error) {
			c.hold()
			return func(ctx context.Context) (struct{}, error) {
				defer c.release()
				return struct{}{}, p.s.writeSmall(ctx, t, id, data, crc)
			}
		}
		g.late = func(*attempt[struct{}]) {} // it has removed what it wrote
		written, err := g.gather(ctx)
		seg := control.Segment{ID: id, SizeBytes: int64(len(data)), CRC32C: crc}
		var files []placed
		for _, a := range written {
			a.cancel(nil)
			seg.Drives = append(seg.Drives, a.drive)
			files = append(files, placed{a.node.Name, payloadRef{a.drive, id}})
		}
		if err != nil {
			for _, t := range g.unsure(leavesNothing) {
				files = append(files, placed{t.node.Name, payloadRef{t.drive, id}})
			}
			p.s.removeFiles(context.WithoutCancel(ctx), files) // now: the next pool's have the same id
			return err
		}
		p.files, p.segments, p.missing = files, []control.Segment{seg}, pool.want-len(seg.Drives)
		return nil
	})
}

// verify compares the client's checksums.
func (p *put) verify(trailer func() ([]Checksum, error)) error {
	checksums, err := trailer()
	if err != nil {
		return fault.Wrap(fault.IncompleteBody, "body", err)
	}
	return p.sums.verify(checksums)
}

// discard removes what was written, when the put has failed.
func (p *put) discard(ctx context.Context) {
	p.s.removeFiles(context.WithoutCancel(ctx), p.files)
}

// chunk takes a chunk from the pool. The caller holds it.
func (s *Service) chunk() *chunk {
	c := s.chunks.Get().(*chunk)
	c.hold()
	return c
}
