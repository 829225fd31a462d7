//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gridloom/gridloom/internal/bench"
	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/iam"
)

// serveGridloom runs a node, as `gridloom serve` does but for one limit: one
// identity may make as many requests as it can, since one makes all of them here.
func serveGridloom(c *serverConfig) (*bench.Served, error) {
	key, err := iam.ParseCredential(c.Key)
	if err != nil {
		return nil, err
	}
	secret, err := iam.ParseMeshSecret(c.Secret)
	if err != nil {
		return nil, err
	}
	cfg := node.Config{
		Name: c.Name, DataDir: filepath.Join(c.Dir, "data"), Pool: c.Pool,
		GRPC: node.ListenerConfig{Addr: c.GRPC}, HTTP: node.ListenerConfig{Addr: c.HTTP, Auto: c.TLS},
		Peer:        node.ListenerConfig{Addr: c.Peer},
		RootKeys:    func() []iam.Credential { return []iam.Credential{key} },
		MeshSecrets: func() [][]byte { return [][]byte{secret} },
		Limits:      node.Limits{Requests: 10_000_000},
		Version:     "bench",
	}
	for i := range c.Drives {
		cfg.Drives = append(cfg.Drives, filepath.Join(c.Dir, fmt.Sprintf("drive-%d", i+1)))
	}
	for name, addr := range c.Peers {
		cfg.Peers = append(cfg.Peers, node.Peer{Name: name, URL: "http://" + addr})
	}
	slices.SortFunc(cfg.Peers, func(a, b node.Peer) int { return strings.Compare(a.Name, b.Name) })
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
