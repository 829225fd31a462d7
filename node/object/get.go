package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// prefetchBytes is how much of a segment is left when the next one is opened:
// early enough to hide the opening, late enough that a slow client doesn't
// keep a peer waiting with it for long.
const prefetchBytes = 8 << 20

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
	info := infoOf(bucket, a.Record)
	return a.Record, info, c.checkRead(info)
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
	total := int64(len(record.Inline))
	for i := range record.Segments {
		total += record.Segments[i].SizeBytes
	}
	if total != record.SizeBytes || record.Layout != 0 {
		return nil, fault.New(fault.Corrupted, "object", "has a record of %d bytes with payload of %d in layout %d", record.SizeBytes, total, record.Layout)
	}
	return &Reader{Info: info, s: s, record: record}, nil
}

// Reader reads one version of an object. It belongs to one goroutine at a
// time; Send may be called again, for another range.
type Reader struct {
	Info *Info

	s      *Service
	record *control.Record
}

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
// of this node the kernel moves it. win's first window counts for the first
// bytes only.
//
// The first byte is written when the first part has been opened: until then an
// error (RangeInvalid; Waiting or Unavailable, naming node and drive;
// Corrupted) can still become a status.
func (r *Reader) Send(ctx context.Context, w io.Writer, off, n int64, win dataio.Windows) (int64, error) {
	size := r.record.SizeBytes
	if n < 0 {
		n = size - off
	}
	if err := checkRange(off, n, size); err != nil || n == 0 {
		return 0, err
	}
	if len(r.record.Segments) == 0 {
		return r.s.sendBytes(ctx, w, r.record.Inline[off:off+n], PathInline, win)
	}
	return r.s.sendParts(ctx, w, r.parts(off, n), win)
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

// sendParts sends one part after the other, the next being opened while the
// present one is on its way.
func (s *Service) sendParts(ctx context.Context, w io.Writer, parts []part, win dataio.Windows) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	src, err := s.openSource(ctx, parts[0])
	if err != nil {
		return 0, err
	}
	var sent int64
	for i := range parts {
		var next *prefetch
		if i+1 < len(parts) {
			next = &prefetch{open: func() (*source, error) { return s.openSource(ctx, parts[i+1]) }}
		}
		n, err := s.sendSource(ctx, w, src, win, next)
		sent += n
		src.close()
		if err != nil {
			cancel()
			next.drop()
			return sent, err
		}
		if next == nil {
			break
		}
		if src, err = next.take(); err != nil && s.again(next) {
			src, err = s.openSource(ctx, parts[i+1])
		}
		if err != nil {
			return sent, err
		}
		win.FirstBytes = win.NextBytes
		if win.FirstBytes <= 0 {
			win.FirstBytes = dataio.NextWindowBytes
		}
	}
	return sent, nil
}

// again says that a prefetch that failed is worth another attempt: what it
// found in short supply may have been what the part before it held, and what
// it found missing long ago may be there now. Otherwise it has just waited for
// as long as a request may.
func (s *Service) again(p *prefetch) bool {
	return fault.KindOf(p.err) == fault.Overloaded || time.Since(p.ended) > s.o.WaitTimeout
}

// sendSource sends one part, and has the next one opened near its end.
func (s *Service) sendSource(ctx context.Context, w io.Writer, src *source, win dataio.Windows, next *prefetch) (int64, error) {
	if next != nil && (src.data != nil || src.N <= prefetchBytes) {
		next.start()
	}
	if src.data != nil {
		return s.sendBytes(ctx, w, src.data, PathGrid, win)
	}
	path := src.path
	_, zero := w.(io.ReaderFrom)
	reads := &recordingReader{r: src.R}
	if !zero {
		path, src.R = PathCopy, reads
	}
	before, after := win.Before, win.After
	win.Before = func() error {
		if src.before != nil {
			if err := src.before(); err != nil {
				return err
			}
		}
		if before != nil {
			return before()
		}
		return nil
	}
	left := src.N
	win.After = func(n int64) {
		left -= n
		if next != nil && left <= prefetchBytes {
			next.start()
		}
		if s.o.Hooks.Sent != nil {
			s.o.Hooks.Sent(path, n)
		}
		if after != nil {
			after(n)
		}
	}
	n, err := dataio.Send(ctx, w, src.LimitedReader, win)
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() != nil:
		return n, ctx.Err()
	case errors.Is(err, io.ErrUnexpectedEOF), reads.err != nil:
		return n, &fault.Error{Kind: fault.Unavailable, Subject: src.subject, Detail: "broke off in the middle of a payload", Err: err}
	}
	return n, fmt.Errorf("object: send payload of %s: %w", src.subject, err)
}

// recordingReader remembers how its reads failed, which tells a broken source
// from a broken destination.
type recordingReader struct {
	r   io.Reader
	err error
}

func (r *recordingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// sendBytes sends what is in memory.
func (s *Service) sendBytes(ctx context.Context, w io.Writer, data []byte, path Path, win dataio.Windows) (int64, error) {
	size := win.FirstBytes
	if size <= 0 {
		size = dataio.FirstWindowBytes
	}
	var sent int64
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		if win.Before != nil {
			if err := win.Before(); err != nil {
				return sent, err
			}
		}
		n, err := w.Write(data[:min(int64(len(data)), size)])
		sent += int64(n)
		data = data[n:]
		if s.o.Hooks.Sent != nil {
			s.o.Hooks.Sent(path, int64(n))
		}
		if win.After != nil {
			win.After(int64(n))
		}
		if err != nil {
			return sent, err
		}
		if size = win.NextBytes; size <= 0 {
			size = dataio.NextWindowBytes
		}
	}
	return sent, nil
}

// prefetch opens a source in a goroutine of its own, which take and drop join.
// A nil prefetch has nothing to drop.
type prefetch struct {
	open   func() (*source, error)
	opened chan struct{} // nil before start; closed when the fields below it are there
	src    *source
	err    error
	ended  time.Time
}

// start begins, once.
func (p *prefetch) start() {
	if p.opened != nil {
		return
	}
	p.opened = make(chan struct{})
	go func() {
		defer close(p.opened)
		p.src, p.err = p.open()
		p.ended = time.Now()
	}()
}

// take returns the source.
func (p *prefetch) take() (*source, error) {
	p.start()
	<-p.opened
	return p.src, p.err
}

// drop closes a source that nobody needs any more.
func (p *prefetch) drop() {
	if p == nil || p.opened == nil {
		return
	}
	if src, err := p.take(); err == nil {
		src.close()
	}
}
