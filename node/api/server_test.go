package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

func TestHealth(t *testing.T) {
	s := serve(t, nil)
	health := healthpb.NewHealthClient(s.bare)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "gridloom.v1.BucketService", "gridloom.v1.ObjectService", "gridloom.v1.ClusterService", "gridloom.v1.StorageService", "gridloom.v1.MetricsService", "gridloom.v1.IAMService"} {
			resp, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || resp.GetStatus() != want {
				t.Errorf("%q is %v, %v, want %v", service, resp.GetStatus(), err, want)
			}
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch begins with %v, %v", first, err)
	}
	s.api.SetServing(true)
	check(healthpb.HealthCheckResponse_SERVING)
	if second, err := watch.Recv(); err != nil || second.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("watch goes on with %v, %v", second, err)
	}
	s.api.SetServing(false)
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
}

// TestReflection is what a generic client does: it lists the services, reads
// the descriptors, and calls a method that it knew nothing of.
func TestReflection(t *testing.T) {
	s := serve(t, nil)
	s.mesh.cluster = &ClusterInfo{Node: "a", DeploymentID: "d"}
	stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range resp.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{
		"gridloom.v1.BucketService", "gridloom.v1.ClusterService", "gridloom.v1.MetricsService", "gridloom.v1.ObjectService", "gridloom.v1.StorageService",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not listed in %q", want, names)
		}
	}
	resp = ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "gridloom.v1.ClusterService.GetCluster",
	}})
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
	method := describedMethod(t, resp.GetFileDescriptorResponse().GetFileDescriptorProto(), "ClusterService", "GetCluster")
	got := dynamicpb.NewMessage(method.Output())
	if err := s.conn.Invoke(t.Context(), "/gridloom.v1.ClusterService/GetCluster", dynamicpb.NewMessage(method.Input()), got); err != nil {
		t.Fatal(err)
	}
	checkJSON(t, string(must(protojson.Marshal(got))), `{"deploymentId":"d","node":"a"}`)

	// v1alpha has the same messages under another name.
	alpha, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	old := new(reflectionpb.ServerReflectionResponse)
	err = alpha.SendMsg(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	if err == nil {
		err = alpha.RecvMsg(old)
	}
	if err != nil || len(old.GetListServicesResponse().GetService()) != len(names) {
		t.Errorf("v1alpha: %v, %v", old, err)
	}
	_ = alpha.CloseSend()
	if err := alpha.RecvMsg(old); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

// describedMethod finds a method in descriptors that came over the wire; they
// may import what every client has.
func describedMethod(t testing.TB, files [][]byte, service, method protoreflect.Name) protoreflect.MethodDescriptor {
	t.Helper()
	for _, raw := range files {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		desc, err := protodesc.NewFile(&file, protoregistry.GlobalFiles)
		if err != nil {
			t.Fatal(err)
		}
		if s := desc.Services().ByName(service); s != nil {
			return s.Methods().ByName(method)
		}
	}
	t.Fatalf("%s.%s is not described", service, method)
	return nil
}

func TestUnknownMethod(t *testing.T) {
	s := serve(t, nil)
	for _, name := range []string{"/gridloom.v1.BucketService/Burn", "/gridloom.v2.BucketService/GetBucket", "/x"} {
		for _, conn := range []*grpc.ClientConn{s.conn, s.bare} {
			err := conn.Invoke(t.Context(), name, &pb.GetBucketRequest{}, &pb.GetBucketResponse{})
			if code := status.Code(err); code != codes.Unimplemented && (name != "/x" || code != codes.Internal) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestCredentials: where a credential is looked for, and what becomes of a bad
// one.
func TestCredentials(t *testing.T) {
	root, other := iam.Generate("root"), iam.Generate("root")
	s := serve(t, func(o *Options) { o.Auth = newKeeper(t, root).gate })
	s.mesh.describe = func() error { return nil }
	cluster := pb.NewClusterServiceClient(s.bare)
	good, bad := "Bearer "+root.String(), "Bearer "+other.String()
	for _, c := range []struct {
		what   string
		header []string
		ok     bool
	}{
		{"none", nil, false},
		{"authorization", []string{"authorization", good}, true},
		{"gridloom-authorization", []string{"gridloom-authorization", good}, true},
		{"ours goes first", []string{"authorization", bad, "gridloom-authorization", good}, true},
		{"ours goes first, and alone", []string{"authorization", good, "gridloom-authorization", bad}, false},
		{"ours is empty", []string{"gridloom-authorization", "", "authorization", good}, true},
		{"both are empty", []string{"gridloom-authorization", "", "authorization", ""}, false},
		{"another key", []string{"authorization", bad}, false},
		{"no scheme", []string{"authorization", root.String()}, false},
		{"another scheme", []string{"authorization", "Basic " + root.String()}, false},
		{"empty", []string{"authorization", ""}, false},
		{"two", []string{"authorization", bad, "authorization", good}, false},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.header...)
		_, err := cluster.GetCluster(ctx, &pb.GetClusterRequest{})
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		checkStatus(t, c.what, err, fault.Unauthenticated, "")
		if strings.Contains(err.Error(), root.String()) || strings.Contains(err.Error(), other.String()) {
			t.Errorf("%s: the error repeats the credential", c.what)
		}
	}
}

// TestReady: who may not be served yet is told after, not before, it is known
// who they are.
func TestReady(t *testing.T) {
	waiting := fault.New(fault.Waiting, "node a", "not ready: opening the drives")
	s := serve(t, func(o *Options) { o.Ready = func(context.Context) error { return waiting } })
	_, err := pb.NewClusterServiceClient(s.conn).GetCluster(t.Context(), &pb.GetClusterRequest{})
	checkStatus(t, "unary", err, fault.Waiting, "node a")
	stream, err := pb.NewObjectServiceClient(s.conn).GetObject(t.Context(), &pb.GetObjectRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	checkStatus(t, "stream", err, fault.Waiting, "node a")
	_, err = pb.NewClusterServiceClient(s.bare).GetCluster(t.Context(), &pb.GetClusterRequest{})
	checkStatus(t, "without a key", err, fault.Unauthenticated, "")
	if _, err := healthpb.NewHealthClient(s.bare).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestErrorsAreLoggedNotTold(t *testing.T) {
	var log logBuffer
	s := serve(t, func(o *Options) { o.Logger = logTo(&log) })
	cluster := pb.NewClusterServiceClient(s.conn)
	for _, describe := range []func() error{
		func() error { return errors.New("open /secret: broken") },
		func() error { panic("/secret") },
	} {
		s.mesh.describe = describe
		_, err := cluster.GetCluster(t.Context(), &pb.GetClusterRequest{})
		checkStatus(t, "describe", err, fault.Internal, "")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("told: %v", err)
		}
	}
	if n := strings.Count(log.String(), "secret"); n < 2 {
		t.Errorf("logged: %s", log.String())
	}
}

// TestMaxStreams: a call over the limit waits at the client.
func TestMaxStreams(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxStreams = 1 })
	health := healthpb.NewHealthClient(s.bare)
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := health.Check(short, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a second call at once: %v", err)
	}
	cancel()
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

func TestMaxHeaderBytes(t *testing.T) {
	s := serve(t, nil)
	health := healthpb.NewHealthClient(s.bare)
	for size, want := range map[int]codes.Code{1 << 10: codes.OK, 32 << 10: codes.Internal} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "filler", strings.Repeat("x", size))
		if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != want {
			t.Errorf("%d bytes of metadata: %v", size, err)
		}
	}
}

// TestHandshakeTimeout: a connection that says nothing is closed.
func TestHandshakeTimeout(t *testing.T) {
	s := serve(t, func(o *Options) { o.HandshakeTimeout = 50 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(s.conn.Target(), "passthrough:///"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was not closed: %v", err)
	}
}

// TestConnectionAge: a connection is taken out of service for its idleness and
// for its age.
func TestConnectionAge(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"idle": func(o *Options) { o.MaxConnectionIdle = 50 * time.Millisecond },
		"old":  func(o *Options) { o.MaxConnectionAge = 50 * time.Millisecond },
	} {
		s := serve(t, change)
		if _, err := healthpb.NewHealthClient(s.bare).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if !s.bare.WaitForStateChange(ctx, connectivity.Ready) {
			t.Errorf("the connection that is %s goes on", what)
		}
		cancel()
	}
}

// TestNewRequires: what is missing is said at once.
func TestNewRequires(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("an API of nothing was made")
	}
}
