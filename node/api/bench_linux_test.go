package api

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// bareObjects is a grpc-go server with nothing around it, which streams the same
// bytes from memory: what a download could be at best.
type bareObjects struct {
	pb.UnimplementedObjectServiceServer
	data  []byte
	chunk int
}

func (s *bareObjects) GetObject(_ *pb.GetObjectRequest, stream grpc.ServerStreamingServer[pb.GetObjectResponse]) error {
	part := &pb.GetObjectResponse_Chunk{}
	m := &pb.GetObjectResponse{Part: part}
	for rest := s.data; len(rest) > 0; rest = rest[len(part.Chunk):] {
		part.Chunk = rest[:min(s.chunk, len(rest))]
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// serveBare starts one.
func serveBare(t testing.TB, impl pb.ObjectServiceServer) pb.ObjectServiceClient {
	t.Helper()
	server := grpc.NewServer()
	pb.RegisterObjectServiceServer(server, impl)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return pb.NewObjectServiceClient(dial(t, l.Addr(), ""))
}

// BenchmarkBytes is an object of 64 MiB through gRPC beside bare servers, for a
// client that decodes what comes and for one that counts it. The bytes are in
// memory in all cases. cpu-s/GiB is of both ends.
func BenchmarkBytes(b *testing.B) {
	const size = 64 << 20
	s := serveStore(b)
	data := pattern(size)
	if _, err := s.put(b, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, data); err != nil {
		b.Fatal(err)
	}
	servers := map[string]pb.ObjectServiceClient{"gridloom": s.objects}
	for _, kib := range []int{64, 256, 1024} {
		servers[fmt.Sprintf("bare-%dKiB", kib)] = serveBare(b, &bareObjects{data: data, chunk: kib << 10})
	}
	for _, client := range []string{"decodes", "counts"} {
		for _, name := range []string{"gridloom", "bare-64KiB", "bare-256KiB", "bare-1024KiB"} {
			b.Run(client+"/"+name, func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				begin := cpuTime()
				for b.Loop() {
					var n int
					var err error
					if client == "counts" {
						n, err = count(b.Context(), servers[name])
						n = min(n, size) // with headers
					} else {
						n, err = drain(b.Context(), servers[name], "a")
					}
					if n != size || err != nil {
						b.Fatal(n, err)
					}
				}
				gib := float64(b.N) * size / (1 << 30)
				b.ReportMetric((cpuTime()-begin).Seconds()/gib, "cpu-s/GiB")
			})
		}
	}
}

// cpuTime is what the process has used of its processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
