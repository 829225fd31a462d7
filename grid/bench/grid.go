package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// The handlers of a node of the harness.
const (
	echoID grid.HandlerID = iota + 1
	echoInlineID
	sinkPullID
	sinkRecycleID
	sinkChannelID
	holdID    // waits for releaseID
	heldID    // how many wait
	releaseID // lets all go
)

// streamWindow is the window of the sinks in messages. In bytes it is the
// grid's default.
const streamWindow = 1024

// gridNode is a manager behind an HTTP server: either end.
type gridNode struct {
	m      *grid.Manager
	http   *http.Server
	ln     net.Listener
	served chan struct{}
	calls  gridCalls
}

// gridCalls is what the hooks count, in the way of a metrics library: a few
// atomic additions for each call.
type gridCalls struct {
	started, ended, failed, bytes atomic.Int64
	elapsed                       atomic.Int64 // ns
}

func (c *gridCalls) start(ctx context.Context, call grid.CallInfo) context.Context {
	c.started.Add(1)
	c.bytes.Add(int64(call.Size))
	return ctx
}

func (c *gridCalls) end(_ context.Context, _ grid.CallInfo, r grid.CallResult) {
	c.ended.Add(1)
	c.bytes.Add(int64(r.Size))
	c.elapsed.Add(int64(r.Duration))
	if r.Err != nil {
		c.failed.Add(1)
	}
}

// newGridNode starts a node as its users get it: CRC and proof by secret,
// hooks on, every option at its default.
func newGridNode(s setup) (*gridNode, error) { return newGridNodeDial(s, nil) }

// newGridNodeDial is newGridNode with a dialler of one's own, unless nil.
func newGridNodeDial(s setup, dial func(context.Context, string) (net.Conn, error)) (*gridNode, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	n := &gridNode{ln: ln, served: make(chan struct{})}
	o := grid.ManagerOptions{
		Local:   "http://" + ln.Addr().String(),
		Secrets: func() [][]byte { return [][]byte{s.Secret} },
		Dial:    dial,
		Hooks: grid.Hooks{
			CallStart: n.calls.start, CallEnd: n.calls.end,
			ServeStart: n.calls.start, ServeEnd: n.calls.end,
		},
	}
	if strings.HasSuffix(s.Stack, "-tls") {
		config, err := serverTLS(s)
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		config.NextProtos = []string{"http/1.1"}
		n.ln = tls.NewListener(ln, config)
		o.Local = "https://" + ln.Addr().String()
		o.TLS = clientTLS(s)
	}
	if n.m, err = grid.NewManager(context.Background(), o); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	mux := http.NewServeMux()
	mux.Handle(grid.RoutePath, n.m.Handler())
	mux.HandleFunc("/introduce", n.introduce)
	n.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(n.served)
		n.http.Serve(n.ln)
	}()
	return n, nil
}

