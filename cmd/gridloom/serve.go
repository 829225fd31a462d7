package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

func (a *app) serveCommand() *cobra.Command {
	s := newSettings(forServe)
	cmd := &cobra.Command{
		Use:     "serve",
		GroupID: "server",
		Short:   "Run one node, alone or of a mesh",
		Long: `Run one node until it is told to stop.

Without --peers it is alone. It makes a root key the first time, and keeps it
in the file credentials in its data directory.

With --peers it is one of the founding nodes of a mesh. --name says which, and
all of them need the same --peers, root key and mesh secret. The index is kept
by an odd number of them, five at most, and answers as long as most of those do.

A listener is on loopback unless its --…-addr says otherwise, and then it needs
a certificate, or --insecure with its name. --tls auto makes certificates, and
keeps what clients have to trust in the file tls/ca.pem in the data directory;
gridloom certs ca prints it.

Certificates, the key file and the mesh secret file are read again when they
change: none of them needs a restart. Files with secrets must not be readable by
others.

Every flag is also a variable (--http-cert: GRIDLOOM_HTTP_CERT) and a path in
the YAML file that --config names (http.cert). A flag overrides a variable, and
a variable the file.`,
		Example: `  gridloom serve --data /var/lib/gridloom
  gridloom serve --config /etc/gridloom.yaml
  gridloom serve --name a --peers a=https://10.0.0.1:7402,b=https://10.0.0.2:7402 \
      --grpc-addr 10.0.0.1:7400 --http-addr 10.0.0.1:7401 --peer-addr 10.0.0.1:7402 \
      --tls auto --key-file root.key --mesh-secret-file mesh.secret`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.load(a.env); err != nil {
				return err
			}
			return a.serve(cmd.Context(), s)
		},
	}
	cmd.Flags().AddFlagSet(s.flags.flags)
	return cmd
}

// serve runs one node.
func (a *app) serve(ctx context.Context, s *settings) (err error) {
	if err := s.checkTLS(); err != nil {
		return err
	}
	cfg := s.nodeConfig()
	secrets, err := s.serveCredentials(&cfg)
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return &usageError{s.aboutNode(s.hintInsecure(err))}
	}
	log := a.logger(s)
	s.otel.warn(log)
	n, err := node.Open(ctx, cfg, log)
	if err != nil {
		return s.aboutNode(err)
	}
	return stopped(func() (err error) {
		defer func() { err = errors.Join(err, n.Close()) }()
		// Only now is the data directory ours to write to.
		if secrets.keep != nil {
			if err := secrets.keep.keep(cfg.DataDir); err != nil {
				return s.about("data", err)
			}
		}
		if err := a.printServing(s, cfg, n.Addrs()); err != nil {
			return err
		}
		rereading, stop := context.WithCancel(ctx)
		var rereader sync.WaitGroup
		rereader.Go(func() { reread(rereading, log, secrets.files, secrets.lists) })
		defer rereader.Wait()
		defer stop()
		return s.aboutNode(n.Run(ctx))
	}, n)
}

// errLeftBehind says that a part of the program hangs, and ends with the process.
var errLeftBehind = fmt.Errorf("not all of it has ended within %v, and the process ends all the same", node.StopTimeout)

// failing is what stopped asks of a node.
type failing interface {
	Failed() <-chan struct{}
	Failure() error
}

// stopped runs nodes, and returns what run does. One whose disk hangs may never
// end: from when a node has failed run has node.StopTimeout, and is then left
// behind for the process to end, with the reason.
func stopped[N failing](run func() error, nodes ...N) error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	failure, seen := make(chan error, len(nodes)), make(chan struct{})
	defer close(seen)
	for _, n := range nodes {
		go func() {
			select {
			case <-n.Failed():
				failure <- n.Failure()
			case <-seen:
			}
		}()
	}
	select {
	case err := <-ended:
		return err
	case err := <-failure:
		timer := time.NewTimer(node.StopTimeout)
		defer timer.Stop()
		select {
		case err := <-ended:
			return err
		case <-timer.C:
			return fmt.Errorf("%w; %w", err, errLeftBehind)
		}
	}
}

// checkTLS says which settings contradict --tls.
func (s *settings) checkTLS() error {
	for _, name := range []string{"grpc", "http", "peer"} {
		if path := name + ".cert"; s.TLS == "off" && s.given(path) != fromDefault {
			return s.blame("tls", fmt.Errorf("off contradicts --%s", s.row(path).flag()))
		}
	}
	if len(s.TLSName) > 0 && s.TLS != "auto" {
		return s.blame("tls-name", errors.New("is for certificates of --tls auto"))
	}
	return nil
}

