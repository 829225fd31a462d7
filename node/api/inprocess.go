package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/fault"
)

// inProcess is how the gateway calls the services: a grpc.ClientConnInterface
// without a wire. The caller's context comes through as it is, with the
// principal that the HTTP listener put there, and with its deadline; metadata
// of the request doesn't, in either direction. Errors keep their kind. Streams
// are refused: the gateway has none.
//
// It is filled by the same RegisterService calls as the gRPC server, and only
// read after that.
type inProcess struct {
	interceptor grpc.UnaryServerInterceptor
	methods     map[string]inProcessMethod
}

type inProcessMethod struct {
	service any
	handler grpc.MethodHandler
}

func newInProcess(interceptor grpc.UnaryServerInterceptor) *inProcess {
	return &inProcess{interceptor: interceptor, methods: make(map[string]inProcessMethod)}
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *inProcess) RegisterService(desc *grpc.ServiceDesc, service any) {
	for _, m := range desc.Methods {
		c.methods["/"+desc.ServiceName+"/"+m.MethodName] = inProcessMethod{service, m.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface. Messages are copied in and out,
// as a wire would: neither side sees what the other does to them afterwards.
func (c *inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := c.methods[method]
	if !ok {
		return fault.New(fault.Unimplemented, method, "is no unary method")
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	resp, err := m.handler(m.service, ctx, func(in any) error {
		proto.Merge(in.(proto.Message), args.(proto.Message))
		return nil
	}, c.interceptor)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), resp.(proto.Message))
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (c *inProcess) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.New(fault.Unimplemented, method, "streams have no JSON form")
}
