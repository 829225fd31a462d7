//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// getter is GETs of a set at one server.
type getter struct {
	lab      *lab
	row      *row
	name     string
	addr     string
	requests [][]byte
	servers  measured
	cluster  *cluster // whose nodes can be profiled; nil: none
	node     int      // of the cluster, that is asked
	way      string   // that all it sends in the kernel has to take; empty: any
}

// contender measures them.
func (g *getter) contender() contender { return contender{g.name, g.run} }

func (g *getter) run(ctx context.Context) (s sample, err error) {
	p := g.lab.plan
	ctx, cancel := context.WithTimeoutCause(ctx, p.warm+p.time+slack, errSlow)
	defer cancel()
	m, err := g.lab.meter(g.servers)
	if err != nil {
		return nil, err
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	if g.cluster != nil {
		stop, err := g.cluster.profile(p.profiles, g.row.id, g.name)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	before, err := g.sent(ctx)
	if err != nil {
		return nil, err
	}
	l := load{addr: g.addr, requests: g.requests, size: g.row.size, conns: g.row.conns, threads: p.threads}
	w, err := l.run(ctx, p.warm, p.time, m.start, m.stop)
	if err != nil {
		return nil, err
	}
	if s, err = m.sample(w.bytes, g.row.size, w.took); err != nil {
		return nil, err
	}
	return s, g.count(ctx, s, before)
}

// sent looks at what the node has sent, where the way is of interest.
func (g *getter) sent(ctx context.Context) (sent, error) {
	if g.way == "" {
		return nil, nil
	}
	return g.cluster.sent(ctx, g.node)
}

// count puts into s what came through user space, by the node's own account of
// the whole run.
func (g *getter) count(ctx context.Context, s sample, before sent) error {
	if g.way == "" {
		return nil
	}
	var now sent
	var all, user float64
	for all == 0 { // until the first bytes are counted, which the clients may have before
		var err error
		if now, err = g.sent(ctx); err != nil {
			return err
		}
		all, user = now.since(before)
	}
	if now[g.way]-before[g.way] != all-user {
		return fmt.Errorf("%s: not all was sent by %s: %v, before %v", g.cluster.configs[g.node].Name, g.way, now, before)
	}
	s[copied] = user / (all / float64(g.row.size))
	return nil
}

// slack is how long a run may take beyond what it is meant to.
const slack = 30 * time.Second

var errSlow = errors.New("the run has not ended in time")

// openGet has one node and nginx.
func openGet(ctx context.Context, l *lab, r *row) ([]contender, error) {
	node, err := l.single(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, node, r.size); err != nil {
		return nil, err
	}
	g := getter{
		lab: l, row: r, name: "gridloom", addr: node.configs[0].HTTP, requests: l.plan.requests(r.size, "", node.key),
		servers: node, cluster: node,
	}
	return l.besideNginx(ctx, g)
}

// besideNginx adds nginx, which gets the very same requests as the last of them.
func (l *lab) besideNginx(ctx context.Context, getters ...getter) (all []contender, err error) {
	for i := range getters {
		all = append(all, getters[i].contender())
	}
	n, err := l.nginx(ctx)
	if n == nil || err != nil {
		return all, err
	}
	last := getters[len(getters)-1]
	if err := l.fill(ctx, n, last.row.size); err != nil {
		return nil, err
	}
	last.name, last.addr, last.servers, last.cluster = "nginx", n.addr, n, nil
	return append(all, last.contender()), nil
}

// openMeshGet has three nodes with three copies, asked through one that doesn't
// lead, for the newest and for what may be old.
func openMeshGet(ctx context.Context, l *lab, r *row) ([]contender, error) {
	mesh, err := l.cluster(ctx, "mesh", clusterOptions{nodes: 3})
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, mesh, r.size); err != nil {
		return nil, err
	}
	at, err := mesh.follower(ctx)
	if err != nil {
		return nil, err
	}
	linear := getter{
		lab: l, row: r, name: "gridloom", addr: mesh.configs[at].HTTP, requests: l.plan.requests(r.size, "", mesh.key),
		servers: mesh, cluster: mesh,
	}
	stale := linear
	stale.name, stale.requests = "gridloom stale", l.plan.requests(r.size, "?stale=5s", mesh.key)
	return l.besideNginx(ctx, linear, stale)
}

// openThrough has three nodes and one copy, at the first of them: asked there,
// asked at one that has none, and asked there through a bare proxy.
func openThrough(ctx context.Context, l *lab, r *row) ([]contender, error) {
	mesh, err := l.cluster(ctx, "apart", clusterOptions{nodes: 3, apart: true})
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, mesh, r.size); err != nil {
		return nil, err
	}
	through := getter{
		lab: l, row: r, name: "gridloom through another", addr: mesh.configs[1].HTTP, requests: l.plan.requests(r.size, "", mesh.key),
		servers: mesh, cluster: mesh, node: 1, way: "splice",
	}
	direct := through
	direct.name, direct.addr, direct.node, direct.way = "direct", mesh.configs[0].HTTP, 0, "sendfile"
	proxy, err := l.proxy(ctx, direct.addr)
	if err != nil {
		return nil, err
	}
	spliced := direct
	spliced.name, spliced.addr, spliced.servers = "bare splice proxy", proxy.HTTP, together{mesh, proxy}
	return []contender{through.contender(), spliced.contender(), direct.contender()}, nil
}
