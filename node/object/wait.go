package object

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// A mesh starts one node at a time. A request that touches what isn't up yet
// waits for it, at most WaitTimeout and a little less than its own deadline, and
// then fails with fault.Waiting, naming what is missing.

// retryMax bounds the jittered pause between two looks at something that can
// only be polled.
const retryMax = 200 * time.Millisecond

// await returns the connection with a node once it is up. subject is what the
// caller needs it for: "drive 6f… on node b".
func (s *Service) await(ctx context.Context, node, subject string) (*grid.Connection, error) {
	c := s.o.Conn(node)
	if c == nil {
		return nil, fault.New(fault.Unavailable, subject, "there is no way to node %s from here", node)
	}
	if connected(c) {
		return c, nil
	}
	wait, cancel := context.WithTimeout(ctx, fault.Patience(ctx, s.o.WaitTimeout))
	defer cancel()
	defer s.waits.enter("node "+node, "not connected")()
	err := c.WaitConnected(wait)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	case wait.Err() != nil:
		return nil, fault.New(fault.Waiting, subject, "node %s is not connected", node)
	}
	return nil, &fault.Error{Kind: fault.Unavailable, Subject: subject, Detail: "node " + node + " can't be reached", Err: err}
}

func connected(c *grid.Connection) bool {
	return c != nil && c.State() == grid.StateConnected
}

// ask makes a call to another node that may be made twice, and makes it again
// while its connection is being lost and found.
func ask[Req, Resp any](ctx context.Context, s *Service, node, subject string, req *Req, call func(context.Context, *grid.Connection, *Req) (*Resp, error)) (*Resp, error) {
	until := time.Now().Add(fault.Patience(ctx, s.o.WaitTimeout))
	for {
		c, err := s.await(ctx, node, subject)
		if err != nil {
			return nil, err
		}
		resp, err := call(ctx, c, req)
		if err == nil {
			return resp, nil
		}
		if !comingUp(err) || time.Now().After(until) {
			return nil, remoteFault(err, subject)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// askOrServe is ask, but of this node what it would serve a peer.
func askOrServe[Req, Resp any](ctx context.Context, s *Service, node, subject string, req *Req, serve func(context.Context, *Req) (*Resp, error), call func(context.Context, *grid.Connection, *Req) (*Resp, error)) (*Resp, error) {
	if node == s.o.Self {
		return serve(ctx, req)
	}
	return ask(ctx, s, node, subject, req, call)
}

// comingUp tells whether a call failed as one does to a node that starts: it
// isn't connected, or is, and its handlers aren't registered yet.
func comingUp(err error) bool {
	return errors.Is(err, grid.ErrDisconnected) || errors.Is(err, grid.ErrUnknownHandler)
}

// remoteFault gives the error of a grid call to another node a kind, and the
// thing it was about where the other end didn't name it.
func remoteFault(err error, subject string) error {
	err = control.FromWire(err)
	var fe *fault.Error
	if !errors.As(err, &fe) {
		return err
	}
	return peerFault(fe.Kind, fe.Subject, subject, fe.Detail, err)
}

// peerFault is what a peer's error is to this node's caller. Of most kinds
// (the peer didn't trust this node, found a request malformed, was cut off) the
// caller is not to blame, nor could it do anything about them: to it, the thing
// is unavailable.
func peerFault(kind fault.Kind, about, subject, detail string, cause error) error {
	switch kind {
	case fault.NoSpace, fault.Corrupted, fault.Waiting, fault.Overloaded, fault.Deadline, fault.Internal:
	default:
		kind = fault.Unavailable
	}
	if about == "" {
		about = subject
	}
	return &fault.Error{Kind: kind, Subject: about, Detail: detail, Err: cause}
}

// pause waits a little, or for the end of ctx, whose error it returns.
func pause(ctx context.Context) error {
	t := time.NewTimer(retryMax/4 + rand.N(retryMax*3/4))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitDrive returns a drive of this node, waiting for AddDrive if it isn't
// open yet.
func (s *Service) awaitDrive(ctx context.Context, id string) (*dataio.Drive, error) {
	d, more := s.drive(id)
	if d != nil {
		return d, nil
	}
	wait, cancel := context.WithTimeout(ctx, fault.Patience(ctx, s.o.WaitTimeout))
	defer cancel()
	defer s.waits.enter("drive "+id, "not open")()
	for {
		select {
		case <-more:
			if d, more = s.drive(id); d != nil {
				return d, nil
			}
		case <-wait.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, fault.New(fault.Waiting, s.driveName(s.o.Self, id), "is not open")
		}
	}
}

// driveName is how errors name a drive.
func (s *Service) driveName(node, drive string) string {
	return "drive " + drive + " on node " + node
}

// locate returns the node that has a drive.
func (s *Service) locate(ctx context.Context, drive string) (control.Node, error) {
	if n, ok := findDrive(s.o.Topology(), drive); ok {
		return n, nil
	}
	// The view here may be older than the record.
	a, err := s.o.Index.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
	if err != nil {
		return control.Node{}, err
	}
	if n, ok := findDrive(a.Topology, drive); ok {
		return n, nil
	}
	return control.Node{}, fault.New(fault.Unavailable, "drive "+drive, "is on no node of the mesh")
}

func findDrive(t *control.Topology, drive string) (control.Node, bool) {
	if t == nil {
		return control.Node{}, false
	}
	for _, n := range t.Nodes {
		for _, d := range n.Drives {
			if d == drive {
				return n, true
			}
		}
	}
	return control.Node{}, false
}

// waitLog writes one line when the first request begins to wait for a thing,
// and one when the last has stopped, however many there are.
type waitLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards waiting
	waiting map[string]int
}

// enter notes a wait for a thing; what it returns notes its end.
func (w *waitLog) enter(what, why string) (leave func()) {
	w.mu.Lock()
	if w.waiting == nil {
		w.waiting = make(map[string]int)
	}
	w.waiting[what]++
	first := w.waiting[what] == 1
	w.mu.Unlock()
	if first {
		w.log.Info("requests wait", "for", what, "because", why)
	}
	return func() {
		w.mu.Lock()
		w.waiting[what]--
		last := w.waiting[what] == 0
		if last {
			delete(w.waiting, what)
		}
		w.mu.Unlock()
		if last {
			w.log.Info("no request waits any more", "for", what)
		}
	}
}
