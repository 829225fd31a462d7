//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// lab is the servers that a group of rows needs. Each is started when the first
// row asks for it, and all end with the group: none is in the way of another's.
type lab struct {
	plan    *plan
	dir     string
	kept    map[string]any // by the name under which it was opened
	closers []func() error
	up      []measured
	filled  map[string]bool
}

// measured is what processes run for.
type measured interface{ processes() ([]process, error) }

func (p *plan) newLab(group string) (*lab, error) {
	l := &lab{plan: p, dir: filepath.Join(p.dir, group), kept: map[string]any{}, filled: map[string]bool{}}
	return l, os.Mkdir(l.dir, 0o755)
}

// close ends everything and removes what it has stored.
func (l *lab) close() (err error) {
	for _, f := range slices.Backward(l.closers) {
		err = errors.Join(err, f())
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// cluster gives the one of that name, which o makes if need be.
func (l *lab) cluster(ctx context.Context, name string, o clusterOptions) (*cluster, error) {
	if c, ok := l.kept[name]; ok {
		return c.(*cluster), nil
	}
	o.dir = filepath.Join(l.dir, name)
	c, err := openCluster(ctx, o)
	if err != nil {
		return nil, err
	}
	l.kept[name] = c
	l.closers = append(l.closers, c.close)
	l.up = append(l.up, c)
	return c, nil
}

// single gives the node that is alone.
func (l *lab) single(ctx context.Context) (*cluster, error) {
	return l.cluster(ctx, "single", clusterOptions{nodes: 1})
}

// nginx gives the server that all is compared with; nil where it isn't there.
func (l *lab) nginx(ctx context.Context) (*nginx, error) {
	if n, ok := l.kept["nginx"]; ok {
		return n.(*nginx), nil
	}
	dir := filepath.Join(l.dir, "nginx")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	n, err := startNginx(ctx, dir)
	if errors.Is(err, errNoNginx) {
		l.kept["nginx"] = (*nginx)(nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l.kept["nginx"] = n
	l.closers = append(l.closers, n.close)
	l.up = append(l.up, n)
	return n, nil
}

// fill stores a set once at a server.
func (l *lab) fill(ctx context.Context, at interface {
	fill(ctx context.Context, paths []string, size int64) error
}, size int64) error {
	key := fmt.Sprintf("%p %d", at, size)
	if l.filled[key] {
		return nil
	}
	l.filled[key] = true
	return at.fill(ctx, l.plan.set(size), size)
}

// meter is for a run of one of those that are up, or of a part of it.
func (l *lab) meter(of measured) (*meter, error) {
	var m meter
	var err error
	if m.servers, err = of.processes(); err != nil {
		return nil, err
	}
	for _, other := range l.up {
		all, err := other.processes()
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if !slices.Contains(m.servers, p) {
				m.idle = append(m.idle, p)
			}
		}
	}
	return &m, nil
}
