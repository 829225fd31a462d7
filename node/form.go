package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// requestPatience is how long a request waits for the node to be up before it
// is told to come again.
const requestPatience = 10 * time.Second

// healthEvery is how late gRPC's health service may learn of a change.
const healthEvery = 250 * time.Millisecond

// joinEvery is how often a node that could not register its drives tries again.
const joinEvery = time.Second

// form brings the node from "listening" to "ready": the deployment id, the
// drives, their registration. It waits for other nodes as long as it takes;
// what it waits for is what health and requests report.
func (n *Node) form(ctx context.Context) error {
	n.waitFor(errors.New("waiting for the index"))
	if err := n.control.WaitReady(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := n.bringUpDrives(ctx); err != nil {
		return ended(ctx, err)
	}
	n.waitFor(errors.New("registering the drives with the index"))
	if err := n.join(ctx); err != nil {
		return ended(ctx, err)
	}
	n.waiting.Store(nil)
	close(n.ready)
	n.log.Info("ready", "deployment", n.control.Deployment())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(ctx, n.objects.Run(ctx)) })
	g.Go(func() error { return ended(ctx, n.heal.Run(ctx)) })
	g.Go(func() error { return n.keepDrives(ctx) })
	return g.Wait()
}

// reportHealth keeps gRPC's health service saying what /readyz says.
func (n *Node) reportHealth(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for serving := false; ; {
		if now := n.state() == nil; now != serving {
			serving = now
			n.api.SetServing(serving)
		}
		select {
		case <-ctx.Done():
			n.api.SetServing(false)
			return nil
		case <-tick.C:
		}
	}
}

// join tells the index which drives this node has. It names only those that the
// index was not told of: another may be taken out of the mesh at this moment.
func (n *Node) join(ctx context.Context) error {
	join := &control.JoinNode{Node: n.cfg.Name, URL: n.peers[n.cfg.Name], Pool: n.cfg.Pool, Zone: n.cfg.Zone}
	for _, p := range n.paths {
		if unjoined(p) {
			join.Drives = append(join.Drives, p.row.ID)
		}
	}
	for {
		_, err := n.control.Propose(ctx, &control.Command{JoinNode: join})
		if err == nil {
			for _, p := range n.paths {
				p.row.Joined = p.row.Joined || slices.Contains(join.Drives, p.row.ID)
			}
			return n.rememberDrives()
		}
		switch fault.KindOf(err) {
		case fault.Waiting, fault.Unavailable, fault.Deadline, fault.Overloaded:
		default:
			return fmt.Errorf("registering the drives with the index: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(joinEvery):
		}
	}
}

// waitFor publishes what the node waits for.
func (n *Node) waitFor(reason error) { n.waiting.Store(&reason) }

// state is nil while the node is ready, and else says what it waits for: first
// for what form needs, later for an index that was lost.
func (n *Node) state() error {
	index := n.control.Ready()
	switch reason := n.waiting.Load(); {
	case index != nil:
		return fault.New(fault.Waiting, "node "+n.cfg.Name, "not ready: waiting for the index: %v", index)
	case reason != nil:
		return fault.New(fault.Waiting, "node "+n.cfg.Name, "not ready: %v", *reason)
	}
	return nil
}

// waitReady waits for the node to be ready: until ctx is about to end, ten seconds
// at the most, and then says what is missing.
func (n *Node) waitReady(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	default:
	}
	timer := time.NewTimer(fault.Patience(ctx, requestPatience))
	defer timer.Stop()
	select {
	case <-n.ready:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
	}
	return n.state()
}
