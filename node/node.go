package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/door"
	"github.com/gridloom/gridloom/node/door/lean"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/heal"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// drainTimeout bounds a stop. What bounds a connection is in limits.go.
const drainTimeout = 10 * time.Second

// reconnectMax is the longest pause between two tries to reach a node that is
// away. A mesh that loses its leader needs all that are left at once.
const reconnectMax = 500 * time.Millisecond

// Addrs are the addresses that a node's listeners have, "host:port".
type Addrs struct{ GRPC, HTTP, Peer string }

// Node is one node. Open makes it, Run serves, Close gives everything back.
type Node struct {
	cfg   Config
	log   *slog.Logger
	quiet *slog.Logger // what it logs isn't pushed
	logs  *observability.Logs
	lines *observability.Lines // the last of the log
	peers map[string]string    // name to base URL, this node included

	grpcListener, httpListener, peerListener *listener

	certs     *certs.Mesh          // the certificate that the node makes; nil: it makes none
	published []byte               // authorities, as clients on this machine find them
	roots     []iam.Credential     // those that are accepted
	warned    map[string]time.Time // of certificates, by listener and fingerprint: when last

	dir         *dataio.Dir
	telemetry   *observability.Telemetry
	spans       *observability.Spans // nil: none are made
	instruments *instruments
	limits      *limited
	collector   *observability.Collector
	grid        *grid.Manager
	control     *control.Control
	objects     *object.Service
	heal        *heal.Healer
	mesh        *mesh
	gate        *iam.Gate
	audit       *audit.Log
	identities  *identities
	api         *api.API

	front                  http.Handler // of httpServer, but for what counts and measures
	direct                 *direct      // the short way, in front of httpServer
	grpcServer             *grpc.Server
	httpServer, peerServer *http.Server

	known             atomic.Pointer[map[string]string] // base URLs of the mesh's nodes; nil until they are known
	vouched           *map[string]string                // the last known before there was a topology; the index's, which sets it in one goroutine
	bulk              atomic.Pointer[object.Service]    // objects, for the index, which runs before they are open
	agreed            atomic.Pointer[control.Control]   // control, for the grid, which asks for the realm before the index is open
	paths             []*drivePath                      // of the configuration; form's goroutine alone has them
	healer            atomic.Pointer[heal.Healer]       // heal, for objects, which are open before it
	drives            atomic.Pointer[driveSets]         // set by form
	driveSet          dataio.Set                        // of the open ones
	drivesEvery       time.Duration                     // between two looks at the paths
	life              context.Context                   // ends when the node closes its drives
	endLife           context.CancelFunc
	monitors          sync.WaitGroup        // of the drives
	ready             chan struct{}         // closed when formed
	identitiesChanged chan struct{}         // has room for one: keepGate should look
	waiting           atomic.Pointer[error] // why it is not ready; nil once it is

	closeOnce sync.Once
	closers   []func() error // in the order of opening
	closeErr  error
}

