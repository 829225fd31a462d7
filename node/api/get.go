package api

import (
	"io"

	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/dataio"
	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// chunkBytes is the payload of one message of a download. Measured with 64 MiB
// over loopback, CPU time per GiB of both ends together falls up to here (3 s at
// 64 KiB, 2 s at 256 KiB) and not beyond; each download holds one.
const chunkBytes = 256 << 10

// contentBytes is the longest answer that is in its header, as object.proto says.
const contentBytes = 64 << 10

// GetObject sends an object or a range of it: a header, then chunks; or one
// message, if it is small and the client takes it.
func (s *objectService) GetObject(r *pb.GetObjectRequest, stream grpc.ServerStreamingServer[pb.GetObjectResponse]) error {
	conditions, err := conditionsOf("conditions", r.GetConditions())
	if err != nil {
		return err
	}
	maxAge, err := maxAgeOf(r.GetMaxAge())
	if err != nil {
		return err
	}
	verify, err := verifyOf(r.GetVerify())
	if err != nil {
		return err
	}
	reader, err := s.objects.Open(stream.Context(), r.GetBucket(), r.GetKey(), conditions, maxAge)
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.Verify = verify
	off, n, err := rangeOf(r.GetRange(), reader.Info.SizeBytes)
	if err != nil {
		return err
	}
	header := &pb.GetObjectHeader{Object: protoObject(reader.Info), Offset: off, Length: n}
	whole := r.GetContentInHeader() && n <= contentBytes
	if whole && n > 0 {
		content := &content{make([]byte, 0, n)}
		if _, err := reader.Send(stream.Context(), content, off, n, dataio.Windows{}); err != nil {
			return err
		}
		header.Content = content.bytes
	}
	if err := stream.Send(&pb.GetObjectResponse{Part: &pb.GetObjectResponse_Header{Header: header}}); err != nil {
		return err
	}
	if n == 0 || whole {
		return nil
	}
	down := newDownload(stream, n)
	// The first window is sent by itself, however small, for the sake of the
	// time to the first byte; the others are whole chunks.
	windows := dataio.Windows{After: func(int64) { _ = down.flush() }}
	if _, err := reader.Send(stream.Context(), down, off, n, windows); err != nil {
		return down.reason(err)
	}
	return down.flush()
}

// verifyOf reads whether bytes are to be compared with their checksums. A value
// that a later client knows may mean more than this node does.
func verifyOf(v pb.Verify) (bool, error) {
	switch v {
	case pb.Verify_VERIFY_UNSPECIFIED:
		return false, nil
	case pb.Verify_VERIFY_ALWAYS:
		return true, nil
	}
	return false, fault.New(fault.InvalidArgument, "verify", "is %d; only VERIFY_ALWAYS is allowed", v)
}

// rangeOf finds the bytes that a range asks for. A range that begins at or
// beyond the end has none of them, which is an error but for an empty object.
func rangeOf(r *pb.Range, size int64) (off, n int64, err error) {
	off, n = r.GetOffset(), r.GetLength()
	switch {
	case n < 0:
		return 0, 0, fault.New(fault.InvalidArgument, "range.length", "is negative")
	case off < 0:
		off = max(0, size+off) // the last -off bytes; size+off can't overflow
	case off > 0 && off >= size:
		return 0, 0, fault.New(fault.RangeInvalid, "range.offset", "is %d, beyond the object's %d bytes", off, size)
	}
	if n == 0 || n > size-off {
		n = size - off
	}
	return off, n, nil
}

// content takes what is written to it.
type content struct{ bytes []byte }

// Write implements io.Writer.
func (c *content) Write(p []byte) (int, error) {
	c.bytes = append(c.bytes, p...)
	return len(p), nil
}

// download cuts what is written to it into messages.
type download struct {
	stream grpc.ServerStreamingServer[pb.GetObjectResponse]
	part   *pb.GetObjectResponse_Chunk
	msg    *pb.GetObjectResponse
	buf    []byte // the chunk being filled
	err    error  // of the stream; nothing is sent after it
}

func newDownload(stream grpc.ServerStreamingServer[pb.GetObjectResponse], n int64) *download {
	part := &pb.GetObjectResponse_Chunk{}
	return &download{stream: stream, part: part, msg: &pb.GetObjectResponse{Part: part}, buf: make([]byte, 0, min(n, chunkBytes))}
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		room := d.buf[len(d.buf):cap(d.buf)]
		n := copy(room, p)
		d.buf = d.buf[:len(d.buf)+n]
		p, written = p[n:], written+n
		if len(d.buf) == cap(d.buf) {
			if err := d.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// ReadFrom implements io.ReaderFrom: src is read straight into the chunk.
func (d *download) ReadFrom(src io.Reader) (int64, error) {
	var total int64
	for {
		n, err := src.Read(d.buf[len(d.buf):cap(d.buf)])
		d.buf = d.buf[:len(d.buf)+n]
		total += int64(n)
		if len(d.buf) == cap(d.buf) {
			if err := d.flush(); err != nil {
				return total, err
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// flush sends the chunk, if there is one. The message is encoded before
// SendMsg returns, so that it and the buffer can be used again.
func (d *download) flush() error {
	if len(d.buf) > 0 && d.err == nil {
		d.part.Chunk = d.buf
		d.err = d.stream.Send(d.msg)
	}
	d.buf = d.buf[:0]
	if d.err != nil {
		d.buf = nil // a stream that stalled may still be reading it
	}
	return d.err
}

// reason picks the cause of a failed download: the stream's, if that failed.
func (d *download) reason(err error) error {
	if d.err != nil {
		return d.err
	}
	return err
}
