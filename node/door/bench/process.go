//go:build linux

package main

import (
	"context"

	"github.com/gridloom/gridloom/internal/bench"
)

// serverConfig is what a server is told.
type serverConfig struct {
	Kind        string // "gridloom"; "grpc" for the bare one, "splice" for the bare proxy
	Name        string
	Dir         string
	HTTP, GRPC  string // host:port
	Key, Secret string // of a Gridloom mesh
	Peer        string
	Peers       map[string]string // addresses by name; empty: it is alone
	Pool        string
	Drives      int
	TLS         bool   // on HTTP
	Size        int64  // of what the bare one streams
	To          string // where the bare proxy leads
}

// serve runs a server in this process.
func serve(c *serverConfig) (*bench.Served, error) {
	switch c.Kind {
	case "grpc":
		return serveBareGRPC(c)
	case "splice":
		return serveBareProxy(c)
	}
	return serveGridloom(c)
}

// server is a server's process, from the harness.
type server struct {
	*bench.Child
	serverConfig
}

// startServer starts a process, and does not wait until it is ready.
func startServer(ctx context.Context, cfg serverConfig) (*server, error) {
	child, err := bench.Start(ctx, cfg.Name, cfg.Dir, cfg)
	return &server{child, cfg}, err
}

func (s *server) processes() ([]process, error) { return []process{process(s.PID)}, nil }