// Open takes everything the node needs for itself: its data directory, its
// listeners, the grid and the index. It waits for no other node. Wrong
// configuration is a *ConfigError; on any error everything is given back.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (_ *Node, err error) {
	log = log.With("node", cfg.Name) // which what is pushed has in its resource
	logs, lines := observability.NewLogs(log.Handler()), observability.NewLines()
	n := &Node{
		cfg: cfg, logs: logs, lines: lines, ready: make(chan struct{}), drivesEvery: drivesEvery,
		log: slog.New(lines.Handler(logs.Handler())), quiet: slog.New(lines.Handler(log.Handler())),
	}
	n.life, n.endLife = context.WithCancel(context.WithoutCancel(ctx))
	n.onClose(func() error { n.endLife(); return nil })
	defer func() {
		if err != nil {
			_ = n.Close()
		}
	}()
	// A listener that the caller opened is ours from here on, whatever happens.
	for _, l := range []net.Listener{cfg.GRPC.Listener, cfg.HTTP.Listener, cfg.Peer.Listener} {
		if l != nil {
			n.onClose(func() error { return ignoreClosed(l.Close()) })
		}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n.waitFor(errors.New("the node is starting"))
	for _, open := range []func(context.Context) error{
		// The data directory comes after what can be refused without it: then
		// nothing is left behind.
		n.openCertificates, n.openListeners, n.openTelemetry, n.openDir, n.openAudit, n.openGate, n.openGrid, n.openControl, n.openServices,
	} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// onClose remembers what to undo. Close runs these in reverse.
func (n *Node) onClose(f func() error) { n.closers = append(n.closers, f) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *Node) openDir(context.Context) error {
	dir, err := dataio.OpenDir(n.cfg.DataDir)
	if err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	n.dir = dir
	n.onClose(dir.Close)
	return n.publishAuthorities()
}

func (n *Node) openListeners(context.Context) error {
	for _, l := range []struct {
		field string
		cfg   ListenerConfig
		into  **listener
	}{
		{"GRPC", n.cfg.GRPC, &n.grpcListener},
		{"HTTP", n.cfg.HTTP, &n.httpListener},
		{"Peer", n.cfg.Peer, &n.peerListener},
	} {
		opened, err := listen(l.field, l.cfg, n.certs, n.log)
		if err != nil {
			return err
		}
		*l.into = opened
		n.onClose(func() error { return ignoreClosed(opened.Close()) })
	}
	n.peers = map[string]string{}
	for _, p := range n.cfg.Peers {
		n.peers[p.Name] = p.URL
	}
	if len(n.peers) == 0 {
		n.peers[n.cfg.Name] = n.peerListener.scheme() + "://" + n.peerListener.Addr().String()
	}
	return nil
}

func (n *Node) openTelemetry(ctx context.Context) error {
	t, err := observability.New(ctx, observability.Options{
		Node: n.cfg.Name, Version: n.cfg.Version,
		OTLP: n.cfg.OTLP, Logs: n.logs, Buckets: n.cfg.MetricsBuckets, Propagators: n.cfg.Propagators,
		// Pushed, it would be the next thing to be dropped.
		Failed: func(signal string, err error) { n.quiet.Warn("telemetry was dropped", "signal", signal, "error", err) },
	})
	if err != nil {
		return &ConfigError{Field: "OTLP", Err: err}
	}
	n.telemetry, n.spans = t, t.Spans()
	n.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		// A receiver that is down is no failure of the node's.
		if err := t.Shutdown(ctx); err != nil {
			n.quiet.Warn("the last telemetry was not pushed", "error", err)
		}
		return nil
	})
	host := n.cfg.Host
	if host == nil {
		host = observability.NewHost()
	}
	n.collector = observability.NewCollector(observability.CollectorOptions{
		Node: n.cfg.Name, Host: host, Drives: n.sampleDrives, Mesh: n.meshCounters, Requests: t.Requests(),
		Failed: func(err error) { n.log.Warn("a part of the host can't be sampled", "error", err) },
	})
	if n.instruments, err = newInstruments(t.Meter()); err != nil {
		return err
	}
	n.limits = newLimited(n.cfg.Limits, n.instruments.limited)
	if err := n.observe(n.observeCertificates); err != nil {
		return err
	}
	return n.collector.Register(t.Meter())
}

func (n *Node) openGrid(ctx context.Context) (err error) {
	hosts := make([]string, 0, len(n.peers))
	for _, name := range sortedKeys(n.peers) {
		hosts = append(hosts, n.peers[name])
	}
	n.grid, err = grid.NewManager(context.WithoutCancel(ctx), grid.ManagerOptions{
		Local:           n.peers[n.cfg.Name],
		Hosts:           hosts,
		Secrets:         n.cfg.MeshSecrets,
		TLS:             n.dialTLS(),
		CertificateName: n.certificateName,
		Realm:           n.realm,
		BackoffMax:      reconnectMax,
		Hooks:           n.gridHooks(),
	})
	if err != nil {
		return &ConfigError{Field: "Peers", Err: err}
	}
	n.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		return n.grid.Close(ctx)
	})
	return n.observe(n.observeGrid)
}

// realm is the mesh's id for the grid, "" until the index has confirmed it: a
// node of another mesh is let in so far that it can be told.
func (n *Node) realm() string {
	if c := n.agreed.Load(); c != nil {
		return c.Realm()
	}
	return ""
}

// conn gives the connection with a node by its name.
func (n *Node) conn(name string) *grid.Connection { return n.grid.Connection(n.urls()[name]) }

// urls maps the names of all nodes to their base URLs: those that the mesh
// knows, and before it is formed those of the configuration.
func (n *Node) urls() map[string]string {
	if urls := n.known.Load(); urls != nil {
		return *urls
	}
	return n.peers
}

