package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// patience is how long a call waits for an owner that isn't there.
	patience = 10 * time.Second
	// longestCall bounds a call with all its retries. It is well below
	// replyWindow, so that a retry always finds the outcome of the first try.
	longestCall = 2 * time.Minute
	// Between two tries a call waits a random part of this, doubling.
	retryMin, retryMax = 10 * time.Millisecond, time.Second
	// followInterval is how old the standing of the owner gets while there
	// is no other reason to ask, and followTimeout how long one question takes.
	followInterval, followTimeout = 5 * time.Second, 5 * time.Second
	// servedCalls bounds the other nodes' calls of a kind that are served at
	// once.
	servedCalls = 8192
)

// register serves the other nodes' calls.
func (c *Control) register() error {
	limited := func(class grid.Class) func(*grid.Handler) {
		return func(h *grid.Handler) { h.Class, h.MaxConcurrent = class, servedCalls }
	}
	return errors.Join(
		proposeCall.Register(c.grid, serve(c, c.servePropose), limited(grid.ClassInteractive)),
		readCall.Register(c.grid, serve(c, c.serveRead), limited(grid.ClassInteractive)),
		followCall.Register(c.grid, serve(c, c.serveFollow), limited(grid.ClassControl)),
	)
}

// serve makes a handler: what it does while the node is closing, or isn't the
// one to ask, and the form of its errors.
func serve[Req, Resp any](c *Control, do func(context.Context, *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		if err := c.enter(); err != nil {
			return nil, ToWire(err)
		}
		defer c.leave()
		if c.local == nil {
			return nil, ToWire(fault.New(fault.Conflict, "peers", "node %s was asked for the index, and by its own list of nodes it is on %s", c.self, c.owner))
		}
		resp, err := do(ctx, req)
		if err != nil {
			return nil, ToWire(err)
		}
		return resp, nil
	}
}

func (c *Control) servePropose(ctx context.Context, cmd *Command) (*outcome, error) {
	if cmd.Init != nil {
		return nil, fault.New(fault.InvalidArgument, "command", "is an Init, which is the owner's own")
	}
	if err := cmd.validate(); err != nil {
		return nil, err
	}
	return c.local.propose(ctx, cmd)
}

func (c *Control) serveRead(ctx context.Context, q *Query) (*Answer, error) {
	if err := q.validate(); err != nil {
		return nil, err
	}
	return c.local.read(ctx, q)
}

func (c *Control) serveFollow(_ context.Context, g *greeting) (*standing, error) {
	s := &standing{Deployment: c.Deployment()}
	if t := c.Topology(); t.Epoch != g.Epoch {
		s.Topology = t
	}
	return s, nil
}

// ask calls the owner. While it isn't there ask waits, for at most patience
// and the deadline of ctx, and tries again: a command's request id makes that
// safe also where the connection was lost in the middle of a call.
func ask[Req, Resp any](ctx context.Context, c *Control, call func(context.Context, *grid.Connection, *Req) (*Resp, error), req *Req) (*Resp, error) {
	inner, cancel := context.WithTimeout(ctx, longestCall)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := c.awaitOwner(ctx, inner); err != nil {
		return nil, err
	}
	var until time.Time // when patience ends; zero while the owner is there
	begun := false      // the owner may have begun one of the tries
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		tried := time.Now()
		resp, err := call(inner, c.remote, req)
		if err == nil {
			c.reached()
			return resp, nil
		}
		if c.ctx.Err() != nil {
			return nil, errStopping()
		}
		_, changes := any(req).(*Command)
		if !passing(err) {
			// What the owner says of this try, that of an earlier one isn't:
			// its answer to a command that it has applied comes without error.
			if begun && changes {
				return nil, c.giveUp(ctx, err, true)
			}
			return nil, FromWire(err)
		}
		begun = begun || !grid.NotExecuted(err) && !errors.Is(err, grid.ErrUnknownHandler)
		c.missed(err)
		c.poke()
		if until.IsZero() || time.Since(tried) > patience {
			until = time.Now().Add(patience)
		}
		if !c.pause(inner, until, pause) {
			return nil, c.giveUp(ctx, err, begun && changes)
		}
	}
}

