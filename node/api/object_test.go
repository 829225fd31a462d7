package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// store is a served API with the bucket "photos".
type store struct {
	*served
	buckets pb.BucketServiceClient
	objects pb.ObjectServiceClient
}

func serveStore(t testing.TB) *store {
	t.Helper()
	return makeStore(t, serve(t, nil))
}

func makeStore(t testing.TB, s *served) *store {
	t.Helper()
	st := &store{s, pb.NewBucketServiceClient(s.conn), pb.NewObjectServiceClient(s.conn)}
	if _, err := st.buckets.CreateBucket(t.Context(), &pb.CreateBucketRequest{Bucket: "photos"}); err != nil {
		t.Fatal(err)
	}
	return st
}

func header(h *pb.PutObjectHeader) *pb.PutObjectRequest {
	return &pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: h}}
}

func chunk(b []byte) *pb.PutObjectRequest {
	return &pb.PutObjectRequest{Part: &pb.PutObjectRequest_Chunk{Chunk: b}}
}

func trailer(sums ...*pb.Checksum) *pb.PutObjectRequest {
	return &pb.PutObjectRequest{Part: &pb.PutObjectRequest_Trailer{Trailer: &pb.PutObjectTrailer{Checksums: sums}}}
}

// send sends messages as one upload. What the server says counts, not that it
// hangs up while more is being sent.
func (s *store) send(t testing.TB, messages ...*pb.PutObjectRequest) (*pb.Object, error) {
	t.Helper()
	stream, err := s.objects.PutObject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetObject(), err
}

// put stores data in chunks of various sizes.
func (s *store) put(t testing.TB, h *pb.PutObjectHeader, data []byte, sums ...*pb.Checksum) (*pb.Object, error) {
	t.Helper()
	messages := []*pb.PutObjectRequest{header(h)}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(1<<20))
		messages = append(messages, chunk(rest[:n]))
		rest = rest[n:]
	}
	return s.send(t, append(messages, trailer(sums...))...)
}

// get reads an object or a range of it.
func (s *store) get(t testing.TB, r *pb.GetObjectRequest) (*pb.GetObjectHeader, []byte, error) {
	t.Helper()
	stream, err := s.objects.GetObject(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var h *pb.GetObjectHeader
	var data []byte
	for {
		m, err := stream.Recv()
		switch {
		case err == io.EOF:
			return h, data, nil
		case err != nil:
			return h, data, err
		case (h == nil) != (m.GetHeader() != nil):
			return h, data, errors.New("the header is not the first message, or not the only one")
		case h == nil:
			h = m.GetHeader()
		default:
			data = append(data, m.GetChunk()...)
		}
	}
}

func (s *store) keys(t testing.TB) []string {
	t.Helper()
	resp, err := s.objects.ListObjects(t.Context(), &pb.ListObjectsRequest{Bucket: "photos"})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range resp.GetObjects() {
		keys = append(keys, o.GetKey())
	}
	return keys
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return b
}

func sha(b []byte) *pb.Checksum {
	sum := sha256.Sum256(b)
	return &pb.Checksum{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: sum[:]}
}

func TestPutAndGet(t *testing.T) {
	s := serveStore(t)
	for _, size := range []int{0, 1, 8 << 10, 8<<10 + 1, 64 << 10, 300 << 10, 5<<20 + 3} {
		data := pattern(size)
		key := fmt.Sprintf("size/%d", size)
		crc := &pb.Checksum{Algorithm: pb.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C,
			Value: binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))}
		h := &pb.PutObjectHeader{
			Bucket: "photos", Key: key, Size: proto.Int64(int64(size)),
			ContentType: "image/x", CacheControl: "max-age=1", ContentDisposition: "inline", ContentEncoding: "br", ContentLanguage: "de",
			Metadata: map[string]string{"camera": "old ä"},
		}
		stored, err := s.put(t, h, data, sha(data), crc)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		stat, err := s.objects.StatObject(t.Context(), &pb.StatObjectRequest{Bucket: "photos", Key: key})
		if err != nil || !proto.Equal(stat.GetObject(), stored) {
			t.Errorf("%d bytes: put gave %v, stat %v, %v", size, stored, stat, err)
		}
		got, body, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: key})
		if err != nil || !bytes.Equal(body, data) {
			t.Errorf("%d bytes: got %d, %v", size, len(body), err)
		}
		if !proto.Equal(got.GetObject(), stored) || got.GetOffset() != 0 || got.GetLength() != int64(size) {
			t.Errorf("%d bytes: header %v, put gave %v", size, got, stored)
		}
		if stored.GetContentType() != "image/x" || stored.GetCacheControl() != "max-age=1" || stored.GetContentDisposition() != "inline" ||
			stored.GetContentEncoding() != "br" || stored.GetContentLanguage() != "de" || stored.GetMetadata()["camera"] != "old ä" {
			t.Errorf("headers are not kept: %v", stored)
		}
		if len(stored.GetChecksums()) != 3 || !proto.Equal(stored.GetChecksums()[0], sha(data)) || !proto.Equal(stored.GetChecksums()[1], crc) {
			t.Errorf("%d bytes: checksums %v", size, stored.GetChecksums())
		}
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: key}, data); err != nil {
			t.Errorf("%d bytes, size not said: %v", size, err)
		}
	}
}

