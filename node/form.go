package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// requestPatience is how long a request waits for the node to be up before it
// is told to come again.
const requestPatience = 10 * time.Second

// joinEvery is how often a node that could not register its drives tries again.
const joinEvery = time.Second

// form brings the node from "listening" to "ready": the deployment id, the
// drives, their registration. It waits for other nodes as long as it takes;
// what it waits for is what health and requests report.
func (n *Node) form(ctx context.Context) error {
	n.waitFor(fmt.Errorf("waiting for the index on node %s", n.cfg.owner()))
	if err := n.control.WaitReady(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := n.bringUpDrives(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := n.join(ctx); err != nil {
		return ended(ctx, err)
	}
	n.waiting.Store(nil)
	close(n.ready)
	n.api.SetServing(true)
	n.log.Info("ready", "deployment", n.control.Deployment())
	return ended(ctx, n.objects.Run(ctx))
}

// join tells the index which drives this node has.
func (n *Node) join(ctx context.Context) error {
	n.waitFor(fmt.Errorf("registering the drives with the index on node %s", n.cfg.owner()))
	join := &control.JoinNode{Node: n.cfg.Name, URL: n.peers[n.cfg.Name]}
	for _, d := range n.openDrives() {
		join.Drives = append(join.Drives, d.ID())
	}
	for {
		_, err := n.control.Propose(ctx, &control.Command{JoinNode: join})
		if err == nil {
			return nil
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

// state is nil once the node is ready, and else says what it waits for.
func (n *Node) state() error {
	reason := n.waiting.Load()
	if reason == nil {
		return nil
	}
	return fault.New(fault.Waiting, "node "+n.cfg.Name, "not ready: %v", *reason)
}

// waitReady waits for the node to be ready: until ctx ends, ten seconds at the
// most, and then says what is missing.
func (n *Node) waitReady(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	default:
	}
	timer := time.NewTimer(requestPatience)
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
