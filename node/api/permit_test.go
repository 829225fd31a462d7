package api

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// methodsOf lists the registered methods by their full names. Whether one is a
// stream, its descriptor says: to the server all of them are.
func methodsOf(s *grpc.Server) map[string]grpc.MethodInfo {
	all := make(map[string]grpc.MethodInfo)
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			d := must(protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + m.Name))).(protoreflect.MethodDescriptor)
			m.IsClientStream, m.IsServerStream = d.IsStreamingClient(), d.IsStreamingServer()
			all["/"+service+"/"+m.Name] = m
		}
	}
	return all
}

// openMethods is what needs no key: health, and nothing else.
var openMethods = map[string]bool{
	"/grpc.health.v1.Health/Check": true,
	"/grpc.health.v1.Health/List":  true,
	"/grpc.health.v1.Health/Watch": true,
}

// TestEveryMethodHasAPermission: a method that is registered has a row, a row
// has a method, and only health is open.
func TestEveryMethodHasAPermission(t *testing.T) {
	s := serve(t, nil)
	registered, table := methodsOf(s.api.server), permissions()
	for name := range registered {
		p, ok := table[name]
		switch {
		case !ok:
			t.Errorf("%s has no permission", name)
		case p.open != openMethods[name]:
			t.Errorf("%s: open is %v", name, p.open)
		case !p.open && p.check == nil:
			t.Errorf("%s has nothing to check", name)
		}
	}
	for name := range table {
		if _, ok := registered[name]; !ok {
			t.Errorf("%s has a permission and is not registered", name)
		}
	}
}

// TestEveryRouteIsAMethod: what HTTP reaches is a registered method of the table
// that takes one message, and every unary method of the API is reached by HTTP.
func TestEveryRouteIsAMethod(t *testing.T) {
	s := serve(t, nil)
	registered := methodsOf(s.api.server)
	routed := make(map[string]bool)
	for _, r := range s.api.gateway.routes {
		m, ok := registered[r.fullMethod]
		if !ok || m.IsClientStream || m.IsServerStream != r.stream {
			t.Errorf("%s %s leads to %s, which takes more than one message, or isn't registered", r.method, r.template, r.fullMethod)
		}
		if _, ok := permissions()[r.fullMethod]; !ok {
			t.Errorf("%s %s leads to %s, which has no permission", r.method, r.template, r.fullMethod)
		}
		routed[r.fullMethod] = true
	}
	for name, m := range registered {
		if strings.HasPrefix(name, "/gridloom.") && !m.IsClientStream && !m.IsServerStream && !routed[name] {
			t.Errorf("%s is not reached by HTTP", name)
		}
	}
}

