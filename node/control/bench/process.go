package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/gridloom/gridloom/internal/bench"
)

// endpoint is where a member is to be found.
type endpoint struct{ Name, Client, Peer string } // host:port

// memberConfig is what a member is told.
type memberConfig struct {
	System      string
	Self        endpoint
	All         []endpoint
	Dir         string
	Key, Secret string // of a Gridloom mesh
}

// serve runs a member in this process.
func serve(c *memberConfig) (*bench.Served, error) {
	sys, ok := systemNamed(c.System)
	if !ok {
		return nil, fmt.Errorf("there is no system %q", c.System)
	}
	return sys.serve(c)
}

// member is a member's process, from the harness.
type member struct {
	*bench.Child
	endpoint
	trace string // strace's output; "" without
}

// startMember starts a process, and does not wait until it is ready.
func startMember(ctx context.Context, cfg *memberConfig, trace bool) (*member, error) {
	m := &member{endpoint: cfg.Self}
	var wrap []string
	if trace {
		m.trace = filepath.Join(cfg.Dir, "trace")
		wrap = traceCommand(m.trace)
	}
	var err error
	m.Child, err = bench.Start(ctx, cfg.Self.Name, cfg.Dir, cfg, wrap...)
	return m, err
}

// closeAll closes members at the same time: one alone would wait for peers.
func closeAll(members []*member) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
