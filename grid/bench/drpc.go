package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcserver"
)

// drpcRaw passes bytes through: messages are *[]byte.
type drpcRaw struct{}

func (drpcRaw) Marshal(msg drpc.Message) ([]byte, error) {
	b, ok := msg.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("message is %T", msg)
	}
	return *b, nil
}

func (drpcRaw) Unmarshal(buf []byte, msg drpc.Message) error {
	b, ok := msg.(*[]byte)
	if !ok {
		return fmt.Errorf("message is %T", msg)
	}
	*b = append((*b)[:0], buf...) // buf is drpc's
	return nil
}

const drpcEcho, drpcSink = "echo", "sink"

type drpcHandler struct{}

// HandleRPC implements drpc.Handler.
func (drpcHandler) HandleRPC(stream drpc.Stream, rpc string) error {
	var msg []byte
	if rpc == drpcEcho {
		if err := stream.MsgRecv(&msg, drpcRaw{}); err != nil {
			return err
		}
		return stream.MsgSend(&msg, drpcRaw{})
	}
	for count := uint64(0); ; count++ {
		err := stream.MsgRecv(&msg, drpcRaw{})
		if errors.Is(err, io.EOF) {
			msg = binary.LittleEndian.AppendUint64(nil, count)
			return stream.MsgSend(&msg, drpcRaw{})
		}
		if err != nil {
			return err
		}
	}
}

func serveDRPC(setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	s := drpcserver.New(drpcHandler{})
	return accept(ln, func(conn net.Conn) { s.ServeOne(context.Background(), conn) }), nil
}

// drpcClient has a connection for each caller and each flow: a connection of
// drpc carries one call at a time.
type drpcClient struct {
	to    string
	mu    sync.Mutex
	conns []*drpcconn.Conn
}

func dialDRPC(_ context.Context, _ setup, addr string) (client, error) {
	return &drpcClient{to: addr}, nil
}

func (c *drpcClient) conn(ctx context.Context) (*drpcconn.Conn, error) {
	raw, err := dialTCP(ctx, c.to)
	if err != nil {
		return nil, err
	}
	conn := drpcconn.New(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn, nil
}

func (c *drpcClient) caller(ctx context.Context) (caller, error) {
	conn, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, req []byte) ([]byte, error) {
		var resp []byte
		err := conn.Invoke(ctx, drpcEcho, drpcRaw{}, &req, &resp)
		return resp, err
	}, nil
}

func (c *drpcClient) flow(ctx context.Context) (flow, error) {
	conn, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	st, err := conn.NewStream(ctx, drpcSink, drpcRaw{})
	if err != nil {
		return nil, err
	}
	return &drpcFlow{st}, nil
}

func (c *drpcClient) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	return nil
}

type drpcFlow struct{ st drpc.Stream }

func (f *drpcFlow) send(msg []byte) error { return f.st.MsgSend(&msg, drpcRaw{}) }

func (f *drpcFlow) finish() (int64, error) {
	if err := f.st.CloseSend(); err != nil {
		return 0, err
	}
	var msg []byte
	if err := f.st.MsgRecv(&msg, drpcRaw{}); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(msg)), f.st.Close()
}
