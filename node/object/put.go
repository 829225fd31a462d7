package object

import (
	"context"
	"errors"
	"hash/crc32"
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
// Errors: InvalidArgument for a bad name, header or metadata; BucketNotFound;
// PreconditionFailed, before the body is read if it is clear by then;
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
		sums:   newSums(),
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
	if err != nil {
		p.discard(ctx)
		return nil, err
	}
	return info, nil
}

// begin refuses a put that can't succeed before its body is read, and takes its
// birth.
func (s *Service) begin(ctx context.Context, req *PutRequest) (*control.Answer, error) {
	q := &control.Query{Begin: &control.BeginQuery{Bucket: req.Bucket}}
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
	segments []control.Segment // of the object, in order
	files    []placed          // that may be there, in the order of writing

	cur     *segment        // being written
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
	size := p.req.SizeBytes
	if size > GridMaxBytes {
		if err := p.begin(ctx); err != nil {
			return err
		}
		return p.stream(ctx)
	}
	first := p.s.chunk()
	n, err := p.body.fill(ctx, first.buf[:])
	first.n = n
	var second *chunk
	if err == nil && !p.body.ended {
		// It may end right here.
		second = p.s.chunk()
		second.n, err = p.body.fill(ctx, second.buf[:])
	}
	if err == nil && second != nil && second.n > 0 {
		return p.stream(ctx, first, second)
	}
	defer p.s.chunks.Put(first)
	if second != nil {
		p.s.chunks.Put(second)
	}
	if err != nil {
		return err
	}
	data := first.bytes()
	p.sums.add(data)
	if len(data) <= InlineMaxBytes {
		p.inline = slices.Clone(data)
		return nil
	}
	return p.writeWhole(ctx, data)
}

// stream writes the chunks read so far and the rest of the body into segments,
// each to the first drive that takes it.
func (p *put) stream(ctx context.Context, read ...*chunk) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.commits, ctx = errgroup.WithContext(ctx) // a failed sync ends the put at the next Read of the body
	p.commits.SetLimit(commitsAtOnce)
	h := newHasher(p.sums, p.s.chunk)
	err := p.pump(ctx, h, read)
	if err == nil && p.cur != nil {
		p.end(ctx)
	}
	if err != nil {
		err = because(ctx, err)
		cancel()
		if p.cur != nil {
			p.cur.sink.Abort()
			p.cur = nil
		}
	}
	h.finish(func(c *chunk) { p.s.chunks.Put(c) })
	if werr := p.commits.Wait(); err == nil {
		err = werr
	}
	return err
}

// pump moves the body, chunk by chunk, to the hasher and to the segments.
func (p *put) pump(ctx context.Context, h *hasher, read []*chunk) error {
	for _, c := range read {
		h.adopt()
		h.add(c)
		if err := p.write(ctx, c.bytes()); err != nil {
			return err
		}
	}
	for !p.body.ended {
		c := h.next()
		var err error
		if c.n, err = p.body.fill(ctx, c.buf[:]); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h.add(c)
		if err := p.write(ctx, c.bytes()); err != nil {
			return err
		}
	}
	return nil
}

// segment is a payload file being written.
type segment struct {
	index int // in put.segments
	left  int64
	crc   uint32
	sink  sink
}

// write writes data into the present segment and those after it.
func (p *put) write(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		if p.cur == nil {
			if err := p.begin(ctx); err != nil {
				return err
			}
		}
		part := data[:min(int64(len(data)), p.cur.left)]
		if _, err := p.cur.sink.Write(part); err != nil {
			return err
		}
		data = data[len(part):]
		p.cur.left -= int64(len(part))
		p.stored += int64(len(part))
		p.cur.crc = crc32.Update(p.cur.crc, castagnoli, part)
		p.segments[p.cur.index].SizeBytes += int64(len(part))
		if p.cur.left == 0 {
			p.end(ctx)
		}
	}
	return nil
}

// begin opens the next segment on the first drive that takes it.
func (p *put) begin(ctx context.Context) error {
	size := int64(-1)
	if p.req.SizeBytes >= 0 {
		size = min(p.req.SizeBytes-p.stored, p.s.o.SegmentBytes)
	}
	id := dataio.NewID()
	targets, err := p.s.targets(ctx, id)
	if err != nil {
		return err
	}
	var refused refusals
	for _, t := range targets {
		w, err := p.s.openSink(ctx, t, id, size)
		if err != nil {
			if ctx.Err() != nil || !refused.add(err) {
				return err
			}
			continue
		}
		p.files = append(p.files, placed{t.node.Name, payloadRef{t.drive, id}})
		p.segments = append(p.segments, control.Segment{ID: id, Drives: []string{t.drive}})
		p.cur = &segment{index: len(p.segments) - 1, left: p.s.o.SegmentBytes, sink: w}
		if size >= 0 {
			p.cur.left = size
		}
		return nil
	}
	return refused.err()
}

// end has the present segment synced, in the background.
func (p *put) end(ctx context.Context) {
	cur := p.cur
	p.cur = nil
	seg := &p.segments[cur.index]
	seg.CRC32C = cur.crc
	size := seg.SizeBytes // segments may move while the next is appended
	p.commits.Go(func() error {
		w, err := cur.sink.Commit(ctx)
		if err != nil {
			return err
		}
		return checkWritten(w, size, cur.crc)
	})
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
func (p *put) writeWhole(ctx context.Context, data []byte) error {
	id := dataio.NewID()
	targets, err := p.s.targets(ctx, id)
	if err != nil {
		return err
	}
	crc := p.sums.crc32c
	var refused refusals
	for _, t := range targets {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		p.files = append(p.files, placed{t.node.Name, payloadRef{t.drive, id}})
		w, err := p.s.writeSmall(ctx, t, id, data, crc)
		if err == nil {
			err = checkWritten(w, int64(len(data)), crc)
		}
		if err != nil {
			if ctx.Err() != nil || !refused.add(err) {
				return err
			}
			if leavesNothing(t, err) {
				p.files = p.files[:len(p.files)-1]
			}
			continue
		}
		// Only this one's file stays.
		last := len(p.files) - 1
		p.s.removeLater(slices.Clone(p.files[:last]))
		p.files = p.files[last:]
		p.segments = []control.Segment{{ID: id, SizeBytes: int64(len(data)), CRC32C: crc, Drives: []string{t.drive}}}
		return nil
	}
	return refused.err()
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

// chunk takes a chunk from the pool.
func (s *Service) chunk() *chunk { return s.chunks.Get().(*chunk) }