// introduce makes the caller of the URL known to the manager: peers' ports
// are not known before they listen.
func (n *gridNode) introduce(w http.ResponseWriter, r *http.Request) {
	if err := n.m.AddHost(r.URL.Query().Get("host")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (n *gridNode) addr() string { return n.m.Local() }

func (n *gridNode) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err := n.m.Close(ctx)
	err = errors.Join(err, n.http.Close())
	<-n.served
	return err
}

func serveGrid(s setup) (farEnd, error) {
	n, err := newGridNode(s)
	if err != nil {
		return nil, err
	}
	if err := n.register(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *gridNode) register() error {
	echo := func(_ context.Context, req []byte) ([]byte, error) { return req, nil }
	var held atomic.Int64
	gate := make(chan struct{})
	var errs []error
	for _, h := range []grid.Handler{
		{ID: echoID, Name: "echo", Single: echo},
		{ID: echoInlineID, Name: "echo inline", Inline: true, Single: echo},
		{ID: sinkPullID, Name: "sink", Stream: &grid.StreamHandler{Pull: sinkPull, InCapacity: streamWindow, OutCapacity: 1}},
		{ID: sinkRecycleID, Name: "sink recycle", Stream: &grid.StreamHandler{Pull: sinkRecycle, InCapacity: streamWindow, OutCapacity: 1}},
		{ID: sinkChannelID, Name: "sink channel", Stream: &grid.StreamHandler{Handle: sinkChannel, InCapacity: streamWindow, OutCapacity: 1}},
		{ID: holdID, Name: "hold", Single: func(ctx context.Context, req []byte) ([]byte, error) {
			held.Add(1)
			select {
			case <-gate:
				return req, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}},
		{ID: heldID, Name: "held", Single: func(context.Context, []byte) ([]byte, error) {
			return binary.LittleEndian.AppendUint64(nil, uint64(held.Load())), nil
		}},
		{ID: releaseID, Name: "release", MaxConcurrent: 1, Single: func(context.Context, []byte) ([]byte, error) {
			close(gate)
			return nil, nil
		}},
	} {
		errs = append(errs, n.m.Register(h))
	}
	return errors.Join(errs...)
}

func sinkPull(ctx context.Context, _ []byte, p *grid.Pipe) error {
	return sink(ctx, p, func([]byte) {})
}

func sinkRecycle(ctx context.Context, _ []byte, p *grid.Pipe) error {
	return sink(ctx, p, grid.Recycle)
}

func sink(ctx context.Context, p *grid.Pipe, done func([]byte)) error {
	for count := uint64(0); ; count++ {
		msg, err := p.Recv(ctx)
		if err == io.EOF {
			return p.SendOwned(ctx, binary.LittleEndian.AppendUint64(nil, count))
		}
		if err != nil {
			return err
		}
		done(msg)
	}
}

func sinkChannel(ctx context.Context, _ []byte, in <-chan []byte, out chan<- []byte) error {
	count := uint64(0)
	for range in {
		count++
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	out <- binary.LittleEndian.AppendUint64(nil, count)
	return nil
}

type gridClient struct {
	n     *gridNode
	conn  *grid.Connection
	stack string
}

func dialGrid(ctx context.Context, s setup, addr string) (client, error) {
	n, err := newGridNode(s)
	if err != nil {
		return nil, err
	}
	c := &gridClient{n: n, conn: nil, stack: s.Stack}
	if err := c.connect(ctx, s, addr); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return c, nil
}

func (c *gridClient) connect(ctx context.Context, s setup, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr+"/introduce?host="+url.QueryEscape(c.n.m.Local()), nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: clientTLS(s), DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("introduction: %s", resp.Status)
	}
	if err := c.n.m.AddHost(addr); err != nil {
		return err
	}
	c.conn = c.n.m.Connection(addr)
	return c.conn.WaitConnected(ctx)
}

func (c *gridClient) caller(context.Context) (caller, error) {
	if c.stack == "grid" || c.stack == "grid-tls" {
		return func(ctx context.Context, req []byte) ([]byte, error) {
			return c.conn.Request(ctx, echoID, req)
		}, nil
	}
	id := echoID
	if c.stack == "grid-inline" {
		id = echoInlineID
	}
	var dst []byte
	return func(ctx context.Context, req []byte) ([]byte, error) {
		var err error
		dst, err = c.conn.AppendRequest(ctx, id, dst[:0], req)
		return dst, err
	}, nil
}

func (c *gridClient) flow(ctx context.Context) (flow, error) {
	if c.stack == "grid-channel" {
		st, err := c.conn.NewStream(ctx, sinkChannelID, nil)
		if err != nil {
			return nil, err
		}
		return &gridChannelFlow{st}, nil
	}
	id := sinkPullID
	if c.stack == "grid-recycle" || c.stack == "grid-handover" {
		id = sinkRecycleID
	}
	p, err := c.conn.OpenPipe(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	if c.stack == "grid-owned" || c.stack == "grid-handover" {
		return &gridPullFlow{ctx, p, p.SendOwned}, nil
	}
	return &gridPullFlow{ctx, p, p.Send}, nil
}

func (c *gridClient) close() error { return c.n.close() }

type gridPullFlow struct {
	ctx context.Context
	p   *grid.Pipe
	by  func(context.Context, []byte) error // Send or SendOwned
}

func (f *gridPullFlow) send(msg []byte) error { return f.by(f.ctx, msg) }

func (f *gridPullFlow) finish() (int64, error) {
	if err := f.p.CloseSend(); err != nil {
		return 0, err
	}
	msg, err := f.p.Recv(f.ctx)
	if err != nil {
		return 0, err
	}
	if _, err := f.p.Recv(f.ctx); err != io.EOF {
		return 0, fmt.Errorf("after the count: %v", err)
	}
	return int64(binary.LittleEndian.Uint64(msg)), nil
}

type gridChannelFlow struct{ st *grid.Stream }

func (f *gridChannelFlow) send(msg []byte) error {
	select {
	case f.st.Requests <- msg:
		return nil
	case <-f.st.Done():
		return errors.New("the stream has ended")
	}
}

func (f *gridChannelFlow) finish() (int64, error) {
	close(f.st.Requests)
	count := int64(-1)
	for r := range f.st.Responses {
		if r.Err != nil {
			return 0, r.Err
		}
		count = int64(binary.LittleEndian.Uint64(r.Msg))
	}
	return count, nil
}
