package api

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// TestChunkOnTheWire: a chunk is encoded as proto does it, whatever its size.
func TestChunkOnTheWire(t *testing.T) {
	pool := new(chunkPool)
	for _, size := range []int{0, 1, 127, 128, 16_383, 16_384, firstBytes - 1, firstBytes, firstBytes + 1, chunkBytes} {
		data := pattern(size)
		buf := pool.Get(headRoom + size)
		copy((*buf)[headRoom:], data)
		got, err := newCodec().Marshal(newOutgoing(buf, pool))
		if err != nil {
			t.Fatal(err)
		}
		want := must(proto.Marshal(&pb.GetObjectResponse{Part: &pb.GetObjectResponse_Chunk{Chunk: data}}))
		if !bytes.Equal(got.Materialize(), want) {
			t.Errorf("%d bytes: other bytes than proto's", size)
		}
		got.Free()
	}
	if n := pool.lent.Load(); n != 0 {
		t.Errorf("%d buffers did not come back", n)
	}
}

// TestOutgoingHasOneOwner: a message goes to the transport or back, not both.
func TestOutgoingHasOneOwner(t *testing.T) {
	pool := new(chunkPool)
	m := newOutgoing(pool.Get(headRoom+10), pool)
	m.giveBack()
	m.giveBack()
	if _, err := newCodec().Marshal(m); err != errGivenBack {
		t.Errorf("sent after it was given back: %v", err)
	}
	m = newOutgoing(pool.Get(headRoom+chunkBytes), pool)
	encoded := must(newCodec().Marshal(m))
	m.giveBack()
	if n := pool.lent.Load(); n != 1 {
		t.Errorf("%d buffers are out, while one is on its way", n)
	}
	encoded.Free()
	if n := pool.lent.Load(); n != 0 {
		t.Errorf("%d buffers are out in the end", n)
	}
}

// scattered is data as the transport might have read it: in buffers that end at
// cuts.
func scattered(data []byte, cuts ...int) mem.BufferSlice {
	var s mem.BufferSlice
	for _, cut := range cuts {
		cut = min(cut, len(data))
		s = append(s, mem.SliceBuffer(data[:cut]))
		data = data[cut:]
	}
	return append(s, mem.SliceBuffer(data))
}

// checkIncoming receives data into in, and compares that with proto's.
func checkIncoming(t *testing.T, in *incoming, data []byte, cuts ...int) {
	t.Helper()
	want := new(pb.PutObjectRequest)
	wantErr := proto.Unmarshal(data, want)
	err := newCodec().Unmarshal(scattered(data, cuts...), in)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%x cut at %v: %v, proto says %v", data, cuts, err, wantErr)
	}
	if err != nil {
		return
	}
	chunk, isChunk := want.GetPart().(*pb.PutObjectRequest_Chunk)
	if in.isChunk() != isChunk || isChunk && !bytes.Equal(in.chunk.Materialize(), chunk.Chunk) {
		t.Fatalf("%x cut at %v: chunk %v %x, proto has %v", data, cuts, in.isChunk(), in.chunk.Materialize(), want)
	}
	if !in.sliced && !proto.Equal(&in.request, want) {
		t.Fatalf("%x cut at %v: %v, proto has %v", data, cuts, &in.request, want)
	}
	if !isChunk && len(in.chunk) > 0 {
		t.Fatalf("%x cut at %v: a chunk was left in it", data, cuts)
	}
}

// incomingSeeds are messages of every kind, and some that are odd.
func incomingSeeds() map[string][]byte {
	c := must(proto.Marshal(chunk([]byte("some bytes"))))
	h := must(proto.Marshal(header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})))
	return map[string][]byte{
		"nothing":             nil,
		"chunk":               c,
		"empty chunk":         must(proto.Marshal(chunk(nil))),
		"long chunk":          must(proto.Marshal(chunk(pattern(300)))),
		"header":              h,
		"trailer":             must(proto.Marshal(trailer(sha(nil)))),
		"two chunks":          append(bytes.Clone(c), c...),
		"chunk and header":    append(bytes.Clone(c), h...),
		"header and chunk":    append(bytes.Clone(h), c...),
		"unknown field first": append([]byte{0x7a, 1, 'x'}, c...),
		"unknown field last":  append(bytes.Clone(c), 0x7a, 1, 'x'),
		"long tag":            append([]byte{0x92, 0x80, 0x00, 1}, 'x'),
		"long length":         append([]byte{0x12, 0x81, 0x80, 0x00}, 'x'),
		"cut off":             c[:len(c)-1],
		"one byte more":       append(bytes.Clone(c), 0),
		"tag alone":           {0x12},
		"as a varint":         {0x10, 1},
		"endless length":      bytes.Repeat([]byte{0xff}, 12),
	}
}

