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

// TestDownloadsShareAConnection: when the first of several downloads has all of
// its bytes, the others have a good part of theirs.
func TestDownloadsShareAConnection(t *testing.T) {
	s := serveStore(t)
	const size = 4 << 20
	putFair(t, s, size)
	var got, atFirst [fairStreams]atomic.Int64
	var once sync.Once
	var all sync.WaitGroup
	for i, stream := range openDownloads(t, s, fairStreams) {
		got[i].Store(firstBytes)
		all.Go(func() {
			var err error
			for err == nil {
				var m *pb.GetObjectResponse
				m, err = stream.Recv()
				got[i].Add(int64(len(m.GetChunk())))
			}
			once.Do(func() {
				for j := range got {
					atFirst[j].Store(got[j].Load())
				}
			})
			if n := got[i].Load(); err != io.EOF || n != size {
				t.Errorf("download %d: %d bytes, %v", i, n, err)
			}
		})
	}
	all.Wait()
	for i := range atFirst {
		if n := atFirst[i].Load(); n < size/8 {
			t.Errorf("download %d had %d of %d bytes when the first was whole", i, n, size)
		}
	}
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
				stream, err := s.objects.GetObject(ctx, &pb.GetObjectRequest{Bucket: "photos", Key: "large"})
				for err == nil {
					var m *pb.GetObjectResponse
					m, err = stream.Recv()
					passed.Add(int64(len(m.GetChunk())))
				}
				if err != io.EOF && ctx.Err() == nil {
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
