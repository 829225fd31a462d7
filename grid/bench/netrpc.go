package main

import (
	"context"
	"net"
	"net/rpc"
)

// NetRPCEcho is the service; net/rpc wants it exported.
type NetRPCEcho struct{}

// Echo answers a message with itself.
func (NetRPCEcho) Echo(req []byte, resp *[]byte) error {
	*resp = req
	return nil
}

func serveNetRPC(setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	s := rpc.NewServer()
	if err := s.Register(NetRPCEcho{}); err != nil {
		return nil, err
	}
	return accept(ln, func(conn net.Conn) { s.ServeConn(conn) }), nil
}

type netRPCClient struct{ c *rpc.Client }

func dialNetRPC(ctx context.Context, _ setup, addr string) (client, error) {
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &netRPCClient{rpc.NewClient(conn)}, nil
}

func (c *netRPCClient) caller(context.Context) (caller, error) {
	return func(_ context.Context, req []byte) ([]byte, error) {
		var resp []byte
		err := c.c.Call("NetRPCEcho.Echo", req, &resp)
		return resp, err
	}, nil
}

func (c *netRPCClient) flow(context.Context) (flow, error) { return nil, errNoFlow }

func (c *netRPCClient) close() error { return c.c.Close() }
