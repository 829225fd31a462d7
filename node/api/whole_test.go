package api

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// whole is an upload in one message.
func whole(key string, data []byte, sums ...*pb.Checksum) *pb.PutObjectRequest {
	return header(&pb.PutObjectHeader{Bucket: "photos", Key: key, Content: data, Checksums: sums})
}

// TestPutWhole: an object that its header holds is the one that a stream would
// have made, however small or large.
func TestPutWhole(t *testing.T) {
	s := serveStore(t)
	for _, size := range []int{0, 1, 4096, 64 << 10, 300_000, maxMessageBytes - 100} {
		data := pattern(size)
		h := &pb.PutObjectHeader{
			Bucket: "photos", Key: "a", ContentType: "image/x", Metadata: map[string]string{"m": "1"},
			Content: data, Checksums: []*pb.Checksum{sha(data)},
		}
		o, err := s.send(t, header(h))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		h.Content, h.Checksums = nil, nil
		streamed, err := s.put(t, h, data, sha(data))
		if err != nil {
			t.Fatal(err)
		}
		o.ModifiedAt, streamed.ModifiedAt = nil, nil
		if !proto.Equal(o, streamed) || o.GetSize() != int64(size) {
			t.Errorf("%d bytes: %v, streamed %v", size, o, streamed)
		}
		if _, err := s.send(t, whole("b", data)); err != nil {
			t.Fatal(err)
		}
		for _, inHeader := range []bool{false, true} {
			got, err := s.getEither(t, &pb.GetObjectRequest{Bucket: "photos", Key: "b", ContentInHeader: inHeader})
			if err != nil || !bytes.Equal(got.data, data) {
				t.Errorf("%d bytes, in the header %v: %d came, %v", size, inHeader, len(got.data), err)
			}
			if one := inHeader && size <= contentBytes || size == 0; (got.messages == 1) != one {
				t.Errorf("%d bytes, in the header %v: %d messages", size, inHeader, got.messages)
			}
		}
	}
}

// got is a download.
type got struct {
	data     []byte
	messages int
}

// getEither reads a download as the proto says that clients do.
func (s *store) getEither(t testing.TB, r *pb.GetObjectRequest) (g got, err error) {
	t.Helper()
	stream, err := s.objects.GetObject(t.Context(), r)
	if err != nil {
		return g, err
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return g, nil
		}
		if err != nil {
			return g, err
		}
		g.messages++
		g.data = append(append(g.data, m.GetHeader().GetContent()...), m.GetChunk()...)
	}
}

// TestGetContentRange: ranges are in the header, too, by their own length.
func TestGetContentRange(t *testing.T) {
	s := serveStore(t)
	data := pattern(700_000)
	if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, data); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ off, n int64 }{{0, 1}, {300_000, contentBytes}, {300_000, contentBytes + 1}, {699_999, 0}, {-5, 3}} {
		from := (int64(len(data)) + c.off) % int64(len(data))
		to := from + c.n
		if c.n == 0 {
			to = int64(len(data))
		}
		g, err := s.getEither(t, &pb.GetObjectRequest{
			Bucket: "photos", Key: "a", Range: &pb.Range{Offset: c.off, Length: c.n}, ContentInHeader: true,
		})
		if err != nil || !bytes.Equal(g.data, data[from:to]) || (g.messages == 1) != (to-from <= contentBytes) {
			t.Errorf("%d at %d: %d bytes in %d messages, %v", c.n, c.off, len(g.data), g.messages, err)
		}
	}
}

