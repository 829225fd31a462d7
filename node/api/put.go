package api

import (
	"bytes"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
)

// PutObject stores one object: a header, chunks, a trailer, end of stream; or a
// header that holds the content, end of stream. Any other order is an error that
// names the message, and leaves nothing behind.
func (s *objectService) PutObject(stream grpc.ClientStreamingServer[pb.PutObjectRequest, pb.PutObjectResponse]) error {
	first, err := stream.Recv()
	if err == io.EOF {
		return fault.New(fault.IncompleteBody, "header", "the stream ended before it")
	}
	if err != nil {
		return err
	}
	req, err := putRequestOf(first.GetHeader())
	if err != nil {
		return err
	}
	p, _ := iam.FromContext(stream.Context())
	held, err := s.uploads.Begin(p.Account())
	if err != nil {
		return err
	}
	defer held.End()
	if h := first.GetHeader(); h.Content != nil {
		return s.putWhole(stream, held, req, h)
	}
	up := &upload{stream: stream, held: held, announced: req.Sums}
	defer up.chunk.Close()
	info, err := s.objects.Put(stream.Context(), req, up, up.checksums)
	if err != nil {
		return up.reason(err)
	}
	return stream.SendAndClose(&pb.PutObjectResponse{Object: protoObject(info)})
}

// putWhole stores an object that its header holds, once nothing else has come:
// it must be clear that the client meant no more before it is visible.
func (s *objectService) putWhole(stream grpc.ClientStreamingServer[pb.PutObjectRequest, pb.PutObjectResponse],
	held *limit.Upload, req object.PutRequest, h *pb.PutObjectHeader) error {
	if err := held.Add(int64(len(h.GetContent()))); err != nil {
		return err
	}
	if err := receiveEnd(stream, "content"); err != nil {
		return fault.Wrap(fault.IncompleteBody, "stream", err)
	}
	if h.Size == nil {
		req.SizeBytes = int64(len(h.GetContent()))
	}
	sums := func() ([]object.Checksum, error) { return announcedSums(h.GetChecksums(), req.Sums) }
	info, err := s.objects.Put(stream.Context(), req, bytes.NewReader(h.GetContent()), sums)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&pb.PutObjectResponse{Object: protoObject(info)})
}

func putRequestOf(h *pb.PutObjectHeader) (object.PutRequest, error) {
	req := object.PutRequest{
		Bucket: h.GetBucket(), Key: h.GetKey(), SizeBytes: -1,
		Headers: object.Headers{
			ContentType:        h.GetContentType(),
			CacheControl:       h.GetCacheControl(),
			ContentDisposition: h.GetContentDisposition(),
			ContentEncoding:    h.GetContentEncoding(),
			ContentLanguage:    h.GetContentLanguage(),
		},
		Metadata: h.GetMetadata(),
	}
	if h.Size != nil {
		if req.SizeBytes = h.GetSize(); req.SizeBytes < 0 {
			return req, fault.New(fault.InvalidArgument, "size", "is negative; leave it out where it isn't known")
		}
	}
	if h.Content == nil && len(h.GetChecksums()) > 0 {
		return req, fault.New(fault.InvalidArgument, "checksums", "go into the trailer where the content comes in chunks")
	}
	var err error
	if req.Sums, err = announcedOf(h); err != nil {
		return req, err
	}
	req.Conditions, err = conditionsOf("conditions", h.GetConditions())
	return req, err
}

// upload reads the chunks of a PutObject stream, from the buffers that the
// transport read them into.
type upload struct {
	stream  grpc.ServerStream
	held    *limit.Upload
	message incoming
	chunk   mem.Reader // of what is left of the last one
	// announced are the algorithms of the checksums that the trailer is to have.
	announced []object.Algorithm

	trailer *pb.PutObjectTrailer
	err     error // why it ended; io.EOF after a trailer
}

// Read implements io.Reader. Its end is the end of the stream behind a trailer.
func (u *upload) Read(p []byte) (int, error) {
	for u.chunk.Remaining() == 0 && u.err == nil {
		u.err = u.next()
	}
	if u.err != nil {
		return 0, u.err
	}
	return u.chunk.Read(p)
}

// next reads one message. After an error it must not be called again: the stream
// may still be about to receive one.
func (u *upload) next() error {
	u.chunk.Close() // before its slice of buffers is used again
	m := &u.message
	err := u.stream.RecvMsg(m)
	switch {
	case err == io.EOF && u.trailer == nil:
		return fault.New(fault.IncompleteBody, "trailer", "the stream ended without it; the upload was cut off")
	case err == io.EOF:
		return io.EOF
	case err != nil:
		// The client is gone or has stalled, or has been told already: grpc answers what it
		// refuses by itself, a message that is too large for one.
		return fault.Wrap(fault.IncompleteBody, "stream", err)
	}
	u.chunk.Reset(m.chunk)
	m.chunk.Free()
	if u.trailer != nil {
		return fault.New(fault.InvalidArgument, "trailer", "must be the last message")
	}
	if m.isChunk() {
		return u.held.Add(int64(u.chunk.Remaining()))
	}
	switch part := m.request.GetPart().(type) {
	case *pb.PutObjectRequest_Trailer:
		if u.trailer = part.Trailer; u.trailer == nil {
			u.trailer = &pb.PutObjectTrailer{}
		}
		return nil
	case *pb.PutObjectRequest_Header:
		return fault.New(fault.InvalidArgument, "header", "came a second time")
	}
	return fault.New(fault.InvalidArgument, "part", "is neither chunk nor trailer")
}

// checksums are the trailer's.
func (u *upload) checksums() ([]object.Checksum, error) {
	return announcedSums(u.trailer.GetChecksums(), u.announced)
}

// reason picks the cause of a failed put: the stream's, if that failed first.
func (u *upload) reason(err error) error {
	if u.err != nil && u.err != io.EOF {
		return u.err
	}
	return err
}