func TestConditions(t *testing.T) {
	s := serveStore(t)
	object, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, pattern(10))
	if err != nil {
		t.Fatal(err)
	}
	now := object.GetModifiedAt()
	before, after := timestamppb.New(now.AsTime().Add(-time.Hour)), timestamppb.New(now.AsTime().Add(time.Hour))
	const ok = fault.Kind(1 << 15)
	for _, c := range []struct {
		what        string
		c           *pb.Conditions
		read, write fault.Kind
	}{
		{"none", nil, ok, ok},
		{"match", &pb.Conditions{IfMatch: []string{object.GetEtag()}}, ok, ok},
		{"match any", &pb.Conditions{IfMatch: []string{"*"}}, ok, ok},
		{"match other", &pb.Conditions{IfMatch: []string{"other"}}, fault.PreconditionFailed, fault.PreconditionFailed},
		{"none match", &pb.Conditions{IfNoneMatch: []string{"x", object.GetEtag()}}, fault.NotModified, fault.PreconditionFailed},
		{"none match any", &pb.Conditions{IfNoneMatch: []string{"*"}}, fault.NotModified, fault.PreconditionFailed},
		{"none match other", &pb.Conditions{IfNoneMatch: []string{"other"}}, ok, ok},
		{"modified since", &pb.Conditions{IfModifiedSince: before}, ok, ok},
		{"not modified since", &pb.Conditions{IfModifiedSince: after}, fault.NotModified, ok},
		{"unmodified since", &pb.Conditions{IfUnmodifiedSince: after}, ok, ok},
		{"not unmodified since", &pb.Conditions{IfUnmodifiedSince: before}, fault.PreconditionFailed, fault.PreconditionFailed},
		{"no time", &pb.Conditions{IfModifiedSince: &timestamppb.Timestamp{Nanos: -1}}, fault.InvalidArgument, fault.InvalidArgument},
		{"quotes", &pb.Conditions{IfMatch: []string{`"x"`}}, fault.InvalidArgument, fault.InvalidArgument},
	} {
		check := func(call string, err error, want fault.Kind) {
			t.Helper()
			if want == ok {
				if err != nil {
					t.Errorf("%s: %s: %v", c.what, call, err)
				}
				return
			}
			checkStatus(t, c.what+": "+call, err, want, fault.From(errorOf(err)).Subject)
		}
		_, err := s.objects.StatObject(t.Context(), &pb.StatObjectRequest{Bucket: "photos", Key: "a", Conditions: c.c})
		check("stat", err, c.read)
		_, _, err = s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "a", Conditions: c.c})
		check("get", err, c.read)
		_, err = s.objects.CopyObject(t.Context(), &pb.CopyObjectRequest{Bucket: "photos", Key: "copy", SourceKey: "a", SourceConditions: c.c})
		if c.read == fault.NotModified {
			continue
		}
		check("copy", err, c.read)
		_, err = s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a", Conditions: c.c}, pattern(10))
		check("put", err, c.write)
		_, err = s.objects.DeleteObject(t.Context(), &pb.DeleteObjectRequest{Bucket: "photos", Key: "a", Conditions: c.c})
		check("delete", err, c.write)
		if _, err = s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, pattern(10)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopyAndDelete(t *testing.T) {
	s := serveStore(t)
	data := pattern(100_000)
	first, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a", ContentType: "image/x", Metadata: map[string]string{"m": "1"}}, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.buckets.CreateBucket(t.Context(), &pb.CreateBucketRequest{Bucket: "other"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*pb.CopyObjectRequest{
		{Bucket: "photos", Key: "b", SourceKey: "a"},
		{Bucket: "other", Key: "b", SourceBucket: "photos", SourceKey: "a"},
	} {
		resp, err := s.objects.CopyObject(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		o := resp.GetObject()
		if o.GetBucket() != r.GetBucket() || o.GetKey() != "b" || o.GetEtag() != first.GetEtag() || o.GetContentType() != "image/x" || o.GetMetadata()["m"] != "1" {
			t.Errorf("copy of %v is %v", first, o)
		}
		if _, body, err := s.get(t, &pb.GetObjectRequest{Bucket: r.GetBucket(), Key: "b"}); err != nil || !bytes.Equal(body, data) {
			t.Errorf("the copy has %d bytes, %v", len(body), err)
		}
	}
	_, err = s.objects.CopyObject(t.Context(), &pb.CopyObjectRequest{Bucket: "photos", Key: "b", SourceKey: "nothing"})
	checkStatus(t, "copy of nothing", err, fault.ObjectNotFound, fault.From(errorOf(err)).Subject)
	_, err = s.objects.CopyObject(t.Context(), &pb.CopyObjectRequest{Bucket: "photos", Key: "b", SourceKey: "/"})
	checkStatus(t, "copy of a bad name", err, fault.InvalidArgument, "source_key")

	_, err = s.buckets.DeleteBucket(t.Context(), &pb.DeleteBucketRequest{Bucket: "photos"})
	checkStatus(t, "a bucket that is not empty", err, fault.BucketNotEmpty, fault.From(errorOf(err)).Subject)

	many, err := s.objects.DeleteObjects(t.Context(), &pb.DeleteObjectsRequest{Bucket: "photos", Keys: []string{"a", "nothing", "b"}})
	if err != nil || !slices.Equal(many.GetDeleted(), []string{"a", "b"}) || !slices.Equal(many.GetNotFound(), []string{"nothing"}) {
		t.Errorf("delete of many: %v, %v", many, err)
	}
	for _, n := range []int{0, 1001} {
		_, err = s.objects.DeleteObjects(t.Context(), &pb.DeleteObjectsRequest{Bucket: "photos", Keys: make([]string, n)})
		checkStatus(t, fmt.Sprintf("delete of %d", n), err, fault.InvalidArgument, "keys")
	}
	_, err = s.objects.DeleteObject(t.Context(), &pb.DeleteObjectRequest{Bucket: "photos", Key: "a"})
	checkStatus(t, "delete of nothing", err, fault.ObjectNotFound, fault.From(errorOf(err)).Subject)
	if _, err = s.buckets.DeleteBucket(t.Context(), &pb.DeleteBucketRequest{Bucket: "photos"}); err != nil {
		t.Errorf("delete of an empty bucket: %v", err)
	}
}

