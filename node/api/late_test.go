package api

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// lateSetup gives a mesh with an object, someone who may change it, and what takes
// that away from them.
func lateSetup(t *testing.T) (s *served, bearer string, revoke func()) {
	s = serve(t, nil)
	st := makeStore(t, s)
	if _, err := st.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, []byte("a")); err != nil {
		t.Fatal(err)
	}
	return s, s.keeper.user(t, "eve", "admin:photos"), func() {
		t.Helper()
		if _, err := s.keeper.UpdateUser(t.Context(), iam.User{Name: "eve", Grants: grants("readonly:photos")}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLateMessage: a call is held to the rights of when it says what it wants, and
// not to those of when it was begun.
func TestLateMessage(t *testing.T) {
	s, bearer, revoke := lateSetup(t)
	conn := s.as(t, bearer)
	open := func(method string) grpc.ClientStream {
		t.Helper()
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewIAMServiceClient(conn).WhoAmI(t.Context(), &pb.WhoAmIRequest{}); err != nil { // behind it on the connection
			t.Fatal(err)
		}
		return stream
	}
	remove, put := open(pb.ObjectService_DeleteObject_FullMethodName), open(pb.ObjectService_PutObject_FullMethodName)
	read := open(pb.ObjectService_StatObject_FullMethodName)
	revoke()
	for what, c := range map[string]struct {
		stream  grpc.ClientStream
		message proto.Message
		answer  proto.Message
	}{
		"delete": {remove, &pb.DeleteObjectRequest{Bucket: "photos", Key: "a"}, &pb.DeleteObjectResponse{}},
		"put":    {put, &pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "photos", Key: "b"}}}, &pb.PutObjectResponse{}},
		"stat":   {read, &pb.StatObjectRequest{Bucket: "photos", Key: "a"}, &pb.StatObjectResponse{}},
	} {
		_ = c.stream.SendMsg(c.message)
		_ = c.stream.CloseSend()
		err := c.stream.RecvMsg(c.answer)
		if what == "stat" {
			if err != nil {
				t.Errorf("what is still allowed: %v", err)
			}
			continue
		}
		checkStatus(t, what, err, fault.PermissionDenied, "")
	}
}

// TestLateBody is the same over HTTP, where a body may take its time.
func TestLateBody(t *testing.T) {
	s, bearer, revoke := lateSetup(t)
	in := make(chan struct{})
	front := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := s.keeper.principal(bearer)
		close(in)
		s.api.Gateway().ServeHTTP(w, r.WithContext(iam.WithPrincipal(r.Context(), p)))
	}))
	body, w := io.Pipe()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/v1/buckets/photos/objects:copy", body))
	answers := make(chan string, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		answers <- fmt.Sprint(resp.StatusCode, " ", resp.Header.Get(fault.ReasonHeader))
	}()
	if _, err := w.Write([]byte(`{"key": "b", `)); err != nil {
		t.Fatal(err)
	}
	<-in
	revoke()
	if _, err := w.Write([]byte(`"sourceKey": "a"}`)); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if got := <-answers; got != "403 permission_denied" {
		t.Error(got)
	}
	http.DefaultClient.CloseIdleConnections()
}
