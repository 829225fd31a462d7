package object

import (
	"context"
	"crypto/rand"

	"github.com/gridloom/gridloom/node/control"
)

// Move takes an object to another key, within or across buckets, with its
// headers and metadata, in one step: at every moment it is at one of the two
// places, and of many that move one object exactly one does. Its bytes stay
// where they are, whatever their size. An object at the target is replaced.
// Both conditions are a write's.
//
// Errors: InvalidArgument, also where both places are the same; BucketNotFound
// and ObjectNotFound of the source; PreconditionFailed of either place; NoSpace
// of the index.
func (s *Service) Move(ctx context.Context, req MoveRequest) (*Info, error) {
	for _, err := range []error{
		ValidateBucket(req.SrcBucket), ValidateKey(req.SrcKey), ValidateBucket(req.Bucket), ValidateKey(req.Key),
		req.SrcConditions.validate(), req.Conditions.validate(),
	} {
		if err != nil {
			return nil, err
		}
	}
	cmd := &control.MoveRecord{
		From: placeOf(req.SrcBucket, req.SrcKey, &req.SrcConditions),
		To:   placeOf(req.Bucket, req.Key, &req.Conditions),
	}
	rand.Read(cmd.VersionID[:]) // never fails
	result, err := s.propose(ctx, &control.Command{MoveRecord: cmd})
	if err != nil {
		return nil, err
	}
	info := infoOf(req.Bucket, result.Record)
	info.Replaced = result.Replaced
	return info, nil
}

// placeOf is one end of a move for the index.
func placeOf(bucket, key string, c *Conditions) control.Place {
	p := control.Place{Bucket: bucket, Key: key}
	p.IfMatch, p.IfNoneMatch, p.IfUnmodifiedSince = c.forIndex()
	return p
}
