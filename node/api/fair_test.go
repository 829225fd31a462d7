package api

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// fairStreams is how many downloads share one connection.
const fairStreams = 8

// openDownloads opens downloads of "large" on one connection, and waits until
// each has begun: none gets further than its window before it is read.
func openDownloads(t *testing.T, s *store, n int) []grpc.ServerStreamingClient[pb.GetObjectResponse] {
	t.Helper()
	var open []grpc.ServerStreamingClient[pb.GetObjectResponse]
	for range n {
		// Not t.Context(), which ends before the streams are read to their ends.
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		stream := must(s.objects.GetObject(ctx, &pb.GetObjectRequest{Bucket: "photos", Key: "large"}))
		for range 2 { // the header and a chunk
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		open = append(open, stream)
	}
	return open
}

// putFair puts what the tests of fairness read.
func putFair(t *testing.T, s *store, large int) {
	t.Helper()
	for key, size := range map[string]int{"large": large, "small": 1000} {
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: key}, pattern(size)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlowReadersAlone: downloads that nobody reads hold up nothing else on their
// connection, whether calls, small objects or large ones.
func TestSlowReadersAlone(t *testing.T) {
	s := serveStore(t)
	const size = 4 << 20
	putFair(t, s, size)
	slow := openDownloads(t, s, fairStreams)
	var all sync.WaitGroup
	all.Go(func() {
		if _, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "large"}); len(got) != size || err != nil {
			t.Errorf("a large object beside them: %d bytes, %v", len(got), err)
		}
	})
	for range 4 {
		all.Go(func() {
			for range 10 {
				if _, err := s.objects.StatObject(t.Context(), &pb.StatObjectRequest{Bucket: "photos", Key: "large"}); err != nil {
					t.Error(err)
					return
				}
				if _, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "small"}); len(got) != 1000 || err != nil {
					t.Errorf("a small object beside them: %d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, stream := range slow {
		rest := 0
		var err error
		for err == nil {
			var m *pb.GetObjectResponse
			m, err = stream.Recv()
			rest += len(m.GetChunk())
		}
		if err != io.EOF || rest != size-firstBytes {
			t.Errorf("one that is read late: %d more bytes, %v", rest, err)
		}
	}
}

// TestDownloadsShareAConnection: of several readers that read one large object
// after the other, none waits for its first until another has had very many.
func TestDownloadsShareAConnection(t *testing.T) {
	s := serveStore(t)
	const size, most = 1 << 20, 100
	putFair(t, s, size)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var waiting atomic.Int32 // for their first
	waiting.Store(fairStreams)
	var all sync.WaitGroup
	for range fairStreams {
		all.Go(func() {
			for times := 0; waiting.Load() > 0; times++ {
				if times == most {
					t.Errorf("%d readers wait for their first object, when another has had %d", waiting.Load(), most)
					cancel()
					return
				}
				n, err := drain(ctx, s.objects, "large")
				if n != size || err != nil {
					t.Errorf("%d bytes, %v", n, err)
					cancel()
					return
				}
				if times == 0 {
					waiting.Add(-1)
				}
			}
		})
	}
	all.Wait()
}

// TestSmallBesideLarge: small objects and calls come while large downloads keep
// their connection busy for as long as that takes.
func TestSmallBesideLarge(t *testing.T) {
	s := serveStore(t)
	putFair(t, s, 4<<20)
	var passed atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range fairStreams {
		all.Go(func() {
			for ctx.Err() == nil {
				n, err := drain(ctx, s.objects, "large")
				passed.Add(int64(n))
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const times = 10
	for range times {
		if _, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "small"}); len(got) != 1000 || err != nil {
			t.Errorf("a small object: %d bytes, %v", len(got), err)
		}
		if _, err := s.objects.StatObject(t.Context(), &pb.StatObjectRequest{Bucket: "photos", Key: "small"}); err != nil {
			t.Error(err)
		}
	}
	cancel()
	all.Wait()
	t.Logf("%d KiB passed for each call", passed.Load()/(2*times)>>10)
}

// drain reads an object to its end, and returns how many bytes it had.
func drain(ctx context.Context, objects pb.ObjectServiceClient, key string) (n int, err error) {
	stream, err := objects.GetObject(ctx, &pb.GetObjectRequest{Bucket: "photos", Key: key})
	for err == nil {
		var m *pb.GetObjectResponse
		m, err = stream.Recv()
		n += len(m.GetChunk())
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}