// TestPutWholeRefuses: what is wrong with an upload in one message leaves nothing
// behind, a message behind it included, whichever it is.
func TestPutWholeRefuses(t *testing.T) {
	s := serveStore(t)
	data := pattern(4096)
	flipped := sha(data)
	flipped.Value[0] ^= 1
	sized := func(n int64) *pb.PutObjectRequest {
		return header(&pb.PutObjectHeader{Bucket: "photos", Key: "a", Content: data, Size: &n})
	}
	h := header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})
	for _, c := range []struct {
		what     string
		messages []*pb.PutObjectRequest
		kind     fault.Kind
		subject  string
	}{
		{"a chunk behind", []*pb.PutObjectRequest{whole("a", data), chunk(data)}, fault.InvalidArgument, "content"},
		{"an empty chunk behind", []*pb.PutObjectRequest{whole("a", data), chunk(nil)}, fault.InvalidArgument, "content"},
		{"a trailer behind", []*pb.PutObjectRequest{whole("a", data), trailer()}, fault.InvalidArgument, "content"},
		{"a header behind", []*pb.PutObjectRequest{whole("a", data), h}, fault.InvalidArgument, "content"},
		{"itself behind", []*pb.PutObjectRequest{whole("a", data), whole("a", data)}, fault.InvalidArgument, "content"},
		{"nothing behind", []*pb.PutObjectRequest{whole("a", data), {}}, fault.InvalidArgument, "content"},
		{"an empty one with a trailer", []*pb.PutObjectRequest{whole("a", []byte{}), trailer()}, fault.InvalidArgument, "content"},
		{"behind a header", []*pb.PutObjectRequest{h, whole("a", data)}, fault.InvalidArgument, "header"},
		{"behind a chunk", []*pb.PutObjectRequest{h, chunk(data), whole("a", data), trailer()}, fault.InvalidArgument, "header"},
		{"sums without content", []*pb.PutObjectRequest{whole("a", nil, sha(data)), chunk(data), trailer()}, fault.InvalidArgument, "checksums"},
		{"another sum", []*pb.PutObjectRequest{whole("a", data, flipped)}, fault.ChecksumMismatch, "body"},
		{"an unnamed sum", []*pb.PutObjectRequest{whole("a", data, &pb.Checksum{Value: make([]byte, 32)})}, fault.InvalidArgument, "checksums"},
		{"longer than said", []*pb.PutObjectRequest{sized(4095)}, fault.IncompleteBody, "body"},
		{"shorter than said", []*pb.PutObjectRequest{sized(4097)}, fault.IncompleteBody, "body"},
		{"less than nothing", []*pb.PutObjectRequest{sized(-1)}, fault.InvalidArgument, "size"},
		{"a bad key", []*pb.PutObjectRequest{whole("a/../b", data)}, fault.InvalidArgument, "key"},
		{"no such bucket", []*pb.PutObjectRequest{header(&pb.PutObjectHeader{Bucket: "nowhere", Key: "a", Content: data})}, fault.BucketNotFound, `bucket "nowhere"`},
	} {
		_, err := s.send(t, c.messages...)
		if c.kind == fault.ChecksumMismatch {
			c.subject = fault.From(errorOf(err)).Subject
		}
		checkStatus(t, c.what, err, c.kind, c.subject)
	}
	if _, err := s.send(t, whole("a", make([]byte, maxMessageBytes))); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over 4 MiB: %v", err)
	}
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
	if _, err := s.send(t, whole("a", data)); err != nil {
		t.Fatal(err)
	}
	again := header(&pb.PutObjectHeader{Bucket: "photos", Key: "a", Content: data, Conditions: &pb.Conditions{IfNoneMatch: []string{"*"}}})
	if _, err := s.send(t, again); fault.From(errorOf(err)).Kind != fault.PreconditionFailed {
		t.Errorf("a condition that doesn't hold: %v", err)
	}
	if keys := s.keys(t); !slices.Equal(keys, []string{"a"}) {
		t.Errorf("there are %q", keys)
	}
}

// TestStalledWhole: nothing is stored before the client has ended the stream.
func TestStalledWhole(t *testing.T) {
	s := servePaced(t)
	stream := must(s.objects.PutObject(t.Context()))
	if err := stream.Send(whole("a", pattern(4096))); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, "without an end", stream.RecvMsg(new(pb.PutObjectResponse)), fault.Deadline, "stream")
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
	// What is wrong with it is told without waiting for an end.
	stream = must(s.objects.PutObject(t.Context()))
	if err := stream.Send(whole("a/../b", nil, sha(nil))); err != nil {
		t.Fatal(err)
	}
	checkStatus(t, "refused", stream.RecvMsg(new(pb.PutObjectResponse)), fault.InvalidArgument, "checksums")
}

// TestFirstAnswer: the first message that a server sends doesn't wait for the
// client, however large it is and however little the client takes. pacedStream
// relies on grpc for that.
func TestFirstAnswer(t *testing.T) {
	sent := make(chan error, 1)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		sent <- stream.SendMsg(wrapperspb.Bytes(make([]byte, 8<<20)))
		<-stream.Context().Done()
		return nil
	}))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-stopped
	})
	conn := must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))) // and they don't grow by themselves
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/a/b"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-sent:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the first answer waits for a client that takes none of it")
	}
}
