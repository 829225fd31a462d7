package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/internal/bench"
	"github.com/gridloom/gridloom/node/iam"
)

// members is how many members each system has.
const members = 3

// Times that bound what the harness waits for: a leader, and work of its own.
const (
	leaderTimeout = 20 * time.Second
	answerTimeout = time.Minute
)

// system is what is measured.
type system struct {
	name  string
	serve func(*memberConfig) (*bench.Served, error) // in a member's process
	dial  func(addr, key string) (client, error)     // in the harness
}

func systems() []*system {
	return []*system{{"gridloom", serveGridloom, dialGridloom}, {"etcd", serveEtcd, dialEtcd}}
}

func systemNamed(name string) (*system, bool) {
	all := systems()
	i := slices.IndexFunc(all, func(s *system) bool { return s.name == name })
	if i < 0 {
		return nil, false
	}
	return all[i], true
}

// client is a connection to one member. Its calls may overlap.
type client interface {
	prepare(ctx context.Context) error // once for a mesh, before all others
	put(ctx context.Context, key string, value []byte) error
	get(ctx context.Context, key string) ([]byte, error)
	stat(ctx context.Context, key string) error // the key without its value
	leads(ctx context.Context) (bool, error)    // whether the member does
	close() error
}

// mesh is a system's three processes, and the connections to them.
type mesh struct {
	sys     *system
	key     string
	members []*member
	conns   [members][]client
	runs    int               // done so far: no two write the same keys
	values  map[string][]byte // what load has written
	keys    []string
}

type meshOptions struct {
	dir   string
	trace bool // by strace
}

// openMesh starts three processes and waits until all are ready.
func openMesh(ctx context.Context, sys *system, o meshOptions) (_ *mesh, err error) {
	m := &mesh{sys: sys, key: iam.Generate(iam.RootID).String()}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", sys.name, errors.Join(err, m.close()))
		}
	}()
	addrs, err := bench.Reserve(2 * members)
	if err != nil {
		return nil, err
	}
	cfg := memberConfig{System: sys.name, Key: m.key, Secret: iam.NewMeshSecret()}
	for i := range members {
		cfg.All = append(cfg.All, endpoint{fmt.Sprintf("n%d", i+1), addrs[2*i], addrs[2*i+1]})
	}
	name := sys.name
	if o.trace {
		name += "-traced"
	}
	for _, self := range cfg.All {
		cfg.Self, cfg.Dir = self, filepath.Join(o.dir, name, self.Name)
		member, err := startMember(ctx, &cfg, o.trace)
		if err != nil {
			return nil, err
		}
		m.members = append(m.members, member)
	}
	if err := m.wait(); err != nil {
		return nil, err
	}
	c, err := m.connect(0, 1)
	if err != nil {
		return nil, err
	}
	return m, c[0].prepare(ctx)
}

// wait waits until all members are ready. They wait for each other: the first
// that fails ends the rest.
func (m *mesh) wait() error {
	waited := make(chan error, len(m.members))
	for _, member := range m.members {
		go func() {
			_, err := member.Wait()
			waited <- err
		}()
	}
	for left := len(m.members) - 1; left >= 0; left-- {
		if err := <-waited; err != nil {
			err = errors.Join(err, closeAll(m.members))
			for range left {
				<-waited
			}
			m.members = nil
			return err
		}
	}
	return nil
}

func (m *mesh) close() error {
	var errs []error
	for _, conns := range m.conns {
		for _, c := range conns {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(append(errs, closeAll(m.members))...)
}

// connect gives n connections to a member, which stay for the runs to come.
func (m *mesh) connect(member, n int) ([]client, error) {
	for len(m.conns[member]) < n {
		c, err := m.sys.dial(m.members[member].Client, m.key)
		if err != nil {
			return nil, err
		}
		m.conns[member] = append(m.conns[member], c)
	}
	return m.conns[member][:n], nil
}

// leader is the member that leads. It waits, for a while, until one does.
func (m *mesh) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	for {
		for i := range m.members {
			c, err := m.connect(i, 1)
			if err != nil {
				return 0, err
			}
			if leads, err := c[0].leads(ctx); err == nil && leads {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: no leader: %w", m.sys.name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// valueOf is the value that every writer of a key writes: bytes that do not
// compress, and that a reader can tell from any other key's.
func valueOf(key string, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(key))).Read(b) // never fails
	return b
}

// load writes what the reads will read.
func (m *mesh) load(ctx context.Context, keys, size int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c, err := m.connect(0, 1)
	if err != nil {
		return err
	}
	m.values = make(map[string][]byte)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range keys {
		key := fmt.Sprintf("read/%06d", i)
		value := valueOf(key, size)
		m.keys, m.values[key] = append(m.keys, key), value
		g.Go(func() error { return c[0].put(ctx, key, value) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("%s: %w", m.sys.name, err)
	}
	return nil
}

// verify reads acknowledged puts back, each through another member than the
// one that it was written through.
func (m *mesh) verify(ctx context.Context, puts []acknowledged, size int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, p := range puts {
		c, err := m.connect((p.member+1)%members, 1)
		if err != nil {
			return err
		}
		g.Go(func() error {
			got, err := c[0].get(ctx, p.key)
			if err == nil && !bytes.Equal(got, valueOf(p.key, size)) {
				err = fmt.Errorf("%d other bytes", len(got))
			}
			if err != nil {
				return fmt.Errorf("%s: the put of %q was acknowledged; reading it back: %w", m.sys.name, p.key, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// cpu is what the members have used so far.
func (m *mesh) cpu() (sum time.Duration, err error) {
	for _, member := range m.members {
		a, err := member.Ask(bench.Request{})
		if err != nil {
			return 0, err
		}
		sum += a.CPU
	}
	return sum, nil
}

// profile begins a CPU profile of each member. What it returns ends them.
func (m *mesh) profile(dir, row string) (stop func() error, err error) {
	for _, member := range m.members {
		name := fmt.Sprintf("%s.%s.%s.pprof", row, m.sys.name, member.Name)
		if name, err = filepath.Abs(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		if _, err := member.Ask(bench.Request{Profile: name}); err != nil {
			return nil, err
		}
	}
	return func() error {
		var errs []error
		for _, member := range m.members {
			_, err := member.Ask(bench.Request{StopProfile: true})
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, nil
}

// reading is what processes have used so far.
type reading struct {
	clients time.Duration // this process
	servers time.Duration // the members under load
	idle    time.Duration // the members of other systems
	busy    time.Duration // the whole machine; 0 where it is not known
	at      time.Time
}

func (m *mesh) read(all []*mesh) (r reading, err error) {
	for _, other := range all {
		used, err := other.cpu()
		if err != nil {
			return r, err
		}
		if other == m {
			r.servers = used
		} else {
			r.idle += used
		}
	}
	r.clients, r.busy, r.at = bench.CPUTime(), bench.BusyTime(), time.Now()
	return r, nil
}

// spent puts into s what n operations have cost.
func (s sample) spent(n float64, before, after reading) {
	clients, servers := after.clients-before.clients, after.servers-before.servers
	s[cpuEach] = (clients + servers).Seconds() * 1e6 / n
	s[cpuServers] = servers.Seconds() * 1e6 / n
	if before.busy > 0 {
		all := after.at.Sub(before.at) * time.Duration(runtime.NumCPU())
		ours := clients + servers + after.idle - before.idle
		s[others] = max(0, (after.busy-before.busy-ours).Seconds()/all.Seconds())
	}
}
