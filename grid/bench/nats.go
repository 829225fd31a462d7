package main

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// nats is a broker: a request goes through the server, which is embedded in
// the peer process together with the client that answers. A publisher is not
// held back by a slow subscriber, so the flow has a window of its own: the
// sink acknowledges every quarter of it.

const (
	natsMaxPayload = 8 << 20
	natsWindow     = 1 << 20 // bytes
)

type natsServer struct {
	s  *server.Server
	nc *nats.Conn
}

func natsOptions() []nats.Option {
	return []nats.Option{nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.NoReconnect()}
}

func serveNATS(setup) (_ farEnd, err error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxPayload: natsMaxPayload})
	if err != nil {
		return nil, err
	}
	s.Start()
	n := &natsServer{s: s}
	if !s.ReadyForConnections(5 * time.Second) {
		return nil, errors.Join(errors.New("nats: not ready"), n.close())
	}
	if n.nc, err = nats.Connect(s.ClientURL(), natsOptions()...); err == nil {
		err = n.subscribe()
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *natsServer) subscribe() error {
	echo, err := n.nc.Subscribe("echo", func(m *nats.Msg) { m.Respond(m.Data) })
	if err != nil {
		return err
	}
	count, bytes, acked := uint64(0), uint64(0), uint64(0) // the subscription's goroutine's
	sink, err := n.nc.Subscribe("sink", func(m *nats.Msg) {
		if len(m.Data) > 0 {
			count++
			bytes += uint64(len(m.Data))
		}
		if len(m.Data) == 0 || bytes-acked >= natsWindow/4 {
			acked = bytes
			m.Respond(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, bytes), count))
		}
		if len(m.Data) == 0 {
			count, bytes, acked = 0, 0, 0
		}
	})
	if err != nil {
		return err
	}
	return errors.Join(echo.SetPendingLimits(-1, -1), sink.SetPendingLimits(-1, -1), n.nc.Flush())
}

func (n *natsServer) addr() string { return n.s.ClientURL() }

func (n *natsServer) close() error {
	if n.nc != nil {
		n.nc.Close()
	}
	n.s.Shutdown()
	n.s.WaitForShutdown()
	return nil
}

type natsClient struct{ nc *nats.Conn }

func dialNATS(_ context.Context, _ setup, addr string) (client, error) {
	nc, err := nats.Connect(addr, natsOptions()...)
	if err != nil {
		return nil, err
	}
	return &natsClient{nc}, nil
}

func (c *natsClient) caller(context.Context) (caller, error) {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		m, err := c.nc.RequestWithContext(ctx, "echo", req)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}, nil
}

func (c *natsClient) flow(ctx context.Context) (flow, error) {
	f := &natsFlow{ctx: ctx, nc: c.nc, inbox: c.nc.NewInbox(), acks: make(chan struct{}, 1), done: make(chan int64, 1)}
	var err error
	f.sub, err = c.nc.Subscribe(f.inbox, func(m *nats.Msg) {
		if len(m.Data) != 16 {
			return // no responders
		}
		f.acked.Store(int64(binary.LittleEndian.Uint64(m.Data)))
		select {
		case f.acks <- struct{}{}:
		default:
		}
		if f.ending.Load() && f.acked.Load() == f.sent {
			select {
			case f.done <- int64(binary.LittleEndian.Uint64(m.Data[8:])):
			default:
			}
		}
	})
	return f, err
}

func (c *natsClient) close() error {
	c.nc.Close()
	return nil
}

type natsFlow struct {
	ctx    context.Context
	nc     *nats.Conn
	sub    *nats.Subscription
	inbox  string
	sent   int64 // bytes; not changed once ending
	acked  atomic.Int64
	ending atomic.Bool
	acks   chan struct{} // a token: acked has moved
	done   chan int64
}

func (f *natsFlow) send(msg []byte) error {
	for f.sent-f.acked.Load() >= natsWindow {
		if err := f.nc.Flush(); err != nil { // a publication waits in the buffer
			return err
		}
		select {
		case <-f.acks:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
	f.sent += int64(len(msg))
	return f.nc.PublishRequest("sink", f.inbox, msg)
}

func (f *natsFlow) finish() (int64, error) {
	f.ending.Store(true)
	if err := f.nc.PublishRequest("sink", f.inbox, nil); err != nil {
		return 0, err
	}
	defer f.sub.Unsubscribe()
	select {
	case n := <-f.done:
		return n, nil
	case <-f.ctx.Done():
		return 0, f.ctx.Err()
	}
}
