package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/internal/bench"
	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/iam"
)

// bucket is the one that all keys are in.
const bucket = "bench"

// serveGridloom runs a node of a mesh of three.
func serveGridloom(c *memberConfig) (*bench.Served, error) {
	key, err := iam.ParseCredential(c.Key)
	if err != nil {
		return nil, err
	}
	secret, err := iam.ParseMeshSecret(c.Secret)
	if err != nil {
		return nil, err
	}
	cfg := node.Config{
		Name: c.Self.Name, DataDir: filepath.Join(c.Dir, "data"), Drives: []string{filepath.Join(c.Dir, "drive")},
		GRPC: node.ListenerConfig{Addr: c.Self.Client}, HTTP: node.ListenerConfig{Addr: "127.0.0.1:0"},
		Peer:        node.ListenerConfig{Addr: c.Self.Peer},
		RootKeys:    func() []iam.Credential { return []iam.Credential{key} },
		MeshSecrets: func() [][]byte { return [][]byte{secret} },
		Version:     "bench",
	}
	for _, e := range c.All {
		cfg.Peers = append(cfg.Peers, node.Peer{Name: e.Name, URL: "http://" + e.Peer})
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.Open(ctx, cfg, log)
	if err != nil {
		cancel()
		return nil, err
	}
	failed, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		err := n.Run(ctx)
		if ctx.Err() == nil {
			failed <- errors.Join(errors.New("the node stopped"), err)
		}
		ended <- err
	}()
	return &bench.Served{Ready: n.Ready(), Failed: failed, Close: func() error {
		cancel()
		return errors.Join(<-ended, n.Close())
	}}, nil
}

// gridloomClient is a connection to a node by its public API.
type gridloomClient struct {
	conn    *grpc.ClientConn
	buckets gridloomv1.BucketServiceClient
	objects gridloomv1.ObjectServiceClient
	cluster gridloomv1.ClusterServiceClient
}

func dialGridloom(addr, key string) (client, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer("Bearer "+key)))
	if err != nil {
		return nil, err
	}
	return &gridloomClient{
		conn, gridloomv1.NewBucketServiceClient(conn), gridloomv1.NewObjectServiceClient(conn), gridloomv1.NewClusterServiceClient(conn),
	}, nil
}

// bearer sends the key with every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return false }

func (c *gridloomClient) prepare(ctx context.Context) error {
	_, err := c.buckets.CreateBucket(ctx, &gridloomv1.CreateBucketRequest{Bucket: bucket})
	return err
}

func (c *gridloomClient) put(ctx context.Context, key string, value []byte) error {
	s, err := c.objects.PutObject(ctx)
	if err != nil {
		return err
	}
	size := int64(len(value))
	header := &gridloomv1.PutObjectHeader{Bucket: bucket, Key: key, Size: &size, Content: value}
	err = s.Send(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Header{Header: header}})
	if err != nil && err != io.EOF { // of which CloseAndRecv has the reason
		return err
	}
	resp, err := s.CloseAndRecv()
	if err == nil && resp.GetObject().GetSize() != size {
		err = fmt.Errorf("%d of %d bytes were stored", resp.GetObject().GetSize(), size)
	}
	return err
}

func (c *gridloomClient) get(ctx context.Context, key string) ([]byte, error) {
	s, err := c.objects.GetObject(ctx, &gridloomv1.GetObjectRequest{Bucket: bucket, Key: key, ContentInHeader: true})
	if err != nil {
		return nil, err
	}
	var value []byte
	for {
		msg, err := s.Recv()
		if err == io.EOF {
			return value, nil
		}
		if err != nil {
			return nil, err
		}
		for _, part := range [][]byte{msg.GetHeader().GetContent(), msg.GetChunk()} {
			if value == nil {
				value = part
			} else {
				value = append(value, part...)
			}
		}
	}
}

func (c *gridloomClient) stat(ctx context.Context, key string) error {
	resp, err := c.objects.StatObject(ctx, &gridloomv1.StatObjectRequest{Bucket: bucket, Key: key})
	if err == nil && resp.GetObject().GetKey() != key {
		err = fmt.Errorf("%q is described as %q", key, resp.GetObject().GetKey())
	}
	return err
}

func (c *gridloomClient) leads(ctx context.Context) (bool, error) {
	resp, err := c.cluster.GetCluster(ctx, &gridloomv1.GetClusterRequest{})
	return err == nil && leaderOf(resp) == resp.GetNode(), err
}

// leaderOf names the node that leads the records' group, "" while none is known.
func leaderOf(resp *gridloomv1.GetClusterResponse) string {
	for _, g := range resp.GetGroups() {
		if g.GetName() == "data-1" {
			return g.GetLeader()
		}
	}
	return ""
}

func (c *gridloomClient) close() error { return c.conn.Close() }
