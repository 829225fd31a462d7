package api

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/fault"
)

// inProcess is how the gateway calls the services: a grpc.ClientConnInterface
// without a wire. The caller's context comes through as it is, with the
// principal that the HTTP listener put there, and with its deadline; metadata
// of the request doesn't, in either direction. Errors keep their kind. Of streams
// it has those of the server alone, which answer one message.
//
// It is filled by the same RegisterService calls as the gRPC server, and only
// read after that.
type inProcess struct {
	interceptor grpc.UnaryServerInterceptor
	guarded     streamInterceptor
	methods     map[string]inProcessMethod
	streams     map[string]inProcessStreamMethod
}

// streamInterceptor stands before a stream's handler, serve, with its only
// message.
type streamInterceptor func(ctx context.Context, req any, method string, serve func(context.Context) error) error

type inProcessMethod struct {
	service any
	handler grpc.MethodHandler
}

type inProcessStreamMethod struct {
	service any
	handler grpc.StreamHandler
}

func newInProcess(interceptor grpc.UnaryServerInterceptor, guarded streamInterceptor) *inProcess {
	return &inProcess{
		interceptor: interceptor, guarded: guarded,
		methods: make(map[string]inProcessMethod), streams: make(map[string]inProcessStreamMethod),
	}
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *inProcess) RegisterService(desc *grpc.ServiceDesc, service any) {
	for _, m := range desc.Methods {
		c.methods["/"+desc.ServiceName+"/"+m.MethodName] = inProcessMethod{service, m.Handler}
	}
	for _, s := range desc.Streams {
		if s.ServerStreams && !s.ClientStreams {
			c.streams["/"+desc.ServiceName+"/"+s.StreamName] = inProcessStreamMethod{service, s.Handler}
		}
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

// NewStream implements grpc.ClientConnInterface. The handler runs from CloseSend
// on, in a goroutine of its own, until it returns; ctx ends it.
func (c *inProcess) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	m, ok := c.streams[method]
	if !ok {
		return nil, fault.New(fault.Unimplemented, method, "streams to the node have no JSON form")
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	return &inProcessStream{ctx: ctx, conn: c, name: method, method: m, messages: make(chan proto.Message), ended: make(chan struct{})}, nil
}

// inProcessStream is the client's end of a stream. One goroutine uses it.
type inProcessStream struct {
	ctx      context.Context
	conn     *inProcess
	name     string
	method   inProcessStreamMethod
	request  proto.Message
	first    proto.Message // received by Header
	messages chan proto.Message
	ended    chan struct{} // closed when the handler has returned err
	err      error
}

// SendMsg implements grpc.ClientStream.
func (s *inProcessStream) SendMsg(m any) error {
	s.request = m.(proto.Message)
	return nil
}

// CloseSend implements grpc.ClientStream.
func (s *inProcessStream) CloseSend() error {
	go func() {
		defer close(s.ended)
		s.err = s.conn.guarded(s.ctx, s.request, s.name, func(ctx context.Context) error {
			return s.method.handler(s.method.service, &inProcessServer{ctx: ctx, s: s})
		})
	}()
	return nil
}

// Header implements grpc.ClientStream. It waits for the first message, so that an
// error before that is the answer and not its first line.
func (s *inProcessStream) Header() (metadata.MD, error) {
	var err error
	if s.first, err = s.receive(); err == io.EOF {
		err = nil
	}
	return nil, err
}

// RecvMsg implements grpc.ClientStream.
func (s *inProcessStream) RecvMsg(m any) error {
	got := s.first
	if s.first = nil; got == nil {
		var err error
		if got, err = s.receive(); err != nil {
			return err
		}
	}
	proto.Merge(m.(proto.Message), got)
	return nil
}

func (s *inProcessStream) receive() (proto.Message, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case <-s.ended:
	}
	if s.err != nil {
		return nil, s.err
	}
	return nil, io.EOF
}

// Trailer implements grpc.ClientStream.
func (s *inProcessStream) Trailer() metadata.MD { return nil }

// Context implements grpc.ClientStream.
func (s *inProcessStream) Context() context.Context { return s.ctx }

// inProcessServer is the handler's end.
type inProcessServer struct {
	ctx  context.Context
	s    *inProcessStream
	read bool
}

// RecvMsg implements grpc.ServerStream.
func (s *inProcessServer) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	proto.Merge(m.(proto.Message), s.s.request)
	return nil
}

// SendMsg implements grpc.ServerStream. It returns when the client takes the
// message, and so the handler is never ahead of it.
func (s *inProcessServer) SendMsg(m any) error {
	select {
	case s.s.messages <- proto.Clone(m.(proto.Message)):
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// SetHeader, SendHeader and SetTrailer implement grpc.ServerStream: no metadata
// leaves.
func (s *inProcessServer) SetHeader(metadata.MD) error  { return nil }
func (s *inProcessServer) SendHeader(metadata.MD) error { return nil }
func (s *inProcessServer) SetTrailer(metadata.MD)       {}

// Context implements grpc.ServerStream.
func (s *inProcessServer) Context() context.Context { return s.ctx }