// learnNodes takes over who belongs to the mesh. Where a node is, this node's
// configuration says first: the mesh may still have its address of before a
// move.
func (n *Node) learnNodes(t *control.Topology) {
	urls := make(map[string]string, len(t.Nodes))
	for i := range t.Nodes {
		name := t.Nodes[i].Name
		if urls[name] = n.peers[name]; urls[name] == "" {
			urls[name] = t.Nodes[i].URL
		}
	}
	n.known.Store(&urls)
}

// learnVouched takes over who is in the mesh that takes this node in, until the
// topology says so.
func (n *Node) learnVouched(urls map[string]string) {
	if n.known.CompareAndSwap(n.vouched, &urls) {
		n.vouched = &urls
	}
}

func (n *Node) openControl(ctx context.Context) (err error) {
	n.control, err = control.Open(ctx, control.Options{
		Dir: n.cfg.DataDir, Self: n.cfg.Name, Peers: n.peers, Grid: n.grid, Logger: n.log,
		Fetch:       n.fetchSnapshot,
		MeshSecrets: n.cfg.MeshSecrets,
		Hooks:       n.instruments.controlHooks(control.Hooks{Topology: n.learnNodes, Vouched: n.learnVouched, IAM: n.changedIdentities, Span: n.spanHook()}),
	})
	if err != nil {
		return err
	}
	n.agreed.Store(n.control)
	n.onClose(n.control.Close)
	return n.observe(n.observeRaft)
}

// fetchSnapshot reads a part of a file of another node's snapshot.
func (n *Node) fetchSnapshot(ctx context.Context, node, path string, offset, size int64, to io.Writer) error {
	objects := n.bulk.Load()
	if objects == nil {
		return errors.New("the bulk port isn't open yet")
	}
	return objects.FetchSnapshot(ctx, control.Node{Name: node, URL: n.urls()[node]}, path, offset, size, to)
}

// Admit lets a node into the mesh that this one is part of, unless it is there
// already. It waits until this node is ready.
func (n *Node) Admit(ctx context.Context, name, url string) error {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.control.Topology().Node(name) != nil {
		return nil
	}
	err := n.control.AdmitNode(ctx, name, url)
	if fault.KindOf(err) == fault.AlreadyExists {
		return nil
	}
	return err
}

// Addrs are the addresses the listeners have.
func (n *Node) Addrs() Addrs {
	return Addrs{
		GRPC: n.grpcListener.Addr().String(),
		HTTP: n.httpListener.Addr().String(),
		Peer: n.peerListener.Addr().String(),
	}
}

// Ready is closed when the node can do its work.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run serves until ctx ends, which is no error, or a part fails. On its way
// out it lets calls in flight finish, for at most ten seconds. Run is called
// once; Close comes after it.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(ctx, n.peerServer, n.peerListener.limited(n.limits.peer.Listen)) })
	g.Go(func() error {
		return serveHTTP(ctx, n.httpServer, n.httpListener.limited(n.limits.http.Listen).joined().plain(n.httpServer, n.direct.of))
	})
	g.Go(func() error { return n.serveGRPC(ctx) })
	g.Go(func() error { return ended(ctx, n.collector.Run(ctx)) })
	g.Go(func() error { return n.form(ctx) })
	g.Go(func() error { return n.reportHealth(ctx) })
	g.Go(func() error { return n.keepGate(ctx) })
	g.Go(func() error { return n.identities.run(ctx) })
	g.Go(func() error { n.audit.Run(ctx); return nil })
	g.Go(func() error { return n.keepRenewing(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-n.Failed():
			return n.Failure()
		}
	})
	return g.Wait()
}

// ended makes what a part says when its context has ended no error.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close gives back everything that Open took, in reverse. It may be called
// again, and then returns the same.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		var errs []error
		if n.telemetry != nil {
			// The instruments look at what is closed from here on.
			n.telemetry.StopMetrics(context.Background())
		}
		for i := len(n.closers) - 1; i >= 0; i-- {
			errs = append(errs, n.closers[i]())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}