func TestMove(t *testing.T) {
	s := serveStore(t)
	data := pattern(100_000)
	first, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a", ContentType: "image/x", Metadata: map[string]string{"m": "1"}}, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.buckets.CreateBucket(t.Context(), &pb.CreateBucketRequest{Bucket: "other"}); err != nil {
		t.Fatal(err)
	}
	from := &pb.Object{Bucket: "photos", Key: "a"}
	for _, r := range []*pb.MoveObjectRequest{
		{Bucket: "photos", Key: "b", SourceKey: "a", SourceConditions: &pb.Conditions{IfMatch: []string{first.GetEtag()}}},
		{Bucket: "other", Key: "b", SourceBucket: "photos", SourceKey: "b", Conditions: &pb.Conditions{IfNoneMatch: []string{"*"}}},
	} {
		resp, err := s.objects.MoveObject(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		o := resp.GetObject()
		if o.GetBucket() != r.GetBucket() || o.GetKey() != "b" || o.GetEtag() != first.GetEtag() || o.GetContentType() != "image/x" || o.GetMetadata()["m"] != "1" || o.GetSize() != int64(len(data)) {
			t.Errorf("move of %v is %v", first, o)
		}
		if _, body, err := s.get(t, &pb.GetObjectRequest{Bucket: r.GetBucket(), Key: "b"}); err != nil || !bytes.Equal(body, data) {
			t.Errorf("what was moved has %d bytes, %v", len(body), err)
		}
		_, err = s.objects.StatObject(t.Context(), &pb.StatObjectRequest{Bucket: from.GetBucket(), Key: from.GetKey()})
		checkStatus(t, "the source", err, fault.ObjectNotFound, fault.From(errorOf(err)).Subject)
		from = o
	}
	for what, c := range map[string]struct {
		r       *pb.MoveObjectRequest
		kind    fault.Kind
		subject string
	}{
		"of nothing":         {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceKey: "nothing"}, fault.ObjectNotFound, `object "other/nothing"`},
		"of a bad name":      {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceKey: "/"}, fault.InvalidArgument, "source_key"},
		"from a bad bucket":  {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceBucket: "X", SourceKey: "b"}, fault.InvalidArgument, "source_bucket"},
		"to a bad name":      {&pb.MoveObjectRequest{Bucket: "other", Key: "c/", SourceKey: "b"}, fault.InvalidArgument, "key"},
		"onto itself":        {&pb.MoveObjectRequest{Bucket: "other", Key: "b", SourceKey: "b"}, fault.InvalidArgument, `object "other/b"`},
		"of another version": {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceKey: "b", SourceConditions: &pb.Conditions{IfMatch: []string{"x"}}}, fault.PreconditionFailed, `object "other/b"`},
		"over nothing":       {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceKey: "b", Conditions: &pb.Conditions{IfMatch: []string{"*"}}}, fault.PreconditionFailed, `object "other/c"`},
		"with no time": {&pb.MoveObjectRequest{Bucket: "other", Key: "c", SourceKey: "b",
			SourceConditions: &pb.Conditions{IfUnmodifiedSince: &timestamppb.Timestamp{Nanos: -1}}}, fault.InvalidArgument, "source_conditions.if_unmodified_since"},
	} {
		_, err := s.objects.MoveObject(t.Context(), c.r)
		checkStatus(t, "move "+what, err, c.kind, c.subject)
	}
}

