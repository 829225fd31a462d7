//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/internal/bench"
)

// bareChunk is what the bare server puts into a message.
const bareChunk = 256 * kib

// bareServer streams the same bytes from memory, whatever it is asked for.
type bareServer struct {
	gridloomv1.UnimplementedObjectServiceServer
	content []byte
}

// GetObject implements gridloomv1.ObjectServiceServer.
func (b *bareServer) GetObject(_ *gridloomv1.GetObjectRequest, to grpc.ServerStreamingServer[gridloomv1.GetObjectResponse]) error {
	header := &gridloomv1.GetObjectHeader{}
	if err := to.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Header{Header: header}}); err != nil {
		return err
	}
	for rest := b.content; len(rest) > 0; {
		chunk := rest[:min(bareChunk, len(rest))]
		rest = rest[len(chunk):]
		if err := to.Send(&gridloomv1.GetObjectResponse{Part: &gridloomv1.GetObjectResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

// serveBareGRPC runs a grpc-go server by its defaults.
func serveBareGRPC(c *serverConfig) (*bench.Served, error) {
	content := make([]byte, c.Size)
	if _, err := io.ReadFull(newContent("grpc", c.Size), content); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.GRPC)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	gridloomv1.RegisterObjectServiceServer(s, &bareServer{content: content})
	ready, failed := make(chan struct{}), make(chan error, 1)
	close(ready)
	go func() { failed <- s.Serve(l) }()
	return &bench.Served{Ready: ready, Failed: failed, Close: func() error { s.Stop(); return nil }}, nil
}

// openGRPC has one node and the bare server, with the same client for both.
func openGRPC(ctx context.Context, l *lab, r *row) ([]contender, error) {
	node, err := l.single(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, node, r.size); err != nil {
		return nil, err
	}
	bare, err := l.bare(ctx, r.size)
	if err != nil {
		return nil, err
	}
	g := streamer{lab: l, row: r, name: "gridloom", addr: node.configs[0].GRPC, key: node.key, servers: node, cluster: node}
	b := g
	b.name, b.addr, b.servers, b.cluster = "bare grpc-go", bare.GRPC, bare, nil
	return []contender{{g.name, g.run}, {b.name, b.run}}, nil
}

// bare gives the bare gRPC server.
func (l *lab) bare(ctx context.Context, size int64) (*server, error) {
	if s, ok := l.kept["bare"]; ok {
		return s.(*server), nil
	}
	addrs, err := bench.Reserve(1)
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, serverConfig{Kind: "grpc", Name: "bare", Dir: l.dir + "/bare", GRPC: addrs[0], Size: size})
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, s.Close)
	l.kept["bare"] = s
	l.up = append(l.up, s)
	_, err = s.Wait()
	return s, err
}

// streamer is GetObject over gRPC.
type streamer struct {
	lab     *lab
	row     *row
	name    string
	addr    string
	key     string
	servers measured
	cluster *cluster // that can be profiled; nil: none
}

func (g *streamer) run(ctx context.Context) (s sample, err error) {
	p := g.lab.plan
	ctx, cancel := context.WithTimeoutCause(ctx, p.warm+p.time+slack, errSlow)
	defer cancel()
	m, err := g.lab.meter(g.servers)
	if err != nil {
		return nil, err
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	if g.cluster != nil {
		stop, err := g.cluster.profile(p.profiles, g.row.id, g.name)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	var bytes atomic.Int64
	var clients sync.WaitGroup
	failed := make(chan error, g.row.conns)
	running, end := context.WithCancel(ctx)
	defer clients.Wait()
	defer end()
	for range g.row.conns {
		conn, err := grpc.NewClient("passthrough:///"+g.addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer("Bearer "+g.key)))
		if err != nil {
			return nil, err
		}
		clients.Go(func() {
			defer func() { _ = conn.Close() }()
			for running.Err() == nil {
				if err := g.get(running, conn, &bytes); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	w, err := measure(ctx, bytes.Load, failed, p.warm, p.time, m.start, m.stop)
	if err != nil {
		return nil, err
	}
	return m.sample(w.bytes, g.row.size, w.took)
}

// get reads one object, and counts its bytes as they come.
func (g *streamer) get(ctx context.Context, conn *grpc.ClientConn, bytes *atomic.Int64) error {
	key := sizeName(g.row.size) + "/000"
	stream, err := gridloomv1.NewObjectServiceClient(conn).GetObject(ctx, &gridloomv1.GetObjectRequest{Bucket: bucket, Key: key})
	if err != nil {
		return err
	}
	var got int64
	for {
		msg, err := stream.Recv()
		switch {
		case err == io.EOF && got != g.row.size:
			return fmt.Errorf("%s: %d of %d bytes", g.name, got, g.row.size)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", g.name, err)
		}
		n := int64(len(msg.GetChunk()) + len(msg.GetHeader().GetContent()))
		got += n
		bytes.Add(n)
	}
}

// bearer sends the key with every call.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return false }
