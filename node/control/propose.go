package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// patience is how long a call waits for what isn't there: a leader, a
	// node, an answer.
	patience = 10 * time.Second
	// longestCall bounds a call with all its retries, and so does its deadline: it
	// ends a little sooner, for the reason to arrive. It is well below
	// replyWindow, so that a retry always finds the outcome of the first try.
	longestCall = 2 * time.Minute
	// tryTimeout bounds one try at another node: it may have stopped in the
	// middle. A command's request id makes another try safe.
	tryTimeout = 3 * time.Second
	// Between two tries a call waits a random part of this, doubling.
	retryMin, retryMax = 5 * time.Millisecond, 500 * time.Millisecond
	// queuedBytes bounds the commands that this node has in hand as a leader.
	queuedBytes = 64 << 20
)

// errLost is the end of a try that may have been carried out: the leader was
// lost with the command in its log.
var errLost = errors.New("the leader was lost with the command in its log")

// submit brings a complete command to the leader of its group, wherever that
// is, again until there is an outcome.
func (c *Control) submit(ctx context.Context, cmd *Command) (*outcome, error) {
	g := groupOf(cmd)
	inner, cancel := context.WithTimeout(ctx, fault.Patience(ctx, longestCall))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	t := tries{c: c, ctx: ctx, inner: inner, group: g}
	for {
		changed := c.leaderChange()
		out, err := c.try(inner, g, c.led(cmd), changed)
		if err == nil && !out.passes() {
			c.reached()
			return out, nil
		} else if err == nil {
			err = fault.New(fault.Kind(out.Kind), out.Subject, "%s", out.Detail)
		}
		if !t.again(err, changed) {
			return nil, t.err(err)
		}
	}
}

// led gives a command the epoch of the slot table as it is here now.
func (c *Control) led(cmd *Command) *Command {
	if groupOf(cmd) == systemGroup {
		return cmd
	}
	v := c.system.acquire()
	defer c.system.release(v)
	led := *cmd
	led.Slots = v.slots.Epoch
	return &led
}

// tries is the state of a call that is tried again.
type tries struct {
	c          *Control
	ctx, inner context.Context // the caller's, and the one with our own limits
	group      replica.GroupID
	until      time.Time // when patience ends; zero before the first failure
	pause      time.Duration
	begun      bool // a try may have been carried out
}

// again waits before the next try, and tells whether there is to be one.
// changed is closed when a leader has changed since before the try.
func (t *tries) again(err error, changed <-chan struct{}) bool {
	if errors.Is(err, errLost) {
		t.begun = true
	} else if !passing(err) {
		return false
	}
	if t.c.Err() != nil {
		return false
	}
	t.c.missed(t.group, err)
	if t.until.IsZero() {
		t.until, t.pause = time.Now().Add(patience), retryMin
	}
	wait := min(rand.N(t.pause)+t.pause/4, time.Until(t.until))
	t.pause = min(2*t.pause, retryMax)
	if wait <= 0 {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return true
	case <-t.c.failed:
		return false
	case <-t.inner.Done():
		return false
	}
}

// err is the error of a call that has failed, the last try with err.
func (t *tries) err(err error) error {
	switch {
	case t.c.ctx.Err() != nil:
		return errStopping()
	case t.c.Err() != nil:
		return &fault.Error{Kind: fault.Unavailable, Subject: nodeSubject(t.c.self), Detail: fmt.Sprintf("has failed: %v", t.c.Err()), Err: errors.New(err.Error())}
	case !passing(err) && !errors.Is(err, errLost) && !t.begun && t.ctx.Err() == nil:
		return err
	case errors.Is(t.ctx.Err(), context.Canceled):
		return t.ctx.Err()
	case t.begun && errors.Is(err, context.DeadlineExceeded):
		return &fault.Error{Kind: fault.Unavailable, Subject: "index", Detail: "no answer was had in time: whether it was carried out isn't known", Err: errors.New(err.Error())}
	case t.begun:
		return &fault.Error{Kind: fault.Unavailable, Subject: "index", Detail: "the leader was lost during the call, and no answer was had afterwards: whether it was carried out isn't known", Err: errors.New(err.Error())}
	}
	return t.c.missing(t.group, err)
}

