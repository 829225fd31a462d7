//go:build linux

package main

import (
	"context"
	"errors"
	"time"
)

// getter is GETs of a set at one server.
type getter struct {
	lab      *lab
	row      *row
	name     string
	addr     string
	requests [][]byte
	servers  []process
	cluster  *cluster // whose nodes can be profiled; nil: none
}

// contender measures them.
func (g *getter) contender() contender { return contender{g.name, g.run} }

func (g *getter) run(ctx context.Context) (s sample, err error) {
	p := g.lab.plan
	ctx, cancel := context.WithTimeoutCause(ctx, p.warm+p.time+slack, errSlow)
	defer cancel()
	l := load{addr: g.addr, requests: g.requests, size: g.row.size, conns: g.row.conns, threads: p.threads}
	m := meter{servers: g.servers, idle: g.lab.besides(g.servers)}
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
	w, err := l.run(ctx, p.warm, p.time, m.start, m.stop)
	if err != nil {
		return nil, err
	}
	return m.sample(w.bytes, g.row.size, w.took)
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
		lab: l, row: r, name: "gridloom", addr: node.configs[0].HTTP, requests: requestsOf(r.size, "", node.key),
		servers: node.processes(), cluster: node,
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
	last.name, last.addr, last.servers, last.cluster = "nginx", n.addr, n.all, nil
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
		lab: l, row: r, name: "gridloom", addr: mesh.configs[at].HTTP, requests: requestsOf(r.size, "", mesh.key),
		servers: mesh.processes(), cluster: mesh,
	}
	stale := linear
	stale.name, stale.requests = "gridloom stale", requestsOf(r.size, "?stale=5s", mesh.key)
	return l.besideNginx(ctx, linear, stale)
}
