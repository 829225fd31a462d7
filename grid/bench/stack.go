package main

import (
	"context"
	"errors"
	"net"
	"sync"
)

// stack is one of the things compared: how to serve at the far end and how
// to reach it from the near one. Every stack offers the same two services,
// an echo of one message and a sink of many, in its own idiom.
type stack struct {
	name  string
	about string
	serve func(setup) (farEnd, error)
	dial  func(ctx context.Context, s setup, addr string) (client, error)
}

// setup is what both ends of a measurement must agree on. It travels to the
// peer process as JSON.
type setup struct {
	Stack  string
	Secret []byte
	Cert   []byte // PEM; one certificate for both ends, its own authority
	Key    []byte // PEM
	Heap   int    // MiB that each process holds besides
}

// farEnd serves a stack. It serves until close, which joins what it started.
type farEnd interface {
	addr() string
	close() error
}

// client is the near end. Its methods may be called from many goroutines.
type client interface {
	// caller gives the echo to one goroutine.
	caller(ctx context.Context) (caller, error)
	// flow opens a one-way stream of messages to the sink; errNoFlow where
	// the stack has none.
	flow(ctx context.Context) (flow, error)
	close() error
}

// caller makes one round trip. The answer is valid until the next call.
type caller func(ctx context.Context, req []byte) ([]byte, error)

// flow is used by one goroutine. msg is never changed by the harness.
type flow interface {
	send(msg []byte) error
	// finish ends the flow, waits until the sink has had everything and
	// tells how many messages it counted.
	finish() (int64, error)
}

var errNoFlow = errors.New("has no streams")

// stacks lists everything that can be measured.
func stacks() []stack {
	return []stack{
		{"rawmux", "raw TCP frames, batching writer, handler in the reader", serveRaw(false), dialRaw},
		{"rawmuxgo", "the same with a goroutine per request", serveRaw(true), dialRaw},
		{"rawmux-tls", "rawmux over crypto/tls", serveRaw(false), dialRaw},
		{"grid", "Request; Pipe for streams", serveGrid, dialGrid},
		{"grid-append", "AppendRequest into a reused buffer", serveGrid, dialGrid},
		{"grid-owned", "streams by SendOwned: the sender leaves its memory alone, as grpc and the channel form want it", serveGrid, dialGrid},
		{"grid-handover", "both: streams by SendOwned, with a sink that gives memory back", serveGrid, dialGrid},
		{"grid-recycle", "streams whose sink gives received memory back", serveGrid, dialGrid},
		{"grid-inline", "AppendRequest to a handler declared Inline", serveGrid, dialGrid},
		{"grid-channel", "streams by channels at both ends", serveGrid, dialGrid},
		{"grid-tls", "grid over https", serveGrid, dialGrid},
		{"grpc", "google.golang.org/grpc, raw-bytes codec", serveGRPC, dialGRPC},
		{"drpc", "storj.io/drpc, a connection for each caller", serveDRPC, dialDRPC},
		{"yamux", "hashicorp/yamux, a stream for each request", serveYamux, dialYamux},
		{"ttrpc", "containerd/ttrpc, BytesValue messages", serveTTRPC, dialTTRPC},
		{"netrpc", "net/rpc, gob", serveNetRPC, dialNetRPC},
		{"nats", "nats.go, the server embedded in the peer", serveNATS, dialNATS},
	}
}

func stackNamed(name string) (stack, bool) {
	for _, st := range stacks() {
		if st.name == name {
			return st, true
		}
	}
	return stack{}, false
}

// loopback listens where everything here listens.
func loopback() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// acceptor accepts connections and serves each in a goroutine until close.
type acceptor struct {
	ln    net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
	wg    sync.WaitGroup
}

func accept(ln net.Listener, serve func(net.Conn)) *acceptor {
	a := &acceptor{ln: ln, conns: make(map[net.Conn]struct{})}
	a.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if !a.add(conn) {
				conn.Close()
				return
			}
			a.wg.Go(func() {
				defer a.remove(conn)
				serve(conn)
			})
		}
	})
	return a
}

func (a *acceptor) add(conn net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		return false
	}
	a.conns[conn] = struct{}{}
	return true
}

func (a *acceptor) remove(conn net.Conn) {
	conn.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, conn)
}

func (a *acceptor) addr() string { return a.ln.Addr().String() }

func (a *acceptor) close() error {
	err := a.ln.Close()
	a.mu.Lock()
	for conn := range a.conns {
		conn.Close()
	}
	a.conns = nil
	a.mu.Unlock()
	a.wg.Wait()
	return err
}