// passing tells whether an error is the kind that goes away, and says that
// nothing was done.
func passing(err error) bool {
	var other *replica.NotLeaderError
	switch {
	case errors.As(err, &other), errors.Is(err, replica.ErrBusy), errors.Is(err, replica.ErrNoGroup), errors.Is(err, replica.ErrClosed), errors.Is(err, errNoLeader):
		return true
	case errors.Is(err, grid.ErrDisconnected), errors.Is(err, grid.ErrUnknownHandler), errors.Is(err, grid.ErrUnknownHost), errors.Is(err, grid.ErrOverloaded):
		return true
	}
	kind := fault.KindOf(err)
	return kind == fault.Waiting || kind == fault.Unavailable
}

// errNoLeader is why a try didn't begin.
var errNoLeader = errors.New("the group has no leader that this node knows")

// try is one try at whoever leads now. Nothing was done where its error is
// passing; anything may have been where it is errLost.
func (c *Control) try(ctx context.Context, g replica.GroupID, cmd *Command, changed <-chan struct{}) (*outcome, error) {
	leader := c.leader(g)
	if leader == c.self {
		return c.propose(ctx, g, cmd)
	}
	to, call := leader, proposeCall
	if !c.connected(leader) {
		to, call = c.detour(leader), relayCall
	}
	if to == "" {
		return nil, errNoLeader
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { // a leader that has stopped gives no answer, and its successor no sign
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	})
	reply, err := call.Call(ctx, c.conn(to), cmd)
	switch {
	case err == nil && reply.Elsewhere:
		c.setHint(g, reply.Leader)
		return nil, &replica.NotLeaderError{}
	case err == nil:
		return &reply.Outcome, nil
	}
	c.setHint(g, "")
	return nil, tryError(err)
}

// tryError says of a call that failed whether it was carried out.
func tryError(err error) error {
	if answered(err) {
		return FromWire(err)
	}
	if grid.NotExecuted(err) || errors.Is(err, grid.ErrUnknownHandler) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", errNoLeader, err) // the try's own end, not its caller's
		}
		return err
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// propose puts a valid command into the log of a group that this node leads,
// and waits until it is applied here.
func (c *Control) propose(ctx context.Context, g replica.GroupID, cmd *Command) (out *outcome, err error) {
	if c.hooks.Span != nil {
		var end func(error)
		ctx, end = c.hooks.Span(ctx, "raft.commit")
		defer func() { end(err) }()
	}
	return c.agree(ctx, g, cmd)
}

func (c *Control) agree(ctx context.Context, g replica.GroupID, cmd *Command) (*outcome, error) {
	s := c.state(g)
	var refused error
	switch {
	case cmd.PutRecord != nil || cmd.MoveRecord != nil || cmd.CreateBucket != nil || cmd.PutUser != nil || cmd.PutKey != nil || cmd.TouchKeys != nil ||
		cmd.NoteScrub != nil || cmd.Recopy != nil && cmd.Recopy.adds():
		refused = s.room()
	case cmd.MarkNode != nil && cmd.MarkNode.Leave:
		refused = c.mayLeave(ctx, cmd.MarkNode.Node)
	}
	if refused != nil {
		// A retry gets the outcome of the first try all the same.
		out, err := s.remembered(cmd.RequestID)
		if out == nil && err == nil {
			err = refused
		}
		return out, err
	}
	size := int64(cmd.Msgsize())
	if err := c.memory.Acquire(ctx, size); err != nil {
		return nil, err
	}
	defer c.memory.Release(size)
	data, err := encodeEntry(c.now().UnixNano(), cmd)
	if err != nil {
		return nil, err
	}
	p := s.expect(cmd.RequestID)
	defer s.forget(cmd.RequestID, p)
	began := time.Now()
	switch err := c.engine.Load().Propose(ctx, g, data); {
	case err == nil:
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", errLost, ctx.Err())
	default:
		return nil, err
	}
	select {
	case out := <-p.done:
		if out == nil {
			return nil, errLost
		}
		if told := c.hooks.Proposed; told != nil {
			told(groupName(g), time.Since(began))
		}
		return out, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errLost, ctx.Err())
	case <-c.failed:
		return nil, errLost
	}
}