// nodeConfig is what package node is told, all but the secrets.
func (s *settings) nodeConfig() node.Config {
	cfg := node.Config{
		Name: s.Name, DataDir: s.Data, Drives: s.Drive, Peers: s.Peers, Pool: s.Pool, Zone: s.Zone, Heal: s.heal(),
		GRPC: s.listener("grpc", s.GRPC), HTTP: s.listener("http", s.HTTP), Peer: s.listener("peer", s.Peer),
		OTLP: s.push, Propagators: s.otel.propagators(), MetricsBuckets: s.Metrics.Bucket,
		ReserveBytes: int64(s.Reserve), Version: programVersion(), Limits: s.limits(), CORS: s.cors(), CertificateNames: s.TLSName,
		Audit: node.AuditConfig{File: s.Audit.File, Level: audit.Level(s.Audit.Level), MaxBytes: int64(s.Audit.Size), Keep: s.Audit.Keep},
	}
	if cfg.Name == "" && len(cfg.Peers) == 0 {
		cfg.Name = "node1"
	}
	if len(cfg.Drives) == 0 {
		cfg.Drives = []string{filepath.Join(cfg.DataDir, "drives", "1")}
	}
	return cfg
}

func (s *settings) heal() node.HealConfig {
	return node.HealConfig{After: s.Heal.After, BytesPerSecond: int64(s.Heal.Rate), ScrubPeriod: s.Scrub.Period}
}

func (s *settings) cors() node.CORSConfig {
	return node.CORSConfig{Origins: s.CORS.Origin, Methods: s.CORS.Method, Expose: s.CORS.Expose, MaxAge: s.CORS.MaxAge}
}

func (s *settings) limits() node.Limits {
	l := &s.Limit
	return node.Limits{
		Connections: l.Connections, ConnectionsPerAddress: l.ConnectionsPerAddress,
		HeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout, Streams: l.Streams, Frames: l.Frames,
		HeaderBytes: int(l.HeaderBytes), MetadataBytes: int(l.MetadataBytes), MessageBytes: int(l.MessageBytes),
		Uploads: l.Uploads, UploadsPerKey: l.UploadsPerKey,
		UploadBytes: int64(l.UploadBytes), UploadBytesPerKey: int64(l.UploadBytesPerKey),
		Requests: l.Requests, Failures: l.Failures,
	}
}

func (s *settings) listener(name string, l listenerConfig) node.ListenerConfig {
	return node.ListenerConfig{
		Addr: l.Addr, Insecure: slices.Contains(s.Insecure, name),
		CertFile: l.Cert, KeyFile: l.CertKey, CAFile: l.CA,
		Auto: s.TLS == "auto" && l.Cert == "" && l.CertKey == "",
	}
}

// serveSecrets is what serve knows of its secrets beside their values.
type serveSecrets struct {
	keep  *credentials // to be kept; nil: nothing
	files []string     // to be read again when they change
	lists []rereadable // of those files
}

// serveCredentials puts the key and the mesh secret into cfg: those given, and
// for a node alone else those it keeps.
func (s *settings) serveCredentials(cfg *node.Config) (*serveSecrets, error) {
	keys, err := s.readKeys(certs.ReadPrivate, parseRootKey)
	if err != nil {
		return nil, err
	}
	meshSecrets, err := s.readMeshSecrets(certs.ReadPrivate)
	if err != nil {
		return nil, err
	}
	out := &serveSecrets{}
	if keys != nil && keys.file != "" {
		out.files, out.lists = append(out.files, keys.file), append(out.lists, keys)
	}
	if meshSecrets != nil && meshSecrets.file != "" {
		out.files, out.lists = append(out.files, meshSecrets.file), append(out.lists, meshSecrets)
	}
	if len(cfg.Peers) > 0 {
		switch {
		case keys == nil:
			return nil, usageErrorf("a mesh needs one root key for all its nodes: give --key-file or GRIDLOOM_KEY (gridloom keygen makes one)")
		case meshSecrets == nil:
			return nil, usageErrorf("a mesh needs one secret that its nodes share: give --mesh-secret-file or GRIDLOOM_MESH_SECRET (gridloom keygen --mesh-secret makes one)")
		}
	} else if keys, meshSecrets, err = s.aloneCredentials(cfg.DataDir, keys, meshSecrets, out); err != nil {
		return nil, err
	}
	cfg.RootKeys, cfg.MeshSecrets = keys.get, meshSecrets.get
	return out, nil
}

