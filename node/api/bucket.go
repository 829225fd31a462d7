package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/object"
)

// bucketService implements pb.BucketServiceServer.
type bucketService struct {
	pb.UnimplementedBucketServiceServer
	objects *object.Service
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

func (s *bucketService) DeleteBucket(ctx context.Context, r *pb.DeleteBucketRequest) (*pb.DeleteBucketResponse, error) {
	if err := s.objects.DeleteBucket(ctx, r.GetBucket()); err != nil {
		return nil, err
	}
	return &pb.DeleteBucketResponse{}, nil
}

func protoBucket(b *object.Bucket) *pb.Bucket {
	return &pb.Bucket{Name: b.Name, CreatedAt: timestamppb.New(b.CreatedAt)}
}