// awaitOwner waits, as ask does, until follow has met the owner, and fails at
// once where that is the owner of another mesh, or no owner.
func (c *Control) awaitOwner(ctx, inner context.Context) error {
	inner, cancel := context.WithTimeout(inner, patience)
	defer cancel()
	for {
		c.mu.Lock()
		err, changed := c.unready, c.changed
		c.mu.Unlock()
		switch kind := fault.KindOf(err); {
		case err != nil && kind == fault.WrongMesh:
			return err
		case c.confirmed.Load():
			return nil
		case err != nil && kind != fault.Waiting:
			return err
		}
		select {
		case <-changed:
		case <-inner.Done():
			return c.giveUp(ctx, err, false)
		}
	}
}

// passing tells whether an error is the kind that goes away: there is no
// connection, or the owner is starting or stopping.
func passing(err error) bool {
	if errors.Is(err, grid.ErrDisconnected) || errors.Is(err, grid.ErrUnknownHandler) {
		return true
	}
	var re *grid.RemoteError
	if !errors.As(err, &re) {
		return false
	}
	kind := fault.KindOf(FromWire(err))
	return kind == fault.Unavailable || kind == fault.Waiting
}

// pause waits until there is a connection and a random part of d has passed,
// so that those who wait don't all come at once. It returns false when the
// time is up.
func (c *Control) pause(ctx context.Context, until time.Time, d time.Duration) bool {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if c.remote.WaitConnected(ctx) != nil {
		return false
	}
	timer := time.NewTimer(rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// giveUp is the error of a call that has waited in vain. begun says that it
// may have changed something all the same.
func (c *Control) giveUp(ctx context.Context, cause error, begun bool) error {
	switch {
	case c.ctx.Err() != nil:
		return errStopping()
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case begun:
		// The cause is of the last try, which may well not have been executed:
		// only its text is told, so that nobody takes that for the whole call's.
		return &fault.Error{Kind: fault.Unavailable, Subject: "node " + c.owner, Detail: "the connection was lost during the call, and no answer was had afterwards: whether it was carried out isn't known", Err: errors.New(cause.Error())}
	}
	return c.waitingFor(cause)
}

// waitingFor is the error for an owner that isn't there.
func (c *Control) waitingFor(cause error) error {
	detail := "holds the index, and isn't connected"
	if last := c.remote.Stats().LastError; last != nil {
		detail += fmt.Sprintf(" (%v)", last)
	}
	return &fault.Error{Kind: fault.Waiting, Subject: "node " + c.owner, Detail: detail, Retry: time.Second, Err: cause}
}

// missed says, once until the owner is reached again, that it is waited for. A
// mesh starts one node at a time: only the loss of one that was there is worth a
// warning.
func (c *Control) missed(err error) {
	if !c.waiting.Swap(true) {
		level := slog.LevelInfo
		if c.Realm() != "" {
			level = slog.LevelWarn
		}
		c.log.Log(c.ctx, level, "waiting for the node that holds the index", "owner", c.owner, "error", err)
	}
}

func (c *Control) reached() {
	if c.waiting.Load() && c.waiting.Swap(false) {
		c.log.Info("the node that holds the index is there", "owner", c.owner)
	}
}

// follow keeps up with the owner: the mesh's id, the topology, and whether it
// can be reached at all. It runs until Close.
func (c *Control) follow() {
	defer c.joined.Done()
	for pause := retryMin; c.ctx.Err() == nil; {
		err := c.learn()
		if c.ctx.Err() != nil {
			return
		}
		c.setUnready(err)
		if err == nil {
			c.reached()
			pause = retryMin
			c.rest(followInterval, c.refresh)
			continue
		}
		// What to wait for is the connection; whatever else is wrong is
		// asked again after a growing while.
		c.missed(err)
		_ = c.remote.WaitConnected(c.ctx)
		c.rest(pause, nil)
		pause = min(2*pause, retryMax)
	}
}

// rest waits for d, for sooner, or for Close.
func (c *Control) rest(d time.Duration, sooner <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-sooner:
	case <-c.ctx.Done():
	}
}

// learn asks the owner how things stand, and takes it over.
func (c *Control) learn() error {
	ctx, cancel := context.WithTimeout(c.ctx, followTimeout)
	defer cancel()
	s, err := followCall.Call(ctx, c.remote, &greeting{Epoch: c.Topology().Epoch})
	switch {
	case err == nil:
	case passing(err), errors.Is(err, context.DeadlineExceeded):
		return c.waitingFor(err)
	default:
		return FromWire(err)
	}
	if err := c.adopt(s.Deployment); err != nil {
		return err
	}
	if s.Topology != nil && s.Topology.Epoch > c.Topology().Epoch {
		c.topology.Store(s.Topology)
	}
	return nil
}
