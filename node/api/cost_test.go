package api

import (
	"context"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// TestCostOfBytes bounds what moving bytes allocates, on both ends, for a client
// that copies nothing either: a copy anywhere would be seen as a byte for each
// byte, or as the allocations of a smaller chunk.
func TestCostOfBytes(t *testing.T) {
	const size, rounds = 8 << 20, 3
	s := serveStore(t)
	if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, pattern(size)); err != nil {
		t.Fatal(err)
	}
	pool, data := new(chunkPool), pattern(chunkBytes)
	// For a MiB. The race detector has pools drop much of what they are given; so
	// does the garbage collector, which is left out of it.
	maxBytes, maxAllocs := 96<<10, 240
	if raceEnabled {
		maxBytes, maxAllocs = 1792<<10, 500
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for name, once := range map[string]func() error{
		"get": func() error {
			n, err := count(t.Context(), s.objects)
			if err == nil && n < size {
				err = io.ErrUnexpectedEOF
			}
			return err
		},
		"put": func() error { return lightPut(t.Context(), s.objects, pool, data, size) },
	} {
		t.Run(name, func(t *testing.T) {
			// The least of all rounds: where other programs keep this one waiting, more
			// chunks are under way at once than the pools had.
			const mib = size >> 20
			bytes, allocs := math.MaxInt, math.MaxInt
			for round := range rounds + 1 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if err := once(); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				if round > 0 { // the first has filled the pools
					bytes = min(bytes, int(after.TotalAlloc-before.TotalAlloc)/mib)
					allocs = min(allocs, int(after.Mallocs-before.Mallocs)/mib)
				}
			}
			t.Logf("for a MiB: %d bytes in %d allocations", bytes, allocs)
			if bytes > maxBytes || allocs > maxAllocs {
				t.Errorf("for a MiB: %d bytes in %d allocations, want at most %d in %d", bytes, allocs, maxBytes, maxAllocs)
			}
		})
	}
}

// lightPut puts an object of n bytes, in chunks that aren't copied.
func lightPut(ctx context.Context, objects pb.ObjectServiceClient, pool mem.BufferPool, data []byte, n int64) error {
	stream, err := objects.PutObject(ctx, grpc.ForceCodecV2(newCodec()))
	if err != nil {
		return err
	}
	err = stream.Send(header(&pb.PutObjectHeader{Bucket: "photos", Key: "b", Size: &n}))
	for ; n > 0 && err == nil; n -= int64(len(data)) {
		buf := pool.Get(headRoom + len(data))
		copy((*buf)[headRoom:], data)
		err = stream.SendMsg(newOutgoing(buf, pool)) // a chunk is the same in either direction
	}
	if err == nil {
		err = stream.Send(trailer())
	}
	if err != nil && err != io.EOF {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// count reads the object "a" without decoding the messages, and returns how many
// bytes they had.
func count(ctx context.Context, objects pb.ObjectServiceClient) (n int, err error) {
	stream, err := objects.GetObject(ctx, &pb.GetObjectRequest{Bucket: "photos", Key: "a"}, grpc.ForceCodecV2(countingCodec{newCodec()}))
	for err == nil {
		var m int
		err = stream.RecvMsg(&m)
		n += m
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// countingCodec gives the size of a message for the message.
type countingCodec struct{ encoding.CodecV2 }

func (countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) = data.Len()
	return nil
}