// errLeadersOwn refuses what a leader proposes to itself alone.
func errLeadersOwn() error {
	return fault.New(fault.InvalidArgument, "command", "is the leader's own")
}

// servePropose takes a command from another node.
func (c *Control) servePropose(ctx context.Context, cmd *Command) (*proposed, error) {
	if err := cmd.validate(); err != nil {
		return nil, err
	}
	if cmd.Init != nil || cmd.SealMaster != nil {
		return nil, errLeadersOwn()
	}
	if cmd.BindNode != nil {
		if err := c.mayBind(ctx, cmd.BindNode, true); err != nil {
			return nil, err
		}
	}
	g := groupOf(cmd)
	if leader := c.leader(g); leader != c.self {
		return &proposed{Elsewhere: true, Leader: leader}, nil
	}
	out, err := c.propose(ctx, g, cmd)
	var other *replica.NotLeaderError
	switch {
	case errors.As(err, &other):
		return &proposed{Elsewhere: true, Leader: c.nameOf(other.Leader)}, nil
	case errors.Is(err, replica.ErrBusy):
		return &proposed{Elsewhere: true, Leader: c.self}, nil
	case errors.Is(err, replica.ErrClosed):
		return &proposed{Elsewhere: true}, nil // this node has failed; there will be another leader
	case errors.Is(err, errLost):
		return nil, err // in no form of ours: the caller takes it for no answer
	case err != nil:
		return nil, ToWire(err)
	}
	return &proposed{Outcome: *out}, nil
}

// serveRelay takes a command from a node that can't reach the leader, and brings
// it there: one step, so that there are no rounds.
func (c *Control) serveRelay(ctx context.Context, cmd *Command) (*proposed, error) {
	if err := cmd.validate(); err != nil {
		return nil, err
	}
	if cmd.BindNode != nil {
		if err := c.mayBind(ctx, cmd.BindNode, false); err != nil {
			return nil, err
		}
	}
	leader := c.leader(groupOf(cmd))
	if leader == c.self || !c.connected(leader) {
		return c.servePropose(ctx, cmd)
	}
	reply, err := proposeCall.Call(ctx, c.conn(leader), cmd)
	if err == nil {
		return reply, nil
	}
	switch err = tryError(err); {
	case errors.Is(err, errLost):
		return nil, err // in no form of ours: the caller takes it for no answer
	case passing(err):
		return &proposed{Elsewhere: true}, nil
	}
	return nil, ToWire(err)
}

// connected tells whether there is a connection with a node.
func (c *Control) connected(name string) bool {
	return name != "" && c.conn(name).State() == grid.StateConnected
}

// detour names a node that may reach a leader which this one can't: a voter
// other than it, "" where none is connected. It has said that it is of this mesh:
// before the grid's handshakes tell, anybody may be at its address.
func (c *Control) detour(leader string) string {
	voters, heard, mesh := c.voters(), c.meetings.greetings(), c.Deployment()
	rand.Shuffle(len(voters), func(i, j int) { voters[i], voters[j] = voters[j], voters[i] })
	for _, name := range voters {
		g := heard[name]
		if name != c.self && name != leader && g != nil && g.Deployment == mesh && mesh != "" && c.connected(name) {
			return name
		}
	}
	return ""
}

// leader names the node that leads a group, as far as this node knows.
func (c *Control) leader(g replica.GroupID) string {
	if c.hosts(g) {
		return c.nameOf(c.engine.Load().Leader(g).Leader)
	}
	if g == systemGroup {
		return ""
	}
	c.mu.Lock()
	hint := c.hint
	c.mu.Unlock()
	if hint != "" && hint != c.self {
		return hint
	}
	// Whoever is asked knows better.
	if members := c.voters(); len(members) > 0 {
		if name := members[rand.N(len(members))]; name != c.self {
			return name
		}
	}
	return ""
}

// setHint notes who leads the data group, for a node that has no part in it.
func (c *Control) setHint(g replica.GroupID, name string) {
	if g == dataGroup {
		c.mu.Lock()
		c.hint = name
		c.mu.Unlock()
	}
}

// leaderChange gives a channel that is closed with the next change of a leader
// that this node notices.
func (c *Control) leaderChange() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading
}
