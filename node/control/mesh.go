package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// unlinkAfter is how long a node that has left may still greet the others, to
// learn that it has.
const unlinkAfter = 10 * time.Second

// servedCalls bounds the other nodes' calls of a kind that are served at once.
const servedCalls = 8192

// register serves the other nodes' calls.
func (c *Control) register() error {
	limited := func(class grid.Class) func(*grid.Handler) {
		return func(h *grid.Handler) { h.Class, h.MaxConcurrent = class, servedCalls }
	}
	return errors.Join(
		proposeCall.Register(c.grid, serve(c, c.servePropose), limited(grid.ClassInteractive)),
		relayCall.Register(c.grid, serve(c, c.serveRelay), limited(grid.ClassInteractive)),
		readCall.Register(c.grid, serve(c, c.serveRead), limited(grid.ClassInteractive)),
		greetCall.Register(c.grid, serve(c, c.serveGreet), limited(grid.ClassControl)),
		manifestCall.Register(c.grid, serve(c, c.serveManifest), limited(grid.ClassInteractive)),
		c.grid.Register(c.raftHandler()),
	)
}

// serve makes a handler. A call ends with the node, which waits for it: what it
// needs may not come any more, from nodes that are stopping, too.
func serve[Req, Resp any](c *Control, do func(context.Context, *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		if err := c.enter(); err != nil {
			return nil, ToWire(err)
		}
		defer c.leave()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		return do(ctx, req)
	}
}

// url is where a node's peer listener is, "" where that isn't known. The
// configuration comes first: a mesh that moves has its old addresses in the
// topology until its nodes have come up at the new ones.
func (c *Control) url(name string) string {
	if url := c.peers[name]; url != "" {
		return url
	}
	t := c.Topology()
	if n := t.Node(name); n != nil {
		return n.URL
	}
	if f := c.vouched.Load().named(name); f != nil && t.Epoch == 0 {
		return f.URL
	}
	return ""
}

// conn gives the connection with a node, never nil.
func (c *Control) conn(name string) *grid.Connection { return c.grid.Connection(c.url(name)) }

// isAt tells whether a node is the one at a grid host.
func (c *Control) isAt(name, host string) bool {
	return c.url(name) != "" && c.conn(name).Host() == host
}

// nameOf names the node with a raft id, "" where there is none.
func (c *Control) nameOf(id uint64) string {
	if id == c.raftID {
		return c.self
	}
	if id == 0 {
		return ""
	}
	t := c.Topology()
	for i := range t.Nodes {
		if t.Nodes[i].RaftID == id {
			return t.Nodes[i].Name
		}
	}
	if f := c.vouched.Load().bound(id); f != nil && t.Epoch == 0 {
		return f.Name
	}
	for name, g := range c.meetings.greetings() {
		if g.RaftID == id {
			return name
		}
	}
	return ""
}

// voters names the voters of the system group, as far as this node knows. They
// are those of the data group, too, but for a moment when nodes come and go.
func (c *Control) voters() (names []string) {
	v := c.system.acquire()
	defer c.system.release(v)
	for _, id := range v.conf.GetVoters() {
		if name := c.nameOf(id); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hosts tells whether this node has a part in a group.
func (c *Control) hosts(g replica.GroupID) bool {
	if c.engine.Load() == nil {
		return false
	}
	in := func(s *state, votes bool) bool {
		v := s.acquire()
		defer s.release(v)
		conf := v.conf
		return slices.Contains(conf.GetVoters(), c.raftID) ||
			!votes && (slices.Contains(conf.GetLearners(), c.raftID) || slices.Contains(conf.GetLearnersNext(), c.raftID) || slices.Contains(conf.GetVotersOutgoing(), c.raftID))
	}
	// A group's members don't always hear that they were removed: of the data
	// group's, the system group tells.
	return in(c.state(g), false) && (g == systemGroup || in(c.system, true))
}

// missing is the error for a group that can't be used, after a try with cause.
// It names what isn't there.
func (c *Control) missing(g replica.GroupID, cause error) error {
	if fault.KindOf(cause) == fault.Waiting {
		var fe *fault.Error
		if errors.As(cause, &fe) && fe.Retry == 0 {
			return &fault.Error{Kind: fault.Waiting, Subject: fe.Subject, Detail: fe.Detail, Retry: time.Second, Err: fe.Err}
		}
		return cause
	}
	voters := c.voters()
	var away []string
	for _, name := range voters {
		if name != c.self && c.conn(name).State() != grid.StateConnected {
			away = append(away, name)
		}
	}
	detail := "has no leader"
	switch {
	case len(voters) == 0:
		detail = "has no members that this node knows yet"
	case len(away) > 0:
		detail = fmt.Sprintf("can't be used from here: of its %d voters %s can't be reached", len(voters), strings.Join(away, " and "))
		if last := c.conn(away[0]).Stats().LastError; last != nil {
			detail += fmt.Sprintf(" (%v)", last)
		}
	}
	return &fault.Error{Kind: fault.Waiting, Subject: "group " + groupName(g), Detail: detail, Retry: time.Second, Err: cause}
}

// missed says, once until the index is reached again, that it is waited for. A
// mesh starts one node at a time: only the loss of what was there is worth a
// warning.
func (c *Control) missed(g replica.GroupID, err error) {
	if !c.waiting.Swap(true) {
		level := slog.LevelInfo
		if c.confirmed.Load() {
			level = slog.LevelWarn
		}
		c.log.Log(c.ctx, level, "waiting for the index", "group", groupName(g), "error", err)
	}
}

func (c *Control) reached() {
	if c.waiting.Load() && c.waiting.Swap(false) {
		c.log.Info("the index is there")
	}
}

// linkNodes adds the nodes of the topology to the grid's hosts. linked are those
// that it has added before: whoever was removed since by somebody else stays so.
func (c *Control) linkNodes(t *Topology, linked map[string]bool) {
	if c.grid == nil {
		return
	}
	for i := range t.Nodes {
		url := c.url(t.Nodes[i].Name)
		host := c.conn(t.Nodes[i].Name).Host()
		if url == "" || linked[host] {
			continue
		}
		if err := c.grid.AddHost(url); err != nil {
			c.log.Warn("a node can't be connected", "peer", t.Nodes[i].Name, "error", err)
		}
		linked[host] = true
	}
}

// unlinkOthers drops the grid's hosts that the topology doesn't have.
func (c *Control) unlinkOthers(t *Topology, linked map[string]bool) {
	if c.grid == nil {
		return
	}
	known := map[string]bool{c.grid.Local(): true}
	for i := range t.Nodes {
		known[c.conn(t.Nodes[i].Name).Host()] = true
	}
	for _, host := range c.grid.Hosts() {
		if known[host] {
			continue
		}
		if err := c.grid.RemoveHost(host); err != nil {
			c.log.Debug("a host of the grid stays", "host", host, "error", err)
		}
		delete(linked, host)
	}
}