// aloneCredentials adds to those given what a node alone keeps, or makes.
func (s *settings) aloneCredentials(dir string, keys *secretList[iam.Credential], meshSecrets *secretList[[]byte], out *serveSecrets) (*secretList[iam.Credential], *secretList[[]byte], error) {
	secret := iam.NewMeshSecret() // of a node alone with a key of its own: nobody else needs it
	if keys == nil {
		kept, err := readCredentials(dir, certs.ReadPrivate)
		if errors.Is(err, fs.ErrNotExist) {
			kept, err = generateCredentials(), nil
			out.keep = &kept
		}
		if err != nil {
			return nil, nil, s.about("data", err)
		}
		keys, secret = given(kept.key), kept.secret
	}
	if meshSecrets == nil {
		parsed, err := iam.ParseMeshSecret(secret)
		if err != nil {
			return nil, nil, s.about("data", err)
		}
		meshSecrets = given(parsed)
	}
	return keys, meshSecrets, nil
}

// parseRootKey is iam.ParseCredential for a root key.
func parseRootKey(text string) (iam.Credential, error) {
	c, err := iam.ParseCredential(text)
	if err == nil && c.ID != iam.RootID {
		err = errors.New("it is not a root key: gridloom keygen makes one")
	}
	return c, err
}

// hintInsecure adds to the refusal of an open listener how to have it after
// all: package node knows no flags.
func (s *settings) hintInsecure(err error) error {
	var bad *node.ConfigError
	if !errors.As(err, &bad) {
		return err
	}
	field, ok := strings.CutSuffix(bad.Field, ".Addr")
	if !ok {
		return err
	}
	name := strings.ToLower(field)
	addr := map[string]string{"grpc": s.GRPC.Addr, "http": s.HTTP.Addr, "peer": s.Peer.Addr}[name]
	_, port, splitErr := net.SplitHostPort(addr)
	if _, portErr := net.LookupPort("tcp", port); splitErr != nil || portErr != nil {
		return err // it is no address at all
	}
	return &node.ConfigError{Field: bad.Field, Err: fmt.Errorf("%w (--tls auto, --%s-cert and --%s-cert-key, or --insecure=%s)", bad.Err, name, name, name)}
}

// logger logs to standard error. The table has checked level and format.
func (a *app) logger(s *settings) *slog.Logger {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[s.Log.Level]
	o := &slog.HandlerOptions{Level: level}
	if s.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}

// jsonServing is what serve prints when its listeners are open; dev has one
// for each node.
type jsonServing struct {
	Name string `json:"name"`
	GRPC string `json:"grpc"` // HOST:PORT
	HTTP string `json:"http"` // base URL
	Peer string `json:"peer"` // base URL
	Data string `json:"data"`
	CA   string `json:"ca,omitempty"` // file with what clients have to trust, with --tls auto
}

func serving(cfg node.Config, addrs node.Addrs) jsonServing {
	url := func(l node.ListenerConfig, addr string) string {
		if l.TLS() {
			return "https://" + addr
		}
		return "http://" + addr
	}
	j := jsonServing{
		Name: cfg.Name, GRPC: addrs.GRPC, HTTP: url(cfg.HTTP, addrs.HTTP), Peer: url(cfg.Peer, addrs.Peer), Data: cfg.DataDir,
	}
	if cfg.GRPC.Auto || cfg.HTTP.Auto || cfg.Peer.Auto {
		j.CA = node.CAFile(cfg.DataDir)
	}
	return j
}

func (a *app) printServing(s *settings, cfg node.Config, addrs node.Addrs) error {
	j := serving(cfg, addrs)
	return a.out.print(j, func() string {
		key := "as given"
		if s.given("key") == fromDefault && s.given("key-file") == fromDefault {
			key = "in " + credentialsFile(cfg.DataDir)
		}
		text := fmt.Sprintf("Gridloom %s, node %s\n  gRPC  %s\n  HTTP  %s\n  peer  %s\n  data  %s\n  key   %s\n",
			programVersion(), j.Name, j.GRPC, j.HTTP, j.Peer, j.Data, key)
		if j.CA != "" {
			text += fmt.Sprintf("  CA    %s\n", j.CA)
		}
		return text
	})
}
