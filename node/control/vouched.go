package control

import (
	"context"
	"maps"
	"net/url"
	"slices"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// A blank node knows the nodes that its configuration names, and of the mesh that
// takes it in that may be any one: the leader, who is to bring it up to date, may
// be another. So it believes one of those nodes who else is in the mesh.
//
// It believes that of nobody else. The node that says so is one that its operator
// has named, at the address that he has given, has proven itself to the grid, and
// answers a question of this node's: nobody is told about who hasn't been asked.
// It must be of a mesh with an id that expects this very node. What it says adds
// hosts to the grid, who have to prove themselves like all others, and takes
// nothing away: where a node of the configuration is, its own address included,
// the configuration says. The nodes it names aren't asked in their turn. All of it
// ends with the first state that this node gets, which must be of that mesh.

// vouched is the mesh that a node of the configuration has said it takes this one
// into. It is immutable.
type vouched struct {
	by         string
	deployment string
	nodes      []founder // that the configuration doesn't have
}

// named finds a node in it, nil where there is none, or nobody was heard.
func (v *vouched) named(name string) *founder {
	return v.find(func(f founder) bool { return f.Name == name })
}

// bound finds the node with a raft id.
func (v *vouched) bound(id uint64) *founder {
	return v.find(func(f founder) bool { return f.RaftID == id && id != 0 })
}

func (v *vouched) find(is func(founder) bool) *founder {
	if v == nil {
		return nil
	}
	if i := slices.IndexFunc(v.nodes, is); i >= 0 {
		return &v.nodes[i]
	}
	return nil
}

// believe takes over who is in the mesh that takes this node in, as the node of
// that name has said.
func (c *Control) believe(name string, g *greeting) {
	if c.peers[name] == "" || name == c.self || g.Blank || g.Deployment == "" || !g.Admitted || g.Bound != 0 && g.Bound != c.raftID || len(g.Founders) > maxNodes {
		return
	}
	taken := map[string]bool{}
	for name := range c.peers {
		taken[c.conn(name).Host()] = true
	}
	v := &vouched{by: name, deployment: g.Deployment}
	for _, f := range g.Founders {
		host := c.grid.Connection(f.URL).Host()
		_, configured := c.peers[f.Name]
		at, err := url.Parse(f.URL)
		if configured || f.RaftID == c.raftID || taken[host] || v.named(f.Name) != nil || checkNode(f.Name, f.URL) != nil || err != nil || at.Host == "" {
			continue
		}
		taken[host] = true
		v.nodes = append(v.nodes, f)
	}
	old := c.vouched.Load()
	if old != nil && old.by == v.by && old.deployment == v.deployment && slices.Equal(old.nodes, v.nodes) {
		return
	}
	c.vouched.Store(v)
	urls := maps.Clone(c.peers)
	for _, f := range v.nodes {
		urls[f.Name] = f.URL
	}
	if c.hooks.Vouched != nil {
		c.hooks.Vouched(urls) // first: the grid asks whose certificate a host's must be
	}
	if old != nil {
		for _, f := range old.nodes {
			if !slices.ContainsFunc(v.nodes, func(o founder) bool { return o.URL == f.URL }) {
				_ = c.grid.RemoveHost(f.URL) // it was added below, or isn't there
			}
		}
	}
	for _, f := range v.nodes {
		if err := c.grid.AddHost(f.URL); err != nil {
			c.log.Warn("a node can't be connected", "peer", f.Name, "error", err)
		}
	}
	c.log.Info("a mesh takes this node in", "peer", name, "deployment", g.Deployment, "others", len(v.nodes))
}

// mayBind refuses that a node binds another one's name. It comes from the node
// itself, or from one that it has asked to pass it on.
func (c *Control) mayBind(ctx context.Context, b *BindNode, passedOn bool) error {
	host := grid.PeerFrom(ctx)
	if c.isAt(b.Node, host) {
		return nil
	}
	for _, n := range c.Topology().Nodes {
		if passedOn && n.RaftID != 0 && c.isAt(n.Name, host) {
			return nil
		}
	}
	return ToWire(fault.New(fault.PermissionDenied, nodeSubject(b.Node), "isn't the one at %s", host))
}
