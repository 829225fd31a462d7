package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/observability"
)

// readyTimeout bounds how long dev waits for its own nodes. They take well
// under a second; a minute is for a machine that is busy with much else.
const readyTimeout = time.Minute

// demoBucket is there for the commands of the banner.
const demoBucket = "demo"

func (a *app) devCommand() *cobra.Command {
	s := newSettings(forDev)
	cmd := &cobra.Command{
		Use:     "dev",
		GroupID: "server",
		Short:   "Start a mesh of several nodes in this process, to try and to develop",
		Long: `Start a mesh in this one process: nodes as gridloom serve runs them, each with
its own listeners, drives and data directory, connected over real sockets on
loopback. It prints their addresses, the root key, and commands to copy; there
is a bucket, demo, for those.

With --data everything is kept there, the key included (in the file
credentials), and is there again the next time. Without, it is in a temporary
directory that Ctrl-C removes.`,
		Example: `  gridloom dev
  gridloom dev --nodes 5 --drives 4
  gridloom dev --data ./mesh
  gridloom dev --port 0 --json`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(a.env); err != nil {
				return err
			}
			return a.dev(cmd.Context(), s)
		},
	}
	cmd.Flags().AddFlagSet(s.flags.flags)
	return cmd
}

// dev runs a whole mesh until ctx ends.
func (a *app) dev(ctx context.Context, s *settings) (err error) {
	started := time.Now()
	data := s.Data
	if data == "" {
		if data, err = os.MkdirTemp("", "gridloom-dev-"); err != nil {
			return err
		}
		defer func() {
			if !errors.Is(err, errLeftBehind) { // or this would hang on the same disk
				err = errors.Join(err, os.RemoveAll(data))
			}
		}()
	}
	cred, fresh, err := s.devCredentials(data)
	if err != nil {
		return err
	}
	cfgs, err := s.devConfigs(data, cred)
	if err != nil {
		return err
	}
	nodes, err := a.openNodes(ctx, s, cfgs)
	if err != nil {
		return err
	}
	return stopped(func() (err error) {
		defer func() { err = errors.Join(err, closeNodes(nodes)) }()
		if fresh != nil { // only now is the directory known to be ours
			if err := fresh.keep(data); err != nil {
				return s.about("data", err)
			}
		}
		return a.runDev(ctx, s, cfgs, nodes, banner{Key: cred.key.String(), Data: data, Temporary: s.Data == "", Bucket: demoBucket}, cred.key, started)
	}, nodes...)
}

// runDev runs the nodes of a mesh, and prints the banner when it is ready.
func (a *app) runDev(ctx context.Context, s *settings, cfgs []node.Config, nodes []*node.Node, b banner, key iam.Credential, started time.Time) error {
	g, running := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error { return s.aboutNode(n.Run(running)) })
	}
	g.Go(func() error {
		if err := awaitReady(running, cfgs, nodes); err != nil {
			return notWhenStopping(running, err)
		}
		if err := makeDemoBucket(running, nodes[0].Addrs().GRPC, key); err != nil {
			return notWhenStopping(running, err)
		}
		b.took = time.Since(started)
		for i, n := range nodes {
			b.Nodes = append(b.Nodes, serving(cfgs[i], n.Addrs()))
		}
		return a.printBanner(b)
	})
	return g.Wait()
}

// notWhenStopping drops an error that only says that ctx has ended.
func notWhenStopping(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// devCredentials are those kept, or new ones, which are to be kept; used with
// the root key that was given, if one was.
func (s *settings) devCredentials(data string) (cred credentials, fresh *credentials, err error) {
	key, given, err := s.readKey()
	if err != nil {
		return cred, nil, err
	}
	cred, err = readCredentials(data, certs.ReadPrivate)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		made := generateCredentials()
		cred, fresh = made, &made
	case err != nil:
		return cred, nil, s.about("data", err)
	}
	if given {
		cred.key = key
	}
	return cred, fresh, nil
}

