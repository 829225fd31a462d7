package object

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// silence is how long a peer may send nothing before it is given up for
// another copy. What its drives keep it waiting for, it gives up sooner.
const silence = time.Second

// manner is how a copy is to be read.
type manner struct {
	verify bool // only what was compared with its checksums
	quiet  bool // a bad copy is reported by who asks
	// hedge: there is another copy, so neither a node nor a drive that isn't
	// there is waited for, and one that has stalled not longer than usual.
	hedge bool
	// patience is how long a stall may last otherwise.
	patience time.Duration
}

// source is an open part of one copy of a segment: bytes in memory, or a reader.
type source struct {
	copy    *choice   // of which it is
	subject string    // "drive 6f… on node b"
	path    Path      // to a destination with ReadFrom
	data    []byte    // from the grid; there is no stream then
	asked   time.Time // when it was last asked for bytes
	stream
}

// stream is where a source's bytes come from, in order.
type stream interface {
	// ready returns how many of the next want bytes can be read now without
	// waiting for the drive or the peer: at least one, which it waits for. The
	// window after these will have up to next bytes. An error is the source's.
	ready(ctx context.Context, want, next int64) (int64, error)
	// reader is what those bytes are to be read from.
	reader() io.Reader
	// took tells that n bytes were read from it.
	took(n int64)
	// blame returns the source's part in an error of moving bytes that were
	// ready; nil: it was the destination's alone.
	blame(ctx context.Context, err error) error
	// close ends it.
	close()
}

func (s *source) close() {
	if s.stream != nil {
		s.stream.close()
	}
}

// atHand says that the next n bytes are those of a file, and in memory.
func (s *source) atHand(n int64) bool {
	f, ok := s.stream.(*fileStream)
	return ok && f.atHand(n)
}

// openOn opens a part on one of its drives.
func (s *Service) openOn(ctx context.Context, drive string, p part, how manner) (*source, error) {
	ref := payloadRef{drive, p.segment.ID}
	if d, _ := s.drive(drive); d != nil {
		return s.openLocal(ctx, ref, p, how)
	}
	node, err := s.locate(ctx, drive)
	switch {
	case err != nil:
		return nil, err
	case node.Name == s.o.Self:
		return s.openLocal(ctx, ref, p, how)
	}
	open := s.openBulk
	if p.n <= GridMaxBytes {
		open = s.openGrid
	}
	limit := silence
	if !how.hedge {
		limit += how.patience // its node waits for the drive as long
	}
	// Only the opening has to come to an end in time.
	short, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(errSilent) })
	src, err := open(short, node, ref, p, how)
	if timer.Stop(); context.Cause(short) == errSilent {
		if err == nil {
			src.close()
		}
		return nil, fault.New(fault.Deadline, s.driveName(node.Name, drive), "its node has not answered within %v", limit)
	}
	if err != nil || src.stream == nil {
		cancel(nil)
		return src, err
	}
	src.stream = &cancelled{src.stream, cancel}
	return src, nil
}

var errSilent = errors.New("object: a peer is silent")

// cancelled is a stream whose context ends with it.
type cancelled struct {
	stream
	cancel context.CancelCauseFunc
}

func (c *cancelled) close() {
	c.stream.close()
	c.cancel(nil)
}

// openLocal opens a part on a drive of this node.
func (s *Service) openLocal(ctx context.Context, ref payloadRef, p part, how manner) (*source, error) {
	file, err := s.openPart(ctx, ref, p, how)
	if err != nil {
		return nil, err
	}
	src := &source{subject: file.subject, stream: file, path: PathSendfile}
	if how.verify {
		src.path = PathCopy
	}
	return src, nil
}

// openGrid fetches a small part. A whole segment is compared with the sum in
// its record, as it is at hand.
func (s *Service) openGrid(ctx context.Context, node control.Node, ref payloadRef, p part, how manner) (*source, error) {
	subject := s.driveName(node.Name, ref.drive)
	req := &readRequest{
		Drive: ref.drive, ID: ref.id, SizeBytes: p.segment.SizeBytes, CRC32C: p.segment.CRC32C,
		Offset: p.off, Length: p.n, Verify: how.verify, Hedge: how.hedge,
	}
	call := func(ctx context.Context, c *grid.Connection, req *readRequest) (*readResponse, error) {
		return readCall.Call(ctx, c, req)
	}
	var resp *readResponse
	var err error
	if how.hedge {
		c := s.o.Conn(node.Name)
		if !connected(c) {
			return nil, fault.New(fault.Waiting, subject, "node %s is not connected", node.Name)
		}
		if resp, err = call(ctx, c, req); err != nil {
			err = remoteFault(err, subject)
		}
	} else {
		resp, err = ask(ctx, s, node.Name, subject, req, call)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(resp.Data)) != p.n {
		return nil, fault.New(fault.Unavailable, subject, "gave %d of %d bytes", len(resp.Data), p.n)
	}
	if p.n == p.segment.SizeBytes && crc32.Checksum(resp.Data, castagnoli) != p.segment.CRC32C {
		s.badCopy(ref, badCorrupted)
		return nil, fault.New(fault.Corrupted, subject, "has payload %s with another checksum than its record", ref.id)
	}
	return &source{subject: subject, data: resp.Data, path: PathGrid}, nil
}

// openBulk asks a node's bulk port for a part.
func (s *Service) openBulk(ctx context.Context, node control.Node, ref payloadRef, p part, how manner) (*source, error) {
	b, err := s.bulk.open(ctx, node, ref, p, how)
	if err != nil {
		return nil, err
	}
	path := PathCopy
	if b.raw != nil {
		path = PathSplice
	}
	return &source{subject: s.driveName(node.Name, ref.drive), stream: b, path: path}, nil
}
