package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// Options configures an API. Objects, Cluster, Storage, Resources, Identities and
// Auth are required; the zero value of everything below TLS is the default given in
// parentheses.
type Options struct {
	Objects    *object.Service
	Cluster    Cluster
	Storage    Storage
	Resources  Resources
	Identities Identities
	// Diagnostics shows what the nodes are doing; nil: the calls for that are
	// refused.
	Diagnostics Diagnostics
	Auth        *iam.Gate
	Audit       *audit.Log              // nil keeps none
	Requests    *observability.Requests // measures gRPC calls; nil measures none
	// Ready waits until the node can do its work, or says what is missing. It
	// is asked before every gRPC call but health and reflection, after
	// authentication. The gateway doesn't ask: the HTTP listener did. Nil is
	// always ready.
	Ready  func(ctx context.Context) error
	Logger *slog.Logger // nil discards
	TLS    *tls.Config  // nil: plaintext

	Callers limit.Callers      // limits of who calls over gRPC; the gateway's door has asked
	Uploads *limit.Uploads     // nil: no limit
	Conns   *limit.Conns       // of the gRPC listener; nil: not told what they do
	Refused func(limit string) // what a connection was closed for; nil is nobody

	// What a gRPC connection may cost. grpc's own defaults bound little of it.
	MaxStreams        uint32        // calls at once on a connection (256)
	MaxHeaderBytes    uint32        // metadata of a call (16 KiB)
	MaxMessageBytes   int           // one received message; bodies come in chunks (4 MiB)
	MaxFrames         int           // frames a second that ask for nothing (500)
	Untaken           time.Duration // how long an answer lies ready of which nothing leaves (8 s)
	HandshakeTimeout  time.Duration // from connect to ready (10 s)
	MaxConnectionIdle time.Duration // without a call (15 min)
	MaxConnectionAge  time.Duration // then no new calls; those under way end in their time (1 h)
	PingInterval      time.Duration // silence before a ping (1 min)
	PingTimeout       time.Duration // silence after it before the connection is dropped (20 s)

	// Stall is how long a stream waits for its client to send or to take a
	// message with a byte of payload in it. One of the greatest size, 4 MiB,
	// must come in this time. (30 s)
	Stall time.Duration

	// BodyTimeout is how long the body of a JSON request may take to come, and
	// that of its answer to go. (30 s)
	BodyTimeout time.Duration

	chunks *chunkPool // New makes it
}

// maxMessageBytes is the largest received message unless Options says otherwise.
// Bodies come in chunks, so that no call needs more.
const maxMessageBytes = 4 << 20

// streamWorkers is how many calls of all connections find a goroutine that has
// had one before, whose stack is as large as they need: growing it took an
// eighth of a small download's processor time. The others get new ones.
const streamWorkers = 64

// How much clients may send ahead. That of a stream lies in memory when it comes
// faster than the drives take it, so it bounds what uploads cost: grpc's own
// estimate goes up to 16 MiB for each. That of a connection doesn't, as grpc opens
// it again with every frame that has come: it is what may be on the way, of all
// of a connection's streams, in a time there and back.
const (
	streamWindowBytes = 512 << 10
	connWindowBytes   = 4 << 20
)

// minClientPing is how often a client may ping; one that does it more often is
// disconnected.
const minClientPing = 20 * time.Second

// API is the outside of a node but for the bytes over HTTP.
type API struct {
	server  *grpc.Server
	health  *health.Server
	gateway *gateway
	chunks  *chunkPool
	stop    context.CancelCauseFunc // of the guard's stopping
}

// New makes the services. It starts nothing.
func New(o Options) (*API, error) {
	if o.Objects == nil || o.Cluster == nil || o.Storage == nil || o.Resources == nil || o.Identities == nil || o.Auth == nil {
		return nil, errors.New("api: Objects, Cluster, Storage, Resources, Identities and Auth are required")
	}
	o.setDefaults()
	o.chunks = new(chunkPool)
	stopping, stop := context.WithCancelCause(context.Background())
	g := &guard{
		auth: o.Auth, audit: o.Audit, callers: o.Callers, ready: o.Ready, permissions: permissions(),
		stall: o.Stall, strangers: o.HandshakeTimeout, stopping: stopping, log: o.Logger,
	}
	a := &API{server: grpc.NewServer(serverOptions(&o, g)...), health: health.NewServer(), chunks: o.chunks, stop: stop}
	register(streams{a.server}, &o)
	healthpb.RegisterHealthServer(streams{a.server}, a.health)
	reflection.Register(a.server)
	a.SetServing(false)

	conn := newInProcess(g.local, g.localStream)
	register(conn, &o)
	var routes []route
	for _, desc := range services() {
		more, err := routesOf(desc)
		if err != nil {
			return nil, err
		}
		routes = append(routes, more...)
	}
	var err error
	if a.gateway, err = newGateway(conn, routes, o.BodyTimeout); err != nil {
		return nil, err
	}
	return a, nil
}

