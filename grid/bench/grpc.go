package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// rawCodec passes bytes through: messages are *[]byte.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("message is %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("message is %T", v)
	}
	*b = data.Materialize()
	return nil
}

const grpcEcho, grpcSink = "/bench/Echo", "/bench/Sink"

// grpcService is what the handler functions are registered with.
type grpcService interface{ isBench() }

type grpcBench struct{}

func (grpcBench) isBench() {}

func grpcServiceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "bench",
		HandlerType: (*grpcService)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				req := new([]byte)
				return req, decode(req)
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Sink",
			ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				for count := uint64(0); ; count++ {
					var msg []byte
					switch err := stream.RecvMsg(&msg); err {
					case nil:
					case io.EOF:
						msg = binary.LittleEndian.AppendUint64(nil, count)
						return stream.SendMsg(&msg)
					default:
						return err
					}
				}
			},
		}},
	}
}

type grpcServer struct {
	s      *grpc.Server
	listen string
	served chan error
}

func serveGRPC(setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	g := &grpcServer{
		s:      grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{})),
		listen: ln.Addr().String(),
		served: make(chan error, 1),
	}
	g.s.RegisterService(grpcServiceDesc(), grpcBench{})
	go func() { g.served <- g.s.Serve(ln) }()
	return g, nil
}

func (g *grpcServer) addr() string { return g.listen }

func (g *grpcServer) close() error {
	g.s.Stop()
	return <-g.served
}

type grpcClient struct{ conn *grpc.ClientConn }

func dialGRPC(_ context.Context, _ setup, addr string) (client, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	return &grpcClient{conn}, nil
}

func (c *grpcClient) caller(context.Context) (caller, error) {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		var resp []byte
		err := c.conn.Invoke(ctx, grpcEcho, &req, &resp)
		return resp, err
	}, nil
}

func (c *grpcClient) flow(ctx context.Context) (flow, error) {
	st, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, grpcSink)
	if err != nil {
		return nil, err
	}
	return &grpcFlow{st}, nil
}

func (c *grpcClient) close() error { return c.conn.Close() }

type grpcFlow struct{ st grpc.ClientStream }

func (f *grpcFlow) send(msg []byte) error { return f.st.SendMsg(&msg) }

func (f *grpcFlow) finish() (int64, error) {
	if err := f.st.CloseSend(); err != nil {
		return 0, err
	}
	var msg []byte
	if err := f.st.RecvMsg(&msg); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(msg)), nil
}
