package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
)

// objectService implements pb.ObjectServiceServer; PutObject is in put.go,
// GetObject in get.go.
type objectService struct {
	pb.UnimplementedObjectServiceServer
	objects *object.Service
	uploads *limit.Uploads
	chunks  *chunkPool // of what is downloaded
}

func (s *objectService) StatObject(ctx context.Context, r *pb.StatObjectRequest) (*pb.StatObjectResponse, error) {
	conditions, err := conditionsOf("conditions", r.GetConditions())
	if err != nil {
		return nil, err
	}
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return nil, err
	}
	info, err := s.objects.Stat(ctx, r.GetBucket(), r.GetKey(), conditions, maxAge)
	if err != nil {
		return nil, err
	}
	return &pb.StatObjectResponse{Object: protoObject(info)}, nil
}

func (s *objectService) ListObjects(ctx context.Context, r *pb.ListObjectsRequest) (*pb.ListObjectsResponse, error) {
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return nil, err
	}
	page, err := s.objects.List(ctx, object.ListRequest{
		Bucket: r.GetBucket(), Prefix: r.GetPrefix(), Delimiter: r.GetDelimiter(),
		StartAfter: r.GetStartAfter(), Token: r.GetPageToken(), Limit: int(r.GetPageSize()), MaxAge: maxAge,
	})
	if err != nil {
		return nil, err
	}
	return &pb.ListObjectsResponse{Objects: protoObjects(page.Objects), CommonPrefixes: page.CommonPrefixes, NextPageToken: page.NextToken}, nil
}

// StreamObjects reads a page when the one before it is sent: it has no more than
// one, however long the list is and however slow its reader.
func (s *objectService) StreamObjects(r *pb.StreamObjectsRequest, stream grpc.ServerStreamingServer[pb.StreamObjectsResponse]) error {
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return err
	}
	left := r.GetLimit() // 0: there is no limit
	if left < 0 {
		return fault.New(fault.InvalidArgument, "limit", "is %d; 0 is all", left)
	}
	req := object.ListRequest{
		Bucket: r.GetBucket(), Prefix: r.GetPrefix(), Delimiter: r.GetDelimiter(),
		StartAfter: r.GetStartAfter(), Token: r.GetPageToken(), MaxAge: maxAge,
	}
	for {
		req.Limit = int(min(left, object.ListMax))
		page, err := s.objects.List(stream.Context(), req)
		if err != nil {
			return err
		}
		last := page.NextToken == ""
		if left > 0 {
			left -= int64(len(page.Objects) + len(page.CommonPrefixes))
			last = last || left <= 0
		}
		resp := &pb.StreamObjectsResponse{Objects: protoObjects(page.Objects), CommonPrefixes: page.CommonPrefixes}
		if last {
			resp.NextPageToken = page.NextToken
		}
		if err := stream.Send(resp); err != nil || last {
			return err
		}
		req.Token = page.NextToken
	}
}

func protoObjects(infos []object.Info) []*pb.Object {
	objects := make([]*pb.Object, len(infos))
	for i := range infos {
		objects[i] = protoObject(&infos[i])
	}
	return objects
}

func (s *objectService) DeleteObject(ctx context.Context, r *pb.DeleteObjectRequest) (*pb.DeleteObjectResponse, error) {
	conditions, err := conditionsOf("conditions", r.GetConditions())
	if err != nil {
		return nil, err
	}
	if err := s.objects.Delete(ctx, r.GetBucket(), r.GetKey(), conditions); err != nil {
		return nil, err
	}
	return &pb.DeleteObjectResponse{}, nil
}

func (s *objectService) DeleteObjects(ctx context.Context, r *pb.DeleteObjectsRequest) (*pb.DeleteObjectsResponse, error) {
	deleted, missing, err := s.objects.DeleteMany(ctx, r.GetBucket(), r.GetKeys())
	if err != nil {
		return nil, err
	}
	return &pb.DeleteObjectsResponse{Deleted: deleted, NotFound: missing}, nil
}

func (s *objectService) CopyObject(ctx context.Context, r *pb.CopyObjectRequest) (*pb.CopyObjectResponse, error) {
	req, err := copyRequestOf(r)
	if err != nil {
		return nil, err
	}
	info, err := s.objects.Copy(ctx, req)
	if err != nil {
		return nil, err
	}
	return &pb.CopyObjectResponse{Object: protoObject(info)}, nil
}

func (s *objectService) MoveObject(ctx context.Context, r *pb.MoveObjectRequest) (*pb.MoveObjectResponse, error) {
	req, err := copyRequestOf(r)
	if err != nil {
		return nil, err
	}
	info, err := s.objects.Move(ctx, object.MoveRequest(req))
	if err != nil {
		return nil, err
	}
	return &pb.MoveObjectResponse{Object: protoObject(info)}, nil
}

// sourced is what the requests for a copy and a move have.
type sourced interface {
	GetBucket() string
	GetKey() string
	GetSourceBucket() string
	GetSourceKey() string
	GetConditions() *pb.Conditions
	GetSourceConditions() *pb.Conditions
}

