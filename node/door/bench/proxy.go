//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gridloom/gridloom/internal/bench"
)

// bareProxy connects whoever comes with one address, and has the kernel move the
// bytes between them, by splice. It reads no request, and knows no key and no
// index: it is what a node without a copy could reach at most on this machine.
type bareProxy struct {
	to       string
	listener net.Listener
	ctx      context.Context // ends every connection
	conns    sync.WaitGroup
}

// serveBareProxy runs one.
func serveBareProxy(c *serverConfig) (*bench.Served, error) {
	l, err := net.Listen("tcp", c.HTTP)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &bareProxy{to: c.To, listener: l, ctx: ctx}
	ready, failed := make(chan struct{}), make(chan error, 1)
	close(ready)
	p.conns.Go(func() {
		if err := p.accept(); ctx.Err() == nil {
			failed <- err
		}
	})
	return &bench.Served{Ready: ready, Failed: failed, Close: func() error {
		cancel()
		err := l.Close()
		p.conns.Wait()
		return err
	}}, nil
}

func (p *bareProxy) accept() error {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return err
		}
		p.conns.Go(func() { _ = p.connect(client) }) // the client sees it end
	}
}

// connect moves bytes both ways until either end closes.
func (p *bareProxy) connect(client net.Conn) error {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", p.to)
	if err != nil {
		return err
	}
	end := func() { _ = errors.Join(client.Close(), server.Close()) }
	defer context.AfterFunc(p.ctx, end)()
	defer end()
	requests := make(chan error, 1)
	go func() {
		_, err := io.Copy(server, client)
		end()
		requests <- err
	}()
	_, err = io.Copy(client, server)
	end()
	return errors.Join(err, <-requests)
}

// proxy gives the bare proxy that leads to an address.
func (l *lab) proxy(ctx context.Context, to string) (*server, error) {
	if s, ok := l.kept["proxy"]; ok {
		return s.(*server), nil
	}
	addrs, err := bench.Reserve(1)
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, serverConfig{Kind: "splice", Name: "proxy", Dir: l.dir + "/proxy", HTTP: addrs[0], To: to})
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, s.Close)
	l.kept["proxy"] = s
	l.up = append(l.up, s)
	_, err = s.Wait()
	return s, err
}

// together are several that are measured as one.
type together []measured

func (t together) processes() (all []process, err error) {
	for _, m := range t {
		some, err := m.processes()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
