package api

import (
	"context"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

const shortStall = 200 * time.Millisecond

func servePaced(t testing.TB) *store {
	t.Helper()
	return makeStore(t, serve(t, func(o *Options) { o.Stall = shortStall }))
}

// serveBoth serves the same objects patiently, to put them, and paced.
func serveBoth(t testing.TB) (patient, paced *store) {
	t.Helper()
	objects := newObjects(t)
	patient = makeStore(t, serve(t, func(o *Options) { o.Objects = objects }))
	s := serve(t, func(o *Options) { o.Objects, o.Stall = objects, shortStall })
	return patient, &store{s, pb.NewBucketServiceClient(s.conn), pb.NewObjectServiceClient(s.conn)}
}

// TestStalledUpload: a client that stops sending is told so, wherever it stops,
// and leaves nothing behind.
func TestStalledUpload(t *testing.T) {
	s := servePaced(t)
	h := header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})
	for what, messages := range map[string][]*pb.PutObjectRequest{
		"before the header": nil,
		"behind the header": {h},
		"within the body":   {h, chunk(pattern(300_000))},
		"before the end":    {h, chunk(pattern(300_000)), trailer()},
	} {
		stream := must(s.objects.PutObject(t.Context()))
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		checkStatus(t, what, stream.RecvMsg(new(pb.PutObjectResponse)), fault.Deadline, "stream")
	}
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// TestHollowUpload: empty chunks keep no upload open.
func TestHollowUpload(t *testing.T) {
	s := servePaced(t)
	stream := must(s.objects.PutObject(t.Context()))
	err := stream.Send(header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"}))
	tick := time.NewTicker(shortStall / 10)
	defer tick.Stop()
	for err == nil {
		<-tick.C
		err = stream.Send(chunk(nil))
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	checkStatus(t, "empty chunks", stream.RecvMsg(new(pb.PutObjectResponse)), fault.Deadline, "stream")
}

// TestSlowUpload: one that takes many times the bound, but moves, succeeds.
func TestSlowUpload(t *testing.T) {
	s := servePaced(t)
	stream := must(s.objects.PutObject(t.Context()))
	if err := stream.Send(header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(shortStall / 5)
	defer tick.Stop()
	for range 12 {
		<-tick.C
		if err := stream.Send(chunk([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.Send(trailer()); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.CloseAndRecv(); err != nil || resp.GetObject().GetSize() != 12 {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestStalledDownload: a client that doesn't read is left, and finds out when it
// does: behind what was under way comes the error, not the rest.
func TestStalledDownload(t *testing.T) {
	patient, s := serveBoth(t)
	if _, err := patient.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, pattern(8<<20)); err != nil {
		t.Fatal(err)
	}
	stream, err := s.objects.GetObject(t.Context(), &pb.GetObjectRequest{Bucket: "photos", Key: "a"})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(10 * shortStall)
	got := 0
	for err == nil {
		var m *pb.GetObjectResponse
		m, err = stream.Recv()
		got += len(m.GetChunk())
	}
	checkStatus(t, "read late", err, fault.Deadline, "stream")
	if got >= 8<<20 {
		t.Errorf("%d bytes came", got)
	}
	// A short one: on a busy machine a test, too, may take nothing for a while.
	if _, _, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "a", Range: &pb.Range{Length: 1}}); err != nil {
		t.Errorf("one that reads: %v", err)
	}
}

// panicStream has calls that panic.
type panicStream struct{ grpc.ServerStream }

func (panicStream) Context() context.Context { return context.Background() }
func (panicStream) RecvMsg(any) error        { panic("broken codec") }

// TestPanicOfACall: it reaches the handler's goroutine, which the guard
// watches over.
func TestPanicOfACall(t *testing.T) {
	s := pace(panicStream{}, time.Minute, t.Context(), false)
	defer s.release()
	defer func() {
		if p := recover(); p != "broken codec" {
			t.Errorf("the panic is %v", p)
		}
	}()
	_ = s.RecvMsg(nil)
}

// TestEndWatches: a graceful stop doesn't wait for clients that watch.
func TestEndWatches(t *testing.T) {
	s := serve(t, nil)
	watch := must(healthpb.NewHealthClient(s.bare).Watch(t.Context(), &healthpb.HealthCheckRequest{}))
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	reflect := must(reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context()))
	if err := reflect.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflect.Recv(); err != nil {
		t.Fatal(err)
	}
	s.api.EndWatches()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("watch ends with %v", err)
	}
	if _, err := reflect.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("reflection ends with %v", err)
	}
	late := must(healthpb.NewHealthClient(s.bare).Watch(t.Context(), &healthpb.HealthCheckRequest{}))
	if _, err := late.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a new watch: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		s.api.GRPCServer().GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("a graceful stop still waits")
		s.api.GRPCServer().Stop()
		<-stopped
	}
}