func copyRequestOf(r sourced) (req object.CopyRequest, err error) {
	if r.GetSourceBucket() != "" {
		if err := object.ValidateBucket(r.GetSourceBucket()); err != nil {
			return req, about("source_bucket", err)
		}
	}
	if err := object.ValidateKey(r.GetSourceKey()); err != nil {
		return req, about("source_key", err)
	}
	req = object.CopyRequest{SrcBucket: sourceBucket(r), SrcKey: r.GetSourceKey(), Bucket: r.GetBucket(), Key: r.GetKey()}
	if req.Conditions, err = conditionsOf("conditions", r.GetConditions()); err != nil {
		return req, err
	}
	req.SrcConditions, err = conditionsOf("source_conditions", r.GetSourceConditions())
	return req, err
}

// sourceBucket is the bucket that an object comes from.
func sourceBucket(r sourced) string {
	if r.GetSourceBucket() == "" {
		return r.GetBucket()
	}
	return r.GetSourceBucket()
}

// about gives an error the subject that the caller knows.
func about(field string, err error) error {
	fe := *fault.From(err)
	fe.Subject = field
	return &fe
}

// conditionsOf reads conditions; field names them in errors.
func conditionsOf(field string, c *pb.Conditions) (object.Conditions, error) {
	out := object.Conditions{IfMatch: c.GetIfMatch(), IfNoneMatch: c.GetIfNoneMatch()}
	if t := c.GetIfModifiedSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return out, fault.New(fault.InvalidArgument, field+".if_modified_since", "is no time: %v", err)
		}
		out.IfModifiedSince = t.AsTime()
	}
	if t := c.GetIfUnmodifiedSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return out, fault.New(fault.InvalidArgument, field+".if_unmodified_since", "is no time: %v", err)
		}
		out.IfUnmodifiedSince = t.AsTime()
	}
	return out, nil
}

func protoObject(info *object.Info) *pb.Object {
	o := &pb.Object{
		Bucket:             info.Bucket,
		Key:                info.Key,
		Size:               info.SizeBytes,
		Etag:               info.ETag,
		ModifiedAt:         timestamppb.New(info.ModifiedAt),
		ContentType:        info.Headers.ContentType,
		CacheControl:       info.Headers.CacheControl,
		ContentDisposition: info.Headers.ContentDisposition,
		ContentEncoding:    info.Headers.ContentEncoding,
		ContentLanguage:    info.Headers.ContentLanguage,
		Metadata:           info.Metadata,
	}
	if len(info.SHA256) > 0 {
		o.Checksums = append(o.Checksums, &pb.Checksum{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: info.SHA256})
	}
	o.Checksums = append(o.Checksums,
		&pb.Checksum{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C, Value: binary.BigEndian.AppendUint32(nil, info.CRC32C)},
		&pb.Checksum{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME, Value: binary.BigEndian.AppendUint64(nil, info.CRC64NVME)})
	return o
}

// algorithmOf is the algorithm that a message names; 0 for one that is not known
// here.
func algorithmOf(a pb.ChecksumAlgorithm) object.Algorithm {
	switch a {
	case pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256:
		return object.SHA256
	case pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C:
		return object.CRC32C
	case pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME:
		return object.CRC64NVME
	case pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_MD5:
		return object.MD5
	case pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA512:
		return object.SHA512
	}
	return 0
}

// announcedOf are the algorithms to sum up by: those of checksums that come with
// the content, or behind it.
func announcedOf(h *pb.PutObjectHeader) ([]object.Algorithm, error) {
	var out []object.Algorithm
	for _, s := range h.GetChecksums() {
		out = append(out, algorithmOf(s.GetAlgorithm())) // checksumsOf refuses what isn't known
	}
	for i, a := range h.GetTrailerChecksums() {
		known := algorithmOf(a)
		if known == 0 {
			return nil, fault.New(fault.InvalidArgument, fmt.Sprintf("trailer_checksums[%d]", i), "algorithm %d is not known here", a)
		}
		out = append(out, known)
	}
	return out, nil
}

// announcedSums are the checksums that have come, if all are there that were
// announced: who announces one wants it verified.
func announcedSums(came []*pb.Checksum, announced []object.Algorithm) ([]object.Checksum, error) {
	sums, err := checksumsOf(came)
	if err != nil {
		return nil, err
	}
	for _, a := range announced {
		if !slices.ContainsFunc(sums, func(s object.Checksum) bool { return s.Algorithm == a }) {
			return nil, fault.New(fault.IncompleteBody, "checksums", "%s was announced, and did not come", a)
		}
	}
	return sums, nil
}

// checksumsOf reads what a client says that its bytes sum up to.
func checksumsOf(sums []*pb.Checksum) ([]object.Checksum, error) {
	out := make([]object.Checksum, 0, len(sums))
	for _, s := range sums {
		algorithm := algorithmOf(s.GetAlgorithm())
		if algorithm == 0 {
			return nil, fault.New(fault.InvalidArgument, "checksums", "algorithm %d is not known here", s.GetAlgorithm())
		}
		if n := len(s.GetValue()); n != algorithm.Size() {
			return nil, fault.New(fault.InvalidArgument, "checksums", "%s has %d bytes and not %d", s.GetAlgorithm(), n, algorithm.Size())
		}
		out = append(out, object.Checksum{Algorithm: algorithm, Value: s.GetValue()})
	}
	return out, nil
}
