package object

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// commitWaits times WaitTimeout bounds a commit, which goes on when the client
// is gone.
const commitWaits = 3

// record describes the object to the index.
func (p *put) record() control.Record {
	digest := p.sums.sha256.Sum(nil)
	r := control.Record{
		Version:            control.RecordVersion,
		Key:                p.req.Key,
		SizeBytes:          p.sums.sizeBytes,
		ETag:               hex.EncodeToString(digest),
		SHA256:             digest,
		CRC32C:             p.sums.crc32c,
		CRC64NVME:          p.sums.crc64nvme,
		ContentType:        p.req.Headers.ContentType,
		CacheControl:       p.req.Headers.CacheControl,
		ContentDisposition: p.req.Headers.ContentDisposition,
		ContentEncoding:    p.req.Headers.ContentEncoding,
		ContentLanguage:    p.req.Headers.ContentLanguage,
		Metadata:           p.req.Metadata,
		Inline:             p.inline,
		Segments:           p.segments,
	}
	rand.Read(r.VersionID[:]) // never fails
	return r
}

// commit makes the object visible.
func (p *put) commit(ctx context.Context) (*Info, error) {
	info, unknown, err := p.s.commitRecord(ctx, p.bucket, p.birth, p.record(), p.copies, &p.req.Conditions)
	if unknown && len(p.files) > 0 {
		p.s.leftBehind(p.files, err)
		p.files = nil
	}
	if err == nil && p.missing > 0 && p.s.o.Hooks.CopiesMissing != nil {
		p.s.o.Hooks.CopiesMissing(p.missing)
	}
	return info, err
}

// commitRecord proposes a record until there is a definite answer, under one
// request id, so that it is applied once. unknown says that it may have been
// applied, or may yet be: an index that has ended here says no more of it.
func (s *Service) commitRecord(ctx context.Context, bucket *control.Bucket, birth int64, r control.Record, copies int, c *Conditions) (info *Info, unknown bool, err error) {
	cmd := &control.Command{
		PutRecord: &control.PutRecord{
			BucketName: bucket.Name,
			BucketID:   bucket.ID,
			Record:     r,
			Birth:      birth,
			Copies:     uint8(copies),
		},
	}
	rand.Read(cmd.RequestID[:]) // never fails
	cmd.PutRecord.IfMatch, cmd.PutRecord.IfNoneMatch, cmd.PutRecord.IfUnmodifiedSince = c.forIndex()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitWaits*s.o.WaitTimeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	for {
		result, err := s.o.Index.Propose(ctx, cmd)
		switch {
		case err == nil:
			info := infoOf(bucket.Name, result.Record)
			info.Replaced = result.Replaced
			return info, false, nil
		case control.Refused(err), notApplied(err) && !unknown:
			return nil, false, err
		}
		unknown = true
		select {
		case <-s.o.IndexDone:
			return nil, true, &fault.Error{Kind: fault.Unavailable, Subject: "object " + bucket.Name + "/" + r.Key,
				Detail: "the index has failed on this node, and it is not known whether it was stored", Err: err}
		default:
		}
		if pause(ctx) != nil {
			return nil, true, unknownOutcome("object "+bucket.Name+"/"+r.Key, err)
		}
	}
}

// unknownOutcome is the error of a commit that nobody knows the outcome of. It
// doesn't look like a refusal, which the last try's error may be, nor like the
// caller's deadline: that of the attempts is this package's.
func unknownOutcome(subject string, err error) error {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Waiting, fault.Corrupted, fault.Internal:
	default:
		return &fault.Error{Kind: fault.Unavailable, Subject: subject, Detail: "the index doesn't say whether it was stored", Err: err}
	}
	return err
}

// notApplied says of the error of a command's only try that it was not applied:
// it never reached the index, or was turned away before it was. Of a later try's
// error that says nothing about those before it.
func notApplied(err error) bool {
	switch fault.KindOf(err) {
	case fault.InvalidArgument, fault.BucketNotFound, fault.AlreadyExists, fault.Conflict,
		fault.PreconditionFailed, fault.TooLarge, fault.QuotaExceeded, fault.PermissionDenied,
		fault.WrongMesh, fault.NotFound, fault.ObjectNotFound, fault.Unimplemented,
		fault.NoSpace, fault.Waiting, fault.Overloaded:
		return true
	}
	return grid.NotExecuted(err)
}
