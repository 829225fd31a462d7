package api

import (
	"context"
	"encoding/base64"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
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
	b, err := s.objects.GetBucket(ctx, r.GetBucket())
	if err != nil {
		return nil, err
	}
	return &pb.GetBucketResponse{Bucket: protoBucket(b)}, nil
}

func (s *bucketService) ListBuckets(ctx context.Context, r *pb.ListBucketsRequest) (*pb.ListBucketsResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseBucketToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	buckets, next, err := s.objects.ListBuckets(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListBucketsResponse{Buckets: make([]*pb.Bucket, len(buckets)), NextPageToken: bucketToken(next)}
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

// pageSize checks a page_size: 1 to object.ListMax, 0 is that.
func pageSize(n int32) (int, error) {
	if n < 0 || n > object.ListMax {
		return 0, fault.New(fault.InvalidArgument, "page_size", "is %d; 1 to %d are allowed, and 0 for %d", n, object.ListMax, object.ListMax)
	}
	return int(n), nil
}

// bucketToken makes a page token: a position that authorises nothing, in a form
// that nobody is tempted to write by hand.
func bucketToken(next string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(next))
}

func parseBucketToken(token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	name, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || object.ValidateBucket(string(name)) != nil {
		return "", fault.New(fault.InvalidArgument, "page_token", "is not from a page of this list")
	}
	return string(name), nil
}
