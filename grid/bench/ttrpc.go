package main

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ttrpc takes protobuf messages only: BytesValue is the leanest of them.

const ttrpcService = "bench"

func ttrpcDesc() *ttrpc.ServiceDesc {
	return &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Echo": func(_ context.Context, unmarshal func(any) error) (any, error) {
				req := new(wrapperspb.BytesValue)
				return req, unmarshal(req)
			},
		},
		Streams: map[string]ttrpc.Stream{
			"Sink": {StreamingClient: true, Handler: func(_ context.Context, stream ttrpc.StreamServer) (any, error) {
				for count := uint64(0); ; count++ {
					err := stream.RecvMsg(new(wrapperspb.BytesValue))
					if errors.Is(err, io.EOF) {
						return wrapperspb.UInt64(count), nil
					}
					if err != nil {
						return nil, err
					}
				}
			}},
		},
	}
}

type ttrpcServer struct {
	s      *ttrpc.Server
	listen string
	served chan error
}

func serveTTRPC(setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	s, err := ttrpc.NewServer()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s.RegisterService(ttrpcService, ttrpcDesc())
	t := &ttrpcServer{s: s, listen: ln.Addr().String(), served: make(chan error, 1)}
	go func() { t.served <- s.Serve(context.Background(), ln) }()
	return t, nil
}

func (t *ttrpcServer) addr() string { return t.listen }

func (t *ttrpcServer) close() error {
	err := t.s.Close()
	<-t.served
	if errors.Is(err, net.ErrClosed) {
		err = nil // it closes its listener twice
	}
	return err
}

type ttrpcClient struct{ c *ttrpc.Client }

func dialTTRPC(ctx context.Context, _ setup, addr string) (client, error) {
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &ttrpcClient{ttrpc.NewClient(conn)}, nil
}

func (c *ttrpcClient) caller(context.Context) (caller, error) {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		resp := new(wrapperspb.BytesValue)
		err := c.c.Call(ctx, ttrpcService, "Echo", wrapperspb.Bytes(req), resp)
		return resp.Value, err
	}, nil
}

func (c *ttrpcClient) flow(ctx context.Context) (flow, error) {
	st, err := c.c.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, ttrpcService, "Sink", nil)
	if err != nil {
		return nil, err
	}
	return &ttrpcFlow{st}, nil
}

func (c *ttrpcClient) close() error { return c.c.Close() }

type ttrpcFlow struct{ st ttrpc.ClientStream }

func (f *ttrpcFlow) send(msg []byte) error { return f.st.SendMsg(wrapperspb.Bytes(msg)) }

func (f *ttrpcFlow) finish() (int64, error) {
	if err := f.st.CloseSend(); err != nil {
		return 0, err
	}
	count := new(wrapperspb.UInt64Value)
	err := f.st.RecvMsg(count)
	return int64(count.Value), err
}