// TestIncoming: what is received is what proto makes of it, wherever the
// transport has cut it, and however often one message is received into.
func TestIncoming(t *testing.T) {
	in := new(incoming)
	for name, data := range incomingSeeds() {
		for cut := range min(len(data), 20) + 1 {
			t.Run(name, func(t *testing.T) {
				checkIncoming(t, in, data, cut)
				checkIncoming(t, in, data, cut, 1, 0, 3)
			})
		}
	}
}

func FuzzIncoming(f *testing.F) {
	for _, data := range incomingSeeds() {
		f.Add(data, uint8(0), uint8(1))
		f.Add(data, uint8(1), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, first, second uint8) {
		in := new(incoming)
		checkIncoming(t, in, data, int(first), int(second))
		checkIncoming(t, in, data)
	})
}

// waitLent waits until at most n buffers of downloads are out.
func (s *store) waitLent(t *testing.T, what string, n int64) {
	t.Helper()
	limit := time.After(time.Minute)
	for s.api.chunks.lent.Load() > n {
		select {
		case <-limit:
			t.Fatalf("%s: %d buffers are out, want %d at most", what, s.api.chunks.lent.Load(), n)
		default:
			runtime.Gosched()
		}
	}
}

// TestDownloadsGiveBack: the buffers of a download come back, however it ends.
func TestDownloadsGiveBack(t *testing.T) {
	s := serveStore(t)
	data := pattern(4 << 20)
	if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, data); err != nil {
		t.Fatal(err)
	}
	request := &pb.GetObjectRequest{Bucket: "photos", Key: "a"}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, got, err := s.get(t, request); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came, %v", len(got), err)
			}
		})
	}
	all.Wait()
	s.waitLent(t, "read", 0)

	// One message of each may be on its way from the handler to the connection's
	// writer when it ends: grpc leaves that one to the garbage collector.
	const streams = 4
	ctx, cancel := context.WithCancel(t.Context())
	for range streams {
		stream := must(s.objects.GetObject(ctx, request))
		for range 2 {
			must(stream.Recv())
		}
	}
	cancel()
	s.waitLent(t, "cancelled", streams)
}

// TestStalledDownloadGivesBack: so do those of one that nobody reads, once what
// was under way has gone.
func TestStalledDownloadGivesBack(t *testing.T) {
	patient, s := serveBoth(t)
	if _, err := patient.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, pattern(4<<20)); err != nil {
		t.Fatal(err)
	}
	stream := must(s.objects.GetObject(t.Context(), &pb.GetObjectRequest{Bucket: "photos", Key: "a"}))
	must(stream.Recv())
	<-time.After(10 * shortStall)
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	checkStatus(t, "read late", err, fault.Deadline, "stream")
	s.waitLent(t, "stalled", 1)
}

// TestUploadsInAnyPieces: chunks of every size, and a message that has more than
// its chunk, are the object.
func TestUploadsInAnyPieces(t *testing.T) {
	s := serveStore(t)
	data := pattern(600_000)
	messages := []*pb.PutObjectRequest{header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})}
	rest := data
	for i := 0; len(rest) > 0; i++ {
		n := min(len(rest), []int{1, 16_384 - 5, 16_384 - 9, 0, 100_000, 16_384, 300_000}[i%7])
		m := chunk(rest[:n])
		if i%3 == 2 {
			m.ProtoReflect().SetUnknown([]byte{0x7a, 1, 'x'})
		}
		messages = append(messages, m)
		rest = rest[n:]
	}
	if _, err := s.send(t, append(messages, trailer(sha(data)))...); err != nil {
		t.Fatal(err)
	}
	if _, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "a"}); err != nil || !slices.Equal(got, data) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	if _, err := s.send(t, append(messages, trailer(sha(data[1:])))...); err == nil || err == io.EOF {
		t.Errorf("another checksum: %v", err)
	}
}