func (o *Options) setDefaults() {
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&o.HandshakeTimeout, 10 * time.Second},
		{&o.MaxConnectionIdle, 15 * time.Minute},
		{&o.MaxConnectionAge, time.Hour},
		{&o.PingInterval, time.Minute},
		{&o.PingTimeout, 20 * time.Second},
		{&o.Stall, 30 * time.Second},
		{&o.Untaken, 8 * time.Second},
		{&o.BodyTimeout, 30 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.standard
		}
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 256
	}
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 16 << 10
	}
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = maxMessageBytes
	}
	if o.MaxFrames <= 0 {
		o.MaxFrames = 500
	}
}

func serverOptions(o *Options, g *guard) []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.Creds(transport(o)),
		grpc.StatsHandler(&connStats{o.Conns}),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.MaxRecvMsgSize(o.MaxMessageBytes),
		grpc.MaxConcurrentStreams(o.MaxStreams),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxHeaderListSize(o.MaxHeaderBytes),
		grpc.ConnectionTimeout(o.HandshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
		// No MaxConnectionAgeGrace: a long transfer is not cut off for its age.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: o.MaxConnectionIdle,
			MaxConnectionAge:  o.MaxConnectionAge,
			Time:              o.PingInterval,
			Timeout:           o.PingTimeout,
		}),
	}
	if o.Requests != nil {
		options = append(options, grpc.StatsHandler(o.Requests.StatsHandler()))
	}
	return options
}

// services are the services of the API: what gRPC and the gateway share.
func services() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{
		&pb.BucketService_ServiceDesc,
		&pb.ObjectService_ServiceDesc,
		&pb.ClusterService_ServiceDesc,
		&pb.StorageService_ServiceDesc,
		&pb.MetricsService_ServiceDesc,
		&pb.IAMService_ServiceDesc,
		&pb.DiagnosticsService_ServiceDesc,
	}
}

func register(r grpc.ServiceRegistrar, o *Options) {
	pb.RegisterBucketServiceServer(r, &bucketService{objects: o.Objects, storage: o.Storage})
	pb.RegisterObjectServiceServer(r, &objectService{objects: o.Objects, uploads: o.Uploads, chunks: o.chunks})
	pb.RegisterClusterServiceServer(r, &clusterService{cluster: o.Cluster})
	pb.RegisterStorageServiceServer(r, &storageService{storage: o.Storage})
	pb.RegisterMetricsServiceServer(r, &metricsService{resources: o.Resources})
	pb.RegisterIAMServiceServer(r, &iamService{identities: o.Identities, now: time.Now})
	pb.RegisterDiagnosticsServiceServer(r, &diagnosticsService{diagnostics: o.Diagnostics})
}

// GRPCServer is the gRPC server with every service, health and reflection. The
// caller serves and stops it.
func (a *API) GRPCServer() *grpc.Server { return a.server }

// Gateway serves /v1/: the calls that have JSON forms. It expects the principal in
// the request's context and refuses requests without one.
func (a *API) Gateway() http.Handler { return a.gateway }

// EndWatches ends the streams that would go on for as long as their clients
// like, health's Watch and reflection, and refuses new ones. It is for the begin
// of a stop, before GracefulStop, which would wait for them.
func (a *API) EndWatches() {
	a.stop(fault.New(fault.Unavailable, "", "the node is stopping"))
}

// SetServing makes the gRPC health service say SERVING or NOT_SERVING, for the
// server ("") and for each service. It begins with the latter.
func (a *API) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	a.health.SetServingStatus("", state)
	for _, desc := range services() {
		a.health.SetServingStatus(desc.ServiceName, state)
	}
}