// openServices makes what the listeners serve. Nothing is served before Run.
func (n *Node) openServices(context.Context) error {
	n.onClose(n.closeDrives)
	objects, err := object.New(object.Options{
		Self: n.cfg.Name, Deployment: n.control.Deployment, Index: n.index(), IndexDone: n.control.Done(), Topology: n.control.Topology,
		Grid: n.grid, Conn: n.conn, Secrets: n.cfg.MeshSecrets,
		TLS: n.dialTLS(), HostCertificates: n.hostCertificates(),
		SnapshotFile: n.control.SnapshotFile, Replicas: replicas, BadCopy: n.badCopy,
		Log: n.log, Hooks: n.objectHooks(),
	})
	if err != nil {
		return err
	}
	n.objects = objects
	for peer := range n.peers {
		if peer != n.cfg.Name {
			n.instruments.bulkConns.Add(context.Background(), 0, labels("peer", peer))
		}
	}
	n.bulk.Store(objects)
	n.onClose(objects.Close)
	if err := n.openHeal(); err != nil {
		return err
	}
	n.mesh = &mesh{
		self: n.cfg.Name, version: n.cfg.Version, urls: n.urls,
		grid: n.grid, control: n.control, collector: n.collector, certificates: n.certificates, log: n.log,
		drives: n.drivesNow, health: objects.Health,
	}
	n.mesh.storage = &storage{
		mesh: n.mesh, index: n.control, topology: n.control.Topology, health: objects.Health, heal: n.heal, replicas: replicas,
	}
	if err := n.mesh.register(); err != nil {
		return err
	}
	watched := &diagnostics{self: n.cfg.Name, urls: n.urls, grid: n.grid, calls: n.telemetry.Requests().Calls(), lines: n.lines, ending: n.showing()}
	if err := watched.register(); err != nil {
		return err
	}
	if err := checkHandlers(n.grid); err != nil {
		return err
	}
	n.identities = newIdentities(n.control, n.control.Deployment, n.gate, n.log)
	n.api, err = api.New(api.Options{
		Objects: objects, Cluster: n.mesh, Storage: n.mesh.storage, Resources: n.mesh, Auth: n.gate, Audit: n.audit,
		Identities: n.identities, Diagnostics: watched,
		Requests: n.telemetry.Requests(), Ready: n.waitReady, TLS: n.grpcListener.tls,
		Logger:  n.log,
		Callers: n.limits.callers, Uploads: n.limits.uploads, Conns: n.limits.grpc, Refused: n.limits.refused("grpc"),
		MaxStreams: uint32(n.limits.Streams), MaxFrames: n.limits.Frames,
		MaxHeaderBytes: uint32(n.limits.MetadataBytes), MaxMessageBytes: n.limits.MessageBytes,
		HandshakeTimeout: n.limits.HeaderTimeout, MaxConnectionIdle: n.limits.IdleTimeout,
	})
	if err != nil {
		return err
	}
	n.grpcServer = n.api.GRPCServer()
	n.onClose(func() error { n.grpcServer.Stop(); return nil }) // its workers, where Run never was
	bytes := door.New(door.Options{Objects: objects, Follow: n.follow, Still: n.still, Uploads: n.limits.uploads, Logger: n.log})
	n.direct = &direct{
		conns: n.limits.http, measure: measuredBy(n.telemetry.Requests()), auth: n.gate, callers: n.limits.callers, audit: n.audit,
		cors: n.cfg.CORS.rules(), ready: n.ready, door: bytes,
	}
	n.front = n.cfg.CORS.handler(&front{
		auth: n.gate, callers: n.limits.callers, audit: n.audit, ready: n.waitReady, state: n.state,
		door:      bytes,
		gateway:   n.api.Gateway(),
		openAPI:   api.OpenAPI(),
		metrics:   readsMetrics(serveMetrics(n.telemetry)),
		resources: readsMetrics(http.HandlerFunc(n.mesh.serveResources)),
		profiles:  new(profiler),
	})
	n.httpServer = n.newHTTPServer(n.telemetry.Requests().HTTP(n.front), n.limits.http)
	limits := n.httpServer.ConnContext
	n.httpServer.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return door.ConnContext(lean.ConnContext(observability.ConnContext(limits(ctx, c)), c), c)
	}
	peer := http.NewServeMux()
	peer.Handle(grid.RoutePath, bounded(n.grid.Handler()))
	peer.Handle("/", bounded(http.NotFoundHandler()))
	peer.Handle(object.BulkPath, objects.BulkHandler())
	n.peerServer = n.newHTTPServer(peer, n.limits.peer)
	return nil
}

// newHTTPServer makes the server of an HTTP listener, with its limits.
func (n *Node) newHTTPServer(h http.Handler, conns *limit.Conns) *http.Server {
	s := n.limits.server(h, conns)
	s.ErrorLog = slog.NewLogLogger(n.log.Handler(), slog.LevelDebug)
	return s
}
