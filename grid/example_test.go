package grid_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// exampleNodes starts two nodes on loopback that know each other. In a
// program of yours each is a process of its own.
func exampleNodes(change func(*grid.ManagerOptions)) (a, b *grid.Manager, stop func()) {
	var listeners []net.Listener
	var hosts []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		listeners = append(listeners, ln)
		hosts = append(hosts, "http://"+ln.Addr().String())
	}
	var nodes []*grid.Manager
	var servers []*http.Server
	for i, ln := range listeners {
		o := grid.ManagerOptions{
			Local:   hosts[i],
			Hosts:   hosts,
			Secrets: func() [][]byte { return [][]byte{[]byte("32 bytes that every node knows..")} },
		}
		if change != nil {
			change(&o)
		}
		m, err := grid.NewManager(context.Background(), o)
		if err != nil {
			log.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(grid.RoutePath, m.Handler())
		server := &http.Server{Handler: mux}
		go server.Serve(ln)
		nodes, servers = append(nodes, m), append(servers, server)
	}
	return nodes[0], nodes[1], func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for i, m := range nodes {
			_ = m.Close(ctx)
			_ = servers[i].Close()
		}
	}
}

func Example() {
	a, b, stop := exampleNodes(nil)
	defer stop()

	const greet grid.HandlerID = 1000
	err := b.Register(grid.Handler{ID: greet, Name: "greet", Single: func(ctx context.Context, req []byte) ([]byte, error) {
		return fmt.Appendf(nil, "hello, %s", req), nil
	}})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	answer, err := c.Request(ctx, greet, []byte("grid"))
	fmt.Println(string(answer), err)
	// Output: hello, grid <nil>
}

// A handler's error arrives with its code; the grid's own failures are
// recognised with errors.Is.
func ExampleRemoteError() {
	a, b, stop := exampleNodes(nil)
	defer stop()
	ctx := context.Background()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}

	_ = b.Register(grid.Handler{ID: 1000, Name: "find", Single: func(context.Context, []byte) ([]byte, error) {
		return nil, &grid.RemoteError{Code: 404, Message: "no such thing"}
	}})
	_, err := c.Request(ctx, 1000, nil)
	var remote *grid.RemoteError
	fmt.Println(errors.As(err, &remote), remote.Code, remote.Message)

	_, err = c.Request(ctx, 1001, nil)
	fmt.Println(errors.Is(err, grid.ErrUnknownHandler), grid.NotExecuted(err))
	// Output:
	// true 404 no such thing
	// true true
}

// A stream by channels: close Requests to end the input, read Responses to
// their end.
func ExampleConnection_NewStream() {
	a, b, stop := exampleNodes(nil)
	defer stop()
	_ = b.Register(grid.Handler{ID: 1000, Name: "square", Stream: &grid.StreamHandler{
		InCapacity: 16, OutCapacity: 16,
		Handle: func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				out <- []byte{msg[0] * msg[0]}
			}
			return ctx.Err() // in closes on a loss, too: say so
		},
	}})

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // leaves the stream, however far it got
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	stream, err := c.NewStream(ctx, 1000, nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		defer close(stream.Requests)
		for i := range byte(4) {
			stream.Requests <- []byte{i}
		}
	}()
	for r := range stream.Responses {
		fmt.Println(r.Msg, r.Err)
	}
	// Output:
	// [0] <nil>
	// [1] <nil>
	// [4] <nil>
	// [9] <nil>
}

// The same in pull form, without goroutines and channels between.
func ExampleConnection_OpenPipe() {
	a, b, stop := exampleNodes(nil)
	defer stop()
	_ = b.Register(grid.Handler{ID: 1000, Name: "count", Stream: &grid.StreamHandler{
		OutCapacity: 64,
		Pull: func(ctx context.Context, payload []byte, p *grid.Pipe) error {
			for i := range payload[0] {
				if err := p.Send(ctx, []byte{i}); err != nil {
					return err
				}
			}
			return nil
		},
	}})

	ctx := context.Background()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	p, err := c.OpenPipe(ctx, 1000, []byte{3})
	if err != nil {
		log.Fatal(err)
	}
	for {
		msg, err := p.Recv(ctx)
		if err == io.EOF {
			fmt.Println("end")
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(msg)
	}
	// Output:
	// [0]
	// [1]
	// [2]
	// end
}

// Mutual TLS: the listener verifies client certificates, TLS in the options
// is for dialling, and no secret is needed. Each name is checked against the
// certificate that its node shows, in both directions.
func ExampleManagerOptions_tls() {
	var certificate tls.Certificate // with this node's host name or address in it
	server := &http.Server{TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// ClientCAs: the authority of all nodes
	}}
	m, err := grid.NewManager(context.Background(), grid.ManagerOptions{
		Local: "https://10.0.0.1:7402",
		Hosts: []string{"https://10.0.0.1:7402"},
		TLS:   &tls.Config{Certificates: []tls.Certificate{certificate}}, // RootCAs likewise
	})
	if err != nil {
		log.Fatal(err)
	}
	server.Handler = m.Handler()
	fmt.Println(m.Local(), m.Close(context.Background()))
	// Output: https://10.0.0.1:7402 <nil>
}

// Close drains: calls under way finish, new ones fail at once and say that
// they were not executed.
func ExampleManager_Close() {
	a, b, stop := exampleNodes(nil)
	defer stop()
	entered := make(chan struct{})
	_ = b.Register(grid.Handler{ID: 1000, Name: "slow", Single: func(ctx context.Context, _ []byte) ([]byte, error) {
		close(entered)
		select {
		case <-time.After(10 * time.Millisecond):
			return []byte("finished"), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	ctx := context.Background()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	answer := make(chan string)
	go func() {
		resp, err := c.Request(ctx, 1000, nil)
		answer <- fmt.Sprint(string(resp), " ", err)
	}()
	<-entered
	go b.Close(ctx)
	fmt.Println(<-answer)
	// Output: finished <nil>
}

// Hooks see every call; metadata travels with it.
func ExampleHooks() {
	served := make(chan string, 1)
	a, b, stop := exampleNodes(func(o *grid.ManagerOptions) {
		o.Hooks.CallStart = func(ctx context.Context, call grid.CallInfo) context.Context {
			return grid.WithMetadata(ctx, grid.Metadata{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
		}
		o.Hooks.ServeEnd = func(ctx context.Context, call grid.CallInfo, r grid.CallResult) {
			served <- fmt.Sprint(call.Name, " ", call.Size, " bytes, ", grid.MetadataFrom(ctx)["traceparent"][:6])
		}
	})
	defer stop()
	_ = b.Register(grid.Handler{ID: 1000, Name: "echo", Single: func(_ context.Context, req []byte) ([]byte, error) { return req, nil }})
	ctx := context.Background()
	c := a.Connection(b.Local())
	if err := c.WaitConnected(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Request(ctx, 1000, []byte("observed")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-served)
	fmt.Println(c.Stats().State, c.Stats().Sessions)
	// Output:
	// echo 8 bytes, 00-0af
	// connected 1
}
