package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// bucketService implements pb.BucketServiceServer.
type bucketService struct {
	pb.UnimplementedBucketServiceServer
	objects *object.Service
	storage Storage
}

func (s *bucketService) CreateBucket(ctx context.Context, r *pb.CreateBucketRequest) (*pb.CreateBucketResponse, error) {
	b, err := s.objects.CreateBucket(ctx, r.GetBucket())
	if err != nil {
		return nil, err
	}
	return &pb.CreateBucketResponse{Bucket: protoBucket(b)}, nil
}

func (s *bucketService) GetBucket(ctx context.Context, r *pb.GetBucketRequest) (*pb.GetBucketResponse, error) {
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return nil, err
	}
	b, err := s.objects.GetBucket(ctx, r.GetBucket(), maxAge)
	if err != nil {
		return nil, err
	}
	return &pb.GetBucketResponse{Bucket: protoBucket(b)}, nil
}

func (s *bucketService) ListBuckets(ctx context.Context, r *pb.ListBucketsRequest) (*pb.ListBucketsResponse, error) {
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return nil, err
	}
	if names, all := visibleBuckets(caller(ctx)); !all {
		return s.listAmong(ctx, names, r, maxAge)
	}
	buckets, next, err := s.objects.ListBuckets(ctx, r.GetPageToken(), int(r.GetPageSize()), maxAge)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListBucketsResponse{Buckets: make([]*pb.Bucket, len(buckets)), NextPageToken: next}
	for i := range buckets {
		resp.Buckets[i] = protoBucket(&buckets[i])
	}
	return resp, nil
}

// listAmong lists those of the named buckets that there are: all that the caller
// may see. The others are not looked at, so that neither a page nor its token
// can tell of them.
func (s *bucketService) listAmong(ctx context.Context, names []string, r *pb.ListBucketsRequest, maxAge time.Duration) (*pb.ListBucketsResponse, error) {
	limit, after, err := pageOf(r, bucketsListing)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListBucketsResponse{}
	for _, name := range names {
		if name <= after {
			continue
		}
		b, err := s.objects.GetBucket(ctx, name, maxAge)
		switch {
		case fault.KindOf(err) == fault.BucketNotFound:
			continue
		case err != nil:
			return nil, err
		case len(resp.Buckets) == limit:
			resp.NextPageToken = tokenOf(resp.Buckets[limit-1].GetName(), bucketsListing)
			return resp, nil
		}
		resp.Buckets = append(resp.Buckets, protoBucket(b))
	}
	return resp, nil
}

func (s *bucketService) DeleteBucket(ctx context.Context, r *pb.DeleteBucketRequest) (*pb.DeleteBucketResponse, error) {
	if err := s.objects.DeleteBucket(ctx, r.GetBucket()); err != nil {
		return nil, err
	}
	return &pb.DeleteBucketResponse{}, nil
}

func protoBucket(b *object.Bucket) *pb.Bucket {
	return &pb.Bucket{Name: b.Name, CreatedAt: timestamppb.New(b.CreatedAt)}
}

func (s *bucketService) GetBucketUsage(ctx context.Context, r *pb.GetBucketUsageRequest) (*pb.GetBucketUsageResponse, error) {
	// Whether there is such a bucket, and a name that may be one, is asked first.
	if _, err := s.objects.GetBucket(ctx, r.GetBucket(), 0); err != nil {
		return nil, err
	}
	u, err := s.storage.BucketUsage(ctx, r.GetBucket())
	if err != nil {
		return nil, err
	}
	return &pb.GetBucketUsageResponse{Usage: protoUsage(u)}, nil
}

func (s *bucketService) SetBucketQuota(ctx context.Context, r *pb.SetBucketQuotaRequest) (*pb.SetBucketQuotaResponse, error) {
	for _, limit := range []struct {
		field string
		value int64
	}{{"max_objects", r.GetMaxObjects()}, {"max_bytes", r.GetMaxBytes()}} {
		if limit.value < 0 {
			return nil, fault.New(fault.InvalidArgument, limit.field, "%d is negative; 0 is no limit", limit.value)
		}
	}
	b, err := s.objects.GetBucket(ctx, r.GetBucket(), 0)
	if err != nil {
		return nil, err
	}
	if err := s.storage.SetQuota(ctx, b.Name, r.GetMaxObjects(), r.GetMaxBytes()); err != nil {
		return nil, err
	}
	u, err := s.storage.BucketUsage(ctx, b.Name)
	if err != nil {
		return nil, err
	}
	return &pb.SetBucketQuotaResponse{Usage: protoUsage(u)}, nil
}

func protoUsage(u *BucketUsage) *pb.BucketUsage {
	return &pb.BucketUsage{Bucket: u.Bucket, Objects: u.Objects, Bytes: u.Bytes, MaxObjects: u.MaxObjects, MaxBytes: u.MaxBytes}
}