// devConfigs makes the nodes' configurations, with their listeners open: the
// nodes must know each other's ports before they start.
func (s *settings) devConfigs(data string, cred credentials) (cfgs []node.Config, err error) {
	if last := s.Port + portsPerNode*(s.Nodes-1) + 2; s.Port > 0 && last > 65535 {
		return nil, s.blame("port", fmt.Errorf("%d leaves no ports for %d nodes: the last would be %d", s.Port, s.Nodes, last))
	}
	if s.Pools > s.Nodes {
		return nil, s.blame("pools", fmt.Errorf("%d nodes are not enough for %d pools", s.Nodes, s.Pools))
	}
	secret, err := iam.ParseMeshSecret(cred.secret)
	if err != nil {
		return nil, s.about("data", err)
	}
	if err := s.checkShrunk(data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeListeners(cfgs)
			cfgs = nil
		}
	}()
	host := observability.NewHost()
	var peers []node.Peer
	for i := range s.Nodes {
		cfg := node.Config{
			Name: devName(i), DataDir: filepath.Join(data, devName(i)),
			RootKeys: given(cred.key).get, MeshSecrets: given(secret).get,
			OTLP: s.push, Propagators: s.otel.propagators(), MetricsBuckets: s.Metrics.Bucket,
			ReserveBytes: int64(s.Reserve), Version: programVersion(), Host: host, Limits: s.limits(), CORS: s.cors(), Heal: s.heal(),
			Pool:  s.devPool(i),
			Audit: node.AuditConfig{Level: audit.Level(s.Audit.Level)},
		}
		for d := range s.Drives {
			cfg.Drives = append(cfg.Drives, devDrive(cfg.DataDir, d))
		}
		for k, l := range []*node.ListenerConfig{&cfg.GRPC, &cfg.HTTP, &cfg.Peer} {
			if l.Listener, err = s.devListen(i, k); err != nil {
				return append(cfgs, cfg), err
			}
			l.Addr = l.Listener.Addr().String()
		}
		peers = append(peers, node.Peer{Name: cfg.Name, URL: "http://" + cfg.Peer.Addr})
		cfgs = append(cfgs, cfg)
	}
	for i := range cfgs {
		cfgs[i].Peers = peers
	}
	return cfgs, nil
}

// devPool is the pool of node i: the nodes are dealt out among them.
func (s *settings) devPool(i int) string {
	if s.Pools == 1 {
		return "default"
	}
	return "pool" + strconv.Itoa(i%s.Pools+1)
}

func devName(i int) string { return "node" + strconv.Itoa(i+1) }

func devDrive(dir string, i int) string { return filepath.Join(dir, "drives", strconv.Itoa(i+1)) }

// portsPerNode is the distance from a node's ports to the next one's.
const portsPerNode = 10

// devListen opens listener k (gRPC, HTTP, peer) of node i.
func (s *settings) devListen(i, k int) (net.Listener, error) {
	port := 0
	if s.Port > 0 {
		port = s.Port + portsPerNode*i + k
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, s.about("port", fmt.Errorf("%s, for %s of %s, is in use by another process; --port 0 takes free ports", addr, [...]string{"gRPC", "HTTP", "peers"}[k], devName(i)))
	case err != nil:
		return nil, s.about("port", err)
	}
	return l, nil
}

// checkShrunk refuses to start fewer nodes or drives than a kept mesh has:
// what is on the others would be missing, and look lost.
func (s *settings) checkShrunk(data string) error {
	if there(filepath.Join(data, devName(s.Nodes))) {
		return s.blame("nodes", fmt.Errorf("%s has more than %d nodes", data, s.Nodes))
	}
	for i := range s.Nodes {
		if there(devDrive(filepath.Join(data, devName(i)), s.Drives)) {
			return s.blame("drives", fmt.Errorf("%s of %s has more than %d drives", devName(i), data, s.Drives))
		}
	}
	return nil
}

func there(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func closeListeners(cfgs []node.Config) {
	for _, cfg := range cfgs {
		for _, l := range []net.Listener{cfg.GRPC.Listener, cfg.HTTP.Listener, cfg.Peer.Listener} {
			if l != nil {
				l.Close()
			}
		}
	}
}

// openNodes opens all nodes at once. The listeners are theirs from then on,
// also where opening fails.
func (a *app) openNodes(ctx context.Context, s *settings, cfgs []node.Config) ([]*node.Node, error) {
	log := a.logger(s)
	s.otel.warn(log)
	nodes := make([]*node.Node, len(cfgs))
	var g errgroup.Group
	for i := range cfgs {
		g.Go(func() (err error) {
			nodes[i], err = node.Open(ctx, cfgs[i], log)
			return s.aboutNode(err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, closeNodes(nodes))
	}
	return nodes, nil
}

// closeNodes closes those that were opened.
func closeNodes(nodes []*node.Node) error {
	errs := make([]error, len(nodes))
	var g errgroup.Group
	for i, n := range nodes {
		if n != nil {
			g.Go(func() error {
				errs[i] = n.Close()
				return nil
			})
		}
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// awaitReady waits for every node to do its work.
func awaitReady(ctx context.Context, cfgs []node.Config, nodes []*node.Node) error {
	timer := time.NewTimer(readyTimeout)
	defer timer.Stop()
	for i, n := range nodes {
		if i > 0 {
			// A kept mesh may get more nodes than it was founded with.
			if err := nodes[0].Admit(ctx, cfgs[i].Name, cfgs[0].Peers[i].URL); err != nil {
				return err
			}
		}
		select {
		case <-n.Ready():
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return fmt.Errorf("%s is not ready after %s; --log-level info shows what it does", cfgs[i].Name, readyTimeout)
		}
	}
	return nil
}

// makeDemoBucket makes the bucket of the banner's commands, unless a kept mesh
// has it.
func makeDemoBucket(ctx context.Context, endpoint string, key iam.Credential) error {
	c, err := connect(endpoint, login{key: key}, nil, readyTimeout)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if _, err := c.makeBucket(ctx, demoBucket); err != nil && reason(err) != "already_exists" {
		return err
	}
	return nil
}