// TestNothingIsOpen calls everything without a key, over gRPC and HTTP.
func TestNothingIsOpen(t *testing.T) {
	s := serve(t, nil)
	for name, m := range methodsOf(s.api.server) {
		err := callAnything(t.Context(), s.bare, name, m)
		if openMethods[name] {
			if status.Code(err) == codes.Unauthenticated {
				t.Errorf("%s asks for a key", name)
			}
			continue
		}
		checkStatus(t, name, err, fault.Unauthenticated, "")
	}
	for _, r := range s.api.gateway.routes {
		url := s.open.URL + strings.NewReplacer("{bucket}", "photos", "{name}", "b", "{id}", "c").Replace(r.template)
		resp, err := http.DefaultClient.Do(must(http.NewRequestWithContext(t.Context(), r.method, url, nil)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s without a principal: %s", r.method, url, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// callAnything calls a method with an empty message.
func callAnything(ctx context.Context, conn *grpc.ClientConn, name string, m grpc.MethodInfo) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !m.IsClientStream && !m.IsServerStream {
		return conn.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && err != io.EOF {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// TestMethodWithoutPermission: a row that is missing closes the method, also
// for root.
func TestMethodWithoutPermission(t *testing.T) {
	g := &guard{permissions: permissions()}
	delete(g.permissions, pb.ClusterService_GetCluster_FullMethodName)
	ctx := iam.WithPrincipal(t.Context(), iam.Principal{ID: "root", Root: true})
	if _, err := g.permit(ctx, pb.ClusterService_GetCluster_FullMethodName); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("permit: %v", err)
	}
}

// membershipMethods are what changes which nodes and drives there are.
var membershipMethods = []string{
	pb.ClusterService_JoinNode_FullMethodName, pb.ClusterService_LeaveNode_FullMethodName,
	pb.ClusterService_ReplaceNode_FullMethodName, pb.ClusterService_DrainNode_FullMethodName,
	pb.StorageService_DrainDrive_FullMethodName, pb.StorageService_ReplaceDrive_FullMethodName,
	pb.StorageService_DrainPool_FullMethodName, pb.StorageService_Rebalance_FullMethodName, pb.StorageService_StartHeal_FullMethodName,
}

// TestNobodysPermission: a principal who may do nothing is refused every
// method, whatever the message is, before anything else is looked at.
func TestNobodysPermission(t *testing.T) {
	nobody := iam.Principal{ID: "nobody"}
	messages := map[string][]any{
		pb.BucketService_CreateBucket_FullMethodName: {&pb.CreateBucketRequest{Bucket: "photos"}},
		pb.BucketService_GetBucket_FullMethodName:    {&pb.GetBucketRequest{Bucket: "photos"}},
		pb.BucketService_DeleteBucket_FullMethodName: {&pb.DeleteBucketRequest{Bucket: "photos"}},

		pb.BucketService_GetBucketUsage_FullMethodName: {&pb.GetBucketUsageRequest{Bucket: "photos"}},
		pb.BucketService_SetBucketQuota_FullMethodName: {&pb.SetBucketQuotaRequest{Bucket: "photos"}},
		pb.ObjectService_PutObject_FullMethodName: {
			&pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "photos", Key: "a"}}},
		},
		pb.ObjectService_GetObject_FullMethodName:     {&pb.GetObjectRequest{}, &pb.GetObjectRequest{Bucket: "photos", Key: "a"}},
		pb.ObjectService_StatObject_FullMethodName:    {&pb.StatObjectRequest{Bucket: "photos", Key: "a"}},
		pb.ObjectService_ListObjects_FullMethodName:   {&pb.ListObjectsRequest{Bucket: "photos"}},
		pb.ObjectService_StreamObjects_FullMethodName: {&pb.StreamObjectsRequest{Bucket: "photos"}},
		pb.ObjectService_DeleteObject_FullMethodName:  {&pb.DeleteObjectRequest{Bucket: "photos", Key: "a"}},
		pb.ObjectService_DeleteObjects_FullMethodName: {
			&pb.DeleteObjectsRequest{}, &pb.DeleteObjectsRequest{Bucket: "photos", Keys: []string{"a", "b"}},
		},
		pb.ObjectService_CopyObject_FullMethodName: {&pb.CopyObjectRequest{Bucket: "photos", Key: "a", SourceKey: "b"}},
		pb.ObjectService_MoveObject_FullMethodName: {&pb.MoveObjectRequest{Bucket: "photos", Key: "a", SourceKey: "b"}},
		pb.IAMService_CreateKey_FullMethodName: {
			&pb.CreateKeyRequest{}, &pb.CreateKeyRequest{Service: true}, &pb.CreateKeyRequest{User: "nobody", Service: true},
		},
		pb.IAMService_ListKeys_FullMethodName: {&pb.ListKeysRequest{}, &pb.ListKeysRequest{User: "nobody"}},
	}
	for _, method := range membershipMethods {
		if err := permissions()[method].check(iam.Principal{ID: "root", Root: true}, nil); err != nil {
			t.Errorf("%s as root: %v", method, err)
		}
	}
	for method, p := range permissions() {
		if p.open {
			continue
		}
		tries := messages[method]
		if tries == nil {
			tries = []any{nil}
		}
		for _, m := range tries {
			if err := p.check(nobody, m); fault.KindOf(fault.Wrap(fault.PermissionDenied, "", err)) != fault.PermissionDenied || err == nil {
				t.Errorf("%s with %v: %v", method, m, err)
			}
		}
	}
}
