package api

import (
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// codec encodes the chunks of downloads and decodes those of uploads without a
// copy; the wire is the standard codec's, which does all the rest. That one
// copies every chunk into a buffer of 1 MiB, the next larger that it has, which
// it clears first, and on the other side into such a buffer and then into a new
// slice.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(encodingproto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if out, ok := v.(*outgoing); ok {
		b := out.claim()
		if b == nil {
			return nil, errGivenBack
		}
		return mem.BufferSlice{b}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.request.Reset()
	clear(in.chunk)
	in.chunk = in.chunk[:0]
	if in.slice(data) {
		return nil
	}
	if err := c.CodecV2.Unmarshal(data, &in.request); err != nil {
		return err
	}
	if part, ok := in.request.GetPart().(*pb.PutObjectRequest_Chunk); ok {
		in.chunk = append(in.chunk, mem.SliceBuffer(part.Chunk))
	}
	return nil
}

// chunkField is the number that chunk has in GetObjectResponse and in
// PutObjectRequest.
const chunkField = 2

// headRoom is what a buffer has in front of a chunk, for its tag and length. It
// is more than they take, so that the chunk begins at a multiple of 16.
const headRoom = 16

// outgoing is a GetObjectResponse with a chunk, encoded. Its buffer is whose
// claims it first: the codec, which hands it to the transport, or who wanted to
// send it and couldn't.
type outgoing struct {
	buffer  mem.Buffer
	claimed atomic.Bool
}

// errGivenBack is what becomes of a message that is sent when nobody waits for it
// any more.
var errGivenBack = errors.New("api: the chunk was given back")

// newOutgoing makes a message of a buffer of pool's, which has headRoom bytes
// and then the chunk. The buffer is the message's from here on.
func newOutgoing(buf *[]byte, pool mem.BufferPool) *outgoing {
	var room [headRoom]byte
	head := protowire.AppendTag(room[:0], chunkField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(*buf)-headRoom))
	begin := headRoom - len(head)
	copy((*buf)[begin:], head)
	all := mem.NewBuffer(buf, pool)
	defer all.Free()
	return &outgoing{buffer: all.Slice(begin, len(*buf))}
}

// claim gives the buffer to the first who asks.
func (o *outgoing) claim() mem.Buffer {
	if o.claimed.Swap(true) {
		return nil
	}
	return o.buffer
}

// giveBack frees the buffer, unless it is on its way.
func (o *outgoing) giveBack() {
	if b := o.claim(); b != nil {
		b.Free()
	}
}

// incoming is a PutObjectRequest that was received: a chunk, whose buffers are
// those that the transport read it into, or anything else. It can be received
// into again once the buffers are freed.
type incoming struct {
	request pb.PutObjectRequest
	chunk   mem.BufferSlice // to be freed by who receives; empty for an empty chunk
	sliced  bool            // the message is chunk alone, and request is empty
}

// isChunk says whether the message is a chunk.
func (in *incoming) isChunk() bool {
	_, ok := in.request.GetPart().(*pb.PutObjectRequest_Chunk)
	return ok || in.sliced
}

// slice takes the chunk from a message that is nothing else. It leaves any other
// alone.
func (in *incoming) slice(data mem.BufferSlice) bool {
	in.sliced = false
	var room [headRoom]byte
	head := room[:data.CopyTo(room[:])]
	number, kind, n := protowire.ConsumeTag(head)
	if n < 0 || number != chunkField || kind != protowire.BytesType {
		return false
	}
	size, m := protowire.ConsumeVarint(head[n:])
	if m < 0 || size != uint64(data.Len()-n-m) {
		return false
	}
	for skip := n + m; len(data) > 0; data = data[1:] {
		b := data[0]
		if drop := min(skip, b.Len()); drop < b.Len() {
			in.chunk = append(in.chunk, b.Slice(drop, b.Len()))
		}
		skip -= min(skip, b.Len())
	}
	in.sliced = true
	return true
}

// chunkPool keeps the buffers of downloads. Unlike grpc's it doesn't clear them.
type chunkPool struct {
	small, large sync.Pool
	lent         atomic.Int64 // buffers that were not given back
}

const (
	smallBufferBytes = headRoom + firstBytes
	largeBufferBytes = headRoom + chunkBytes
)

// Get implements mem.BufferPool, for up to largeBufferBytes.
func (p *chunkPool) Get(n int) *[]byte {
	pool, size := &p.large, largeBufferBytes
	if n <= smallBufferBytes {
		pool, size = &p.small, smallBufferBytes
	}
	buf, ok := pool.Get().(*[]byte)
	if !ok {
		b := make([]byte, size)
		buf = &b
	}
	*buf = (*buf)[:n]
	p.lent.Add(1)
	return buf
}

// Put implements mem.BufferPool.
func (p *chunkPool) Put(buf *[]byte) {
	p.lent.Add(-1)
	if cap(*buf) <= smallBufferBytes {
		p.small.Put(buf)
		return
	}
	p.large.Put(buf)
}
