package api

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/gridloom/gridloom/dataio"
	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// chunkBytes is the payload of one message of a download. CPU time falls up to
// here, and little beyond, where memory only grows: a download has up to three
// (docs/decisions/0009).
const chunkBytes = 256 << 10

// firstBytes is the payload of the first one: that of the first window.
const firstBytes = dataio.FirstWindowBytes

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
		if header.Content, err = contentOf(stream.Context(), reader, off, n); err != nil {
			return err
		}
	}
	if err := stream.Send(&pb.GetObjectResponse{Part: &pb.GetObjectResponse_Header{Header: header}}); err != nil {
		return err
	}
	if n == 0 || whole {
		return nil
	}
	down := newDownload(stream, s.chunks)
	defer down.release()
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

// contentOf reads the n bytes at off, unless they are in memory already.
func contentOf(ctx context.Context, reader *object.Reader, off, n int64) ([]byte, error) {
	if reader.AtHand() {
		return reader.Bytes(off, n)
	}
	c := &content{make([]byte, 0, n)}
	_, err := reader.Send(ctx, c, off, n, dataio.Windows{})
	return c.bytes, err
}

// content takes what is written to it.
type content struct{ bytes []byte }

// Write implements io.Writer.
func (c *content) Write(p []byte) (int, error) {
	c.bytes = append(c.bytes, p...)
	return len(p), nil
}

// download cuts what is written to it into messages. Their buffers leave with
// them, and go back to the pool once they are written to the connection.
type download struct {
	stream grpc.ServerStream
	pool   mem.BufferPool
	size   int64   // of the chunk being filled, if there is one
	buf    *[]byte // that chunk, behind headRoom bytes; nil before its first byte
	err    error   // of the stream; nothing is sent after it
}

// newDownload begins. The caller must end it with release.
func newDownload(stream grpc.ServerStream, pool mem.BufferPool) *download {
	return &download{stream: stream, pool: pool, size: firstBytes}
}

// room is where the next bytes of the chunk go.
func (d *download) room() []byte {
	if d.buf == nil {
		d.buf = d.pool.Get(headRoom + int(d.size))
		*d.buf = (*d.buf)[:headRoom]
	}
	return (*d.buf)[len(*d.buf) : headRoom+d.size]
}

// filled takes n bytes of the room. It sends the chunk if it is full.
func (d *download) filled(n int) error {
	*d.buf = (*d.buf)[:len(*d.buf)+n]
	if len(*d.buf) < headRoom+int(d.size) {
		return nil
	}
	return d.flush()
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := copy(d.room(), p)
		p, written = p[n:], written+n
		if err := d.filled(n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// ReadFrom implements io.ReaderFrom: src is read straight into the chunk.
func (d *download) ReadFrom(src io.Reader) (int64, error) {
	var total int64
	for {
		n, err := src.Read(d.room())
		total += int64(n)
		if err := d.filled(n); err != nil {
			return total, err
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// InKernel says that payload comes through memory, whatever it comes from.
func (d *download) InKernel() bool { return false }

// flush sends the chunk, if there is one.
func (d *download) flush() error {
	if d.err != nil || d.buf == nil || len(*d.buf) == headRoom {
		return d.err
	}
	m := newOutgoing(d.buf, d.pool)
	d.buf, d.size = nil, chunkBytes
	if d.err = d.stream.SendMsg(m); d.err != nil {
		m.giveBack()
	}
	return d.err
}

// release gives back what was not sent.
func (d *download) release() {
	if d.buf != nil {
		d.pool.Put(d.buf)
		d.buf = nil
	}
}

// reason picks the cause of a failed download: the stream's, if that failed.
func (d *download) reason(err error) error {
	if d.err != nil {
		return d.err
	}
	return err
}
