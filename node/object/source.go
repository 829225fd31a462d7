package object

import (
	"context"
	"hash/crc32"
	"io"
	"slices"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// source is an open part of a segment: bytes in memory, or a reader.
type source struct {
	subject string // "drive 6f… on node b"
	data    []byte // from the grid; the other fields are unset then

	*io.LimitedReader
	path   Path         // to a destination with ReadFrom
	before func() error // before each window; nil: nothing to do
	closer func()
}

func (s *source) close() {
	if s.closer != nil {
		s.closer()
	}
}

// openSource opens a part on the first of the segment's drives that has it,
// those of this node before the others.
func (s *Service) openSource(ctx context.Context, p part) (*source, error) {
	err := error(fault.New(fault.Corrupted, "object", "has a segment on no drive"))
	for _, drive := range s.nearestFirst(p.segment.Drives) {
		var src *source
		if src, err = s.openOn(ctx, drive, p); err == nil {
			return src, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (s *Service) nearestFirst(drives []string) []string {
	if len(drives) < 2 {
		return drives
	}
	sorted := slices.Clone(drives)
	slices.SortStableFunc(sorted, func(a, b string) int {
		da, _ := s.drive(a)
		db, _ := s.drive(b)
		switch {
		case da != nil && db == nil:
			return -1
		case da == nil && db != nil:
			return 1
		}
		return 0
	})
	return sorted
}

func (s *Service) openOn(ctx context.Context, drive string, p part) (*source, error) {
	ref := payloadRef{drive, p.segment.ID}
	if d, _ := s.drive(drive); d != nil {
		return s.openLocal(ctx, d, ref, p)
	}
	node, err := s.locate(ctx, drive)
	switch {
	case err != nil:
		return nil, err
	case node.Name == s.o.Self:
		d, err := s.awaitDrive(ctx, drive)
		if err != nil {
			return nil, err
		}
		return s.openLocal(ctx, d, ref, p)
	case p.n <= GridMaxBytes:
		return s.openGrid(ctx, node, ref, p)
	}
	b, err := s.bulk.open(ctx, node, ref, p.segment.SizeBytes, p.off, p.n)
	if err != nil {
		return nil, err
	}
	path := PathCopy
	if b.c.plain() {
		path = PathSplice
	}
	return &source{
		subject:       s.driveName(node.Name, drive),
		LimitedReader: &b.LimitedReader,
		path:          path,
		before:        b.before,
		closer:        b.close,
	}, nil
}

func (s *Service) openLocal(ctx context.Context, d *dataio.Drive, ref payloadRef, p part) (*source, error) {
	f, err := s.openOwn(ctx, ref, p.segment.SizeBytes)
	if err != nil {
		return nil, err
	}
	section, err := f.Section(p.off, p.n)
	if err != nil {
		f.Close()
		return nil, s.driveFault(err, d)
	}
	return &source{
		subject:       s.driveName(s.o.Self, ref.drive),
		LimitedReader: section,
		path:          PathSendfile,
		closer:        func() { f.Close() },
	}, nil
}

// openGrid fetches a small part. A whole segment is compared with the sum in
// its record, as it is at hand.
func (s *Service) openGrid(ctx context.Context, node control.Node, ref payloadRef, p part) (*source, error) {
	subject := s.driveName(node.Name, ref.drive)
	req := &readRequest{Drive: ref.drive, ID: ref.id, SizeBytes: p.segment.SizeBytes, Offset: p.off, Length: p.n}
	resp, err := ask(ctx, s, node.Name, subject, req, func(ctx context.Context, c *grid.Connection, req *readRequest) (*readResponse, error) {
		return readCall.Call(ctx, c, req)
	})
	if err != nil {
		return nil, err
	}
	if int64(len(resp.Data)) != p.n {
		return nil, fault.New(fault.Corrupted, subject, "gave %d of %d bytes", len(resp.Data), p.n)
	}
	if p.n == p.segment.SizeBytes && crc32.Checksum(resp.Data, castagnoli) != p.segment.CRC32C {
		return nil, fault.New(fault.Corrupted, subject, "has payload %s with another checksum than its record", ref.id)
	}
	return &source{subject: subject, data: resp.Data}, nil
}
