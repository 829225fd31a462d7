package object

import (
	"context"
	"errors"
	"io"

	"github.com/gridloom/gridloom/dataio"
)

var errTODO = errors.New("object: being built")

// ValidateBucket checks a bucket's name: [a-z0-9][a-z0-9-]{1,61}[a-z0-9].
func ValidateBucket(name string) error { return errTODO }

// ValidateKey checks a key.
func ValidateKey(key string) error { return errTODO }

// CreateBucket makes a bucket.
func (s *Service) CreateBucket(ctx context.Context, name string) (*Bucket, error) {
	return nil, errTODO
}

// GetBucket describes a bucket.
func (s *Service) GetBucket(ctx context.Context, name string) (*Bucket, error) { return nil, errTODO }

// DeleteBucket removes an empty bucket.
func (s *Service) DeleteBucket(ctx context.Context, name string) error { return errTODO }

// ListBuckets returns one page of the buckets in byte order. after is the next
// of the page before, "" for the first; limit is 1 to ListMax, 0 is ListMax.
// next is "" on the last page.
func (s *Service) ListBuckets(ctx context.Context, after string, limit int) (buckets []Bucket, next string, err error) {
	return nil, "", errTODO
}

// Put stores an object.
func (s *Service) Put(ctx context.Context, req PutRequest, body io.Reader, trailer func() ([]Checksum, error)) (*Info, error) {
	return nil, errTODO
}

// Stat describes an object.
func (s *Service) Stat(ctx context.Context, bucket, key string, c Conditions) (*Info, error) {
	return nil, errTODO
}

// Open opens an object for reading.
func (s *Service) Open(ctx context.Context, bucket, key string, c Conditions) (*Reader, error) {
	return nil, errTODO
}

// Reader reads one version of an object. Send may be called several times,
// one after the other, for several ranges.
type Reader struct{ Info *Info }

// Send writes the n bytes at off to w.
func (r *Reader) Send(ctx context.Context, w io.Writer, off, n int64, win dataio.Windows) (int64, error) {
	return 0, errTODO
}

// Close releases the reader. It may be called again.
func (r *Reader) Close() error { return nil }

// List returns one page of a bucket.
func (s *Service) List(ctx context.Context, req ListRequest) (*Page, error) { return nil, errTODO }

// Delete removes an object; to remove what isn't there is fault.ObjectNotFound.
func (s *Service) Delete(ctx context.Context, bucket, key string, c Conditions) error {
	return errTODO
}

// DeleteMany removes up to ListMax objects in one step.
func (s *Service) DeleteMany(ctx context.Context, bucket string, keys []string) (deleted, missing []string, err error) {
	return nil, nil, errTODO
}

// Copy makes a new object from another.
func (s *Service) Copy(ctx context.Context, req CopyRequest) (*Info, error) { return nil, errTODO }
