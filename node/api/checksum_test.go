package api

import (
	"crypto/md5"
	"crypto/sha512"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/minio/crc64nvme"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// TestPutChecksums: each algorithm, with the content and behind it. What doesn't
// fit, and what was not announced and so not computed, stores nothing.
func TestPutChecksums(t *testing.T) {
	s := serveStore(t)
	for _, size := range []int{0, 10, 300_000} {
		data := pattern(size)
		weak, long := md5.Sum(data), sha512.Sum512(data)
		for _, good := range []*pb.Checksum{
			sha(data),
			{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C, Value: binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))},
			{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME, Value: binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum(data))},
			{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_MD5, Value: weak[:]},
			{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA512, Value: long[:]},
		} {
			what := good.GetAlgorithm().String()
			bad := proto.CloneOf(good)
			bad.Value[len(bad.Value)-1] ^= 1
			short := proto.CloneOf(good)
			short.Value = short.Value[1:]
			chunks := func() *pb.PutObjectHeader { return &pb.PutObjectHeader{Bucket: "photos", Key: "a"} }
			announced := func() *pb.PutObjectHeader {
				h := chunks()
				h.TrailerChecksums = []pb.ChecksumAlgorithm{good.GetAlgorithm()}
				return h
			}
			whole := func(sum *pb.Checksum) error {
				h := chunks()
				h.Content, h.Checksums = data, []*pb.Checksum{sum}
				_, err := s.send(t, header(h))
				return err
			}
			_, err := s.put(t, announced(), data, bad)
			checkStatus(t, what+" behind chunks", err, fault.ChecksumMismatch, "checksum")
			_, err = s.put(t, announced(), data, short)
			checkStatus(t, what+" behind chunks, short", err, fault.InvalidArgument, "checksums")
			_, err = s.put(t, announced(), data)
			checkStatus(t, what+" announced, and not there", err, fault.IncompleteBody, "checksums")
			_, err = s.put(t, announced(), data, &pb.Checksum{Algorithm: good.GetAlgorithm()})
			checkStatus(t, what+" announced, and empty", err, fault.InvalidArgument, "checksums")
			checkStatus(t, what+" with the content", whole(bad), fault.ChecksumMismatch, "checksum")
			optional := good.GetAlgorithm() >= pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_MD5
			if optional {
				_, err = s.put(t, chunks(), data, good)
				checkStatus(t, what+", not announced", err, fault.InvalidArgument, "checksum")
			}
			if keys := s.keys(t); len(keys) != 0 {
				t.Fatalf("%s: left behind: %q", what, keys)
			}
			if err := whole(good); err != nil {
				t.Errorf("%s with the content: %v", what, err)
			}
			stored, err := s.put(t, announced(), data, good)
			if err != nil || len(stored.GetChecksums()) != 3 {
				t.Errorf("%s behind chunks: %v, %v", what, stored.GetChecksums(), err)
			}
			if !optional {
				if _, err = s.put(t, chunks(), data, good); err != nil {
					t.Errorf("%s, not announced: %v", what, err)
				}
			}
			if _, err := s.objects.DeleteObject(t.Context(), &pb.DeleteObjectRequest{Bucket: "photos", Key: "a"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := &pb.PutObjectHeader{Bucket: "photos", Key: "a", TrailerChecksums: []pb.ChecksumAlgorithm{1, 99}}
	_, err := s.put(t, h, nil)
	checkStatus(t, "an algorithm that isn't known", err, fault.InvalidArgument, "trailer_checksums[1]")
}
