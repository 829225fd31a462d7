package object

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

func bucketOf(b *control.Bucket) *Bucket {
	return &Bucket{Name: b.Name, CreatedAt: time.Unix(0, b.LogTime).UTC()}
}

// propose commits a command under a request id of its own.
func (s *Service) propose(ctx context.Context, cmd *control.Command) (*control.Result, error) {
	rand.Read(cmd.RequestID[:]) // never fails
	return s.o.Index.Propose(ctx, cmd)
}

// CreateBucket makes a bucket. Errors: InvalidArgument, AlreadyExists.
func (s *Service) CreateBucket(ctx context.Context, name string) (*Bucket, error) {
	if err := ValidateBucket(name); err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, &control.Command{CreateBucket: &control.CreateBucket{Name: name}})
	if err != nil {
		return nil, err
	}
	return bucketOf(result.Bucket), nil
}

// GetBucket describes a bucket, as it was at most maxAge ago; see Stat. Errors:
// InvalidArgument, BucketNotFound.
func (s *Service) GetBucket(ctx context.Context, name string, maxAge time.Duration) (*Bucket, error) {
	if err := ValidateBucket(name); err != nil {
		return nil, err
	}
	if err := validateMaxAge(maxAge); err != nil {
		return nil, err
	}
	a, err := s.o.Index.Read(ctx, &control.Query{MaxAge: maxAge, Bucket: &control.BucketQuery{Name: name}})
	if err != nil {
		return nil, err
	}
	return bucketOf(a.Bucket), nil
}

// DeleteBucket removes an empty bucket. Errors: InvalidArgument,
// BucketNotFound, BucketNotEmpty.
func (s *Service) DeleteBucket(ctx context.Context, name string) error {
	if err := ValidateBucket(name); err != nil {
		return err
	}
	_, err := s.propose(ctx, &control.Command{DeleteBucket: &control.DeleteBucket{Name: name}})
	return err
}

// ListBuckets returns one page of the buckets in byte order. after is the next
// of the page before, "" for the first; limit is 1 to ListMax, 0 is ListMax;
// the page may be maxAge old, see Stat. next is "" on the last page. Errors:
// InvalidArgument about "page_token", "page_size" or "max_age".
func (s *Service) ListBuckets(ctx context.Context, after string, limit int, maxAge time.Duration) (buckets []Bucket, next string, err error) {
	if limit, err = pageSize(limit); err != nil {
		return nil, "", err
	}
	if err := validateMaxAge(maxAge); err != nil {
		return nil, "", err
	}
	position := ""
	if after != "" {
		if position, err = parseToken(after, "buckets"); err != nil {
			return nil, "", err
		}
	}
	a, err := s.o.Index.Read(ctx, &control.Query{MaxAge: maxAge, Buckets: &control.BucketsQuery{After: position, Limit: limit}})
	if err != nil {
		return nil, "", err
	}
	for i := range a.Buckets {
		buckets = append(buckets, *bucketOf(&a.Buckets[i]))
	}
	if a.More {
		next = makeToken(a.Next, "buckets")
	}
	return buckets, next, nil
}

// objectNotFound says of an object that it isn't there, in the words that the
// index has for a read of it.
func objectNotFound(bucket, key string) error {
	return fault.New(fault.ObjectNotFound, fmt.Sprintf("object %q", bucket+"/"+key), "doesn't exist")
}
