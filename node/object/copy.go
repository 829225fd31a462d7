package object

import (
	"context"
	"errors"
	"io"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// Copy makes a new object from another, within or across buckets, with its
// headers and metadata. The source is the one version that is found at first,
// and the copy is refused unless its SHA-256 is the source's. An object can be
// copied onto itself, which makes a new version of it.
//
// Errors: those of Open about the source, with SrcConditions' NotModified as
// PreconditionFailed, since nothing is read here; those of Put.
func (s *Service) Copy(ctx context.Context, req CopyRequest) (*Info, error) {
	src, err := s.Open(ctx, req.SrcBucket, req.SrcKey, req.SrcConditions, 0)
	if err != nil {
		if fault.KindOf(err) == fault.NotModified {
			return nil, fault.New(fault.PreconditionFailed, "source", "does not meet the conditions on it")
		}
		return nil, err
	}
	defer src.Close()
	put := PutRequest{
		Bucket: req.Bucket, Key: req.Key,
		SizeBytes:  src.Info.SizeBytes,
		Headers:    src.Info.Headers,
		Metadata:   src.Info.Metadata,
		Conditions: req.Conditions,
	}
	if len(src.record.Segments) == 0 {
		return s.copyInline(ctx, put, src.record)
	}
	return s.copyThrough(ctx, put, src)
}

// copyInline writes a record whose payload is in it.
func (s *Service) copyInline(ctx context.Context, req PutRequest, from *control.Record) (*Info, error) {
	if err := req.validate(s.objectMax()); err != nil {
		return nil, err
	}
	begin, err := s.o.Index.Read(ctx, &control.Query{Begin: &control.BeginQuery{Bucket: req.Bucket, Key: req.Key, SizeBytes: req.SizeBytes}})
	if err != nil {
		return nil, err
	}
	p := &put{s: s, req: &req, inline: from.Inline, sums: newSums()}
	p.sums.add(from.Inline)
	if err := p.sums.verify(wholeOf(from)); err != nil {
		return nil, damaged(err)
	}
	info, _, err := s.commitRecord(ctx, begin.Bucket, begin.LogTime, p.record(), 0, &req.Conditions)
	return info, err
}

// wholeOf is the checksum that a copy of a record must have.
func wholeOf(r *control.Record) []Checksum {
	return []Checksum{{Algorithm: SHA256, Value: r.SHA256}}
}

// damaged is a checksum's mismatch that isn't the client's doing.
func damaged(err error) error {
	return &fault.Error{Kind: fault.Corrupted, Subject: "source", Detail: "has other bytes than its record says", Err: errors.Unwrap(err)}
}

// copyThrough reads the source into a put.
func (s *Service) copyThrough(ctx context.Context, req PutRequest, src *Reader) (*Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, feed := io.Pipe()
	done := make(chan struct{})
	var sendErr error
	go func() {
		defer close(done)
		_, sendErr = src.Send(ctx, feed, 0, src.Info.SizeBytes, dataio.Windows{})
		feed.CloseWithError(sendErr) // io.EOF where it is nil
	}()
	info, err := s.Put(ctx, req, body, func() ([]Checksum, error) { return wholeOf(src.record), nil })
	cancel()
	body.Close()
	<-done
	if fault.KindOf(err) == fault.ChecksumMismatch {
		return nil, damaged(err)
	}
	return info, err
}