func TestListPages(t *testing.T) {
	s := serveStore(t)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("b-%d-x", i)
		want = append(want, name)
		if _, err := s.buckets.CreateBucket(t.Context(), &pb.CreateBucketRequest{Bucket: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: fmt.Sprintf("%d/a", i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, "photos")
	var got []string
	for token := ""; ; {
		page, err := s.buckets.ListBuckets(t.Context(), &pb.ListBucketsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.GetBuckets() {
			got = append(got, b.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("buckets %q, want %q", got, want)
	}

	got = nil
	for token := ""; ; {
		page, err := s.objects.ListObjects(t.Context(), &pb.ListObjectsRequest{Bucket: "photos", Delimiter: "/", PageSize: 2, StartAfter: "2/", PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.GetCommonPrefixes()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if want := []string{"2/", "3/", "4/", "5/", "6/"}; !slices.Equal(got, want) {
		t.Errorf("prefixes %q, want %q", got, want)
	}

	for _, token := range []string{"x", "Li4", "!!!!", "AAAA", " "} {
		_, err := s.buckets.ListBuckets(t.Context(), &pb.ListBucketsRequest{PageToken: token})
		checkStatus(t, "bucket token "+token, err, fault.InvalidArgument, "page_token")
		_, err = s.objects.ListObjects(t.Context(), &pb.ListObjectsRequest{Bucket: "photos", PageToken: token})
		checkStatus(t, "object token "+token, err, fault.InvalidArgument, "page_token")
	}
	for _, n := range []int32{-1, 1001, math.MaxInt32, math.MinInt32} {
		_, err := s.buckets.ListBuckets(t.Context(), &pb.ListBucketsRequest{PageSize: n})
		checkStatus(t, "buckets", err, fault.InvalidArgument, "page_size")
		_, err = s.objects.ListObjects(t.Context(), &pb.ListObjectsRequest{Bucket: "photos", PageSize: n})
		checkStatus(t, "objects", err, fault.InvalidArgument, "page_size")
	}
}

// TestStoreAsJSON goes through a bucket's life over HTTP.
func TestStoreAsJSON(t *testing.T) {
	s := serveStore(t)
	data := []byte("hello")
	o, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a/b", ContentType: "text/x"}, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // "" is not looked at
	}{
		{"POST", "/v1/buckets", `{"bucket":"photos"}`, 409, ""},
		{"POST", "/v1/buckets", `{"bucket":"empty"}`, 200, ""},
		{"GET", "/v1/buckets/empty/objects", ``, 200, `{"objects":[],"commonPrefixes":[],"nextPageToken":""}`},
		{"DELETE", "/v1/buckets/photos", ``, 409, ""},
		{"DELETE", "/v1/buckets/empty", ``, 200, `{}`},
		{"GET", "/v1/buckets/empty", ``, 404, ""},
		{"GET", "/v1/buckets/photos/objects?delimiter=/", ``, 200, `{"objects":[],"commonPrefixes":["a/"],"nextPageToken":""}`},
		{"GET", "/v1/buckets/photos/object?key=a/b&conditions.ifNoneMatch=" + o.GetEtag(), ``, 304, ""},
		{"GET", "/v1/buckets/photos/object?key=a/b&conditions.ifMatch=x&conditions.ifMatch=y", ``, 412, ""},
		{"GET", "/v1/buckets/photos/object?key=a/b&conditions.ifMatch=x&conditions.ifMatch=" + o.GetEtag(), ``, 200, ""},
		{"GET", "/v1/buckets/photos/object?key=a/c", ``, 404, ""},
		{"POST", "/v1/buckets/photos/objects:copy", `{"key":"c","sourceKey":"a/b"}`, 200, ""},
		{"POST", "/v1/buckets/photos/objects:copy", `{"key":"c","source_key":"a/b","bucket":"other"}`, 200, ""},
		{"POST", "/v1/buckets/photos/objects:delete", `{"keys":["c","d"]}`, 200, `{"deleted":["c"],"notFound":["d"]}`},
		{"DELETE", "/v1/buckets/photos/object?key=a/b&conditions.ifMatch=x", ``, 412, ""},
		{"DELETE", "/v1/buckets/photos/object?key=a/b", ``, 200, `{}`},
		{"DELETE", "/v1/buckets/photos/object?key=a/b", ``, 404, ""},
	} {
		resp, body := s.call(t, c.method, c.path, c.body)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s %s: %s %s", c.method, c.path, c.body, resp.Status, body)
			continue
		}
		if c.want != "" {
			checkJSON(t, body, c.want)
		}
		if c.status == http.StatusNotModified && body != "" {
			t.Errorf("304 with %q", body)
		}
	}
}
