package object

import (
	"context"
	"strconv"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// Delete removes an object. Errors: InvalidArgument, BucketNotFound,
// ObjectNotFound, PreconditionFailed.
func (s *Service) Delete(ctx context.Context, bucket, key string, c Conditions) error {
	if err := ValidateBucket(bucket); err != nil {
		return err
	}
	if err := ValidateKey(key); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	cmd := &control.DeleteRecords{Bucket: bucket, Keys: []string{key}}
	if c.onWrite() {
		// What the index can't compare is evaluated here, and what was found
		// pinned by its entity tag.
		info, err := s.Stat(ctx, bucket, key, Conditions{}, 0)
		if err != nil {
			return err
		}
		if err := c.checkWrite(info); err != nil {
			return err
		}
		cmd.IfMatch = []string{info.ETag}
	}
	result, err := s.propose(ctx, &control.Command{DeleteRecords: cmd})
	if err != nil {
		return err
	}
	if len(result.Deleted) == 0 {
		return objectNotFound(bucket, key)
	}
	return nil
}

// DeleteMany removes up to ListMax objects in one step: all that are there, or
// none. Both results are in the order of keys; a key given twice counts once.
// Errors: InvalidArgument, about "keys[3]" for instance; BucketNotFound.
func (s *Service) DeleteMany(ctx context.Context, bucket string, keys []string) (deleted, missing []string, err error) {
	if err := ValidateBucket(bucket); err != nil {
		return nil, nil, err
	}
	if len(keys) == 0 || len(keys) > ListMax {
		return nil, nil, fault.New(fault.InvalidArgument, "keys", "are %d; 1 to %d are allowed", len(keys), ListMax)
	}
	seen := make(map[string]bool, len(keys))
	unique := make([]string, 0, len(keys))
	for i, key := range keys {
		if err := validateKey("keys["+strconv.Itoa(i)+"]", key); err != nil {
			return nil, nil, err
		}
		if !seen[key] {
			seen[key] = true
			unique = append(unique, key)
		}
	}
	result, err := s.propose(ctx, &control.Command{DeleteRecords: &control.DeleteRecords{Bucket: bucket, Keys: unique}})
	if err != nil {
		return nil, nil, err
	}
	return result.Deleted, result.Missing, nil
}
