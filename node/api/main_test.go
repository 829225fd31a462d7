package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newObjects gives the objects of a mesh of one node with one drive.
func newObjects(t testing.TB) *object.Service {
	t.Helper()
	return newObjectsOver(t, func(index control.Index) control.Index { return index })
}

// newObjectsOver is newObjects with something between them and the index.
func newObjectsOver(t testing.TB, between func(control.Index) control.Index) *object.Service {
	t.Helper()
	index, err := control.Open(t.Context(), control.Options{Dir: t.TempDir(), Self: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	if err := index.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	drive, err := dataio.Open(t.Context(), t.TempDir(), dataio.Options{Deployment: index.Deployment(), Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = drive.Close() })
	join := &control.JoinNode{Node: "a", URL: "http://127.0.0.1:1", Drives: []string{drive.ID()}}
	if _, err := index.Propose(t.Context(), &control.Command{JoinNode: join}); err != nil {
		t.Fatal(err)
	}
	objects, err := object.New(object.Options{
		Self: "a", Index: between(index), Deployment: index.Deployment, Topology: index.Topology, Drives: []*dataio.Drive{drive},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close() })
	return objects
}

// stubMesh is the part of package node that the API asks.
type stubMesh struct {
	cluster   *ClusterInfo
	resources []*observability.Resources
	watched   chan observability.Watched
	diagnosis *Diagnosis
	describe  func() error // called by Describe
	drives    []DriveInfo
	pools     []PoolInfo
	heal      *HealInfo
	usage     BucketUsage

	changes []string // what was asked of it
	refuse  error    // its answer to that
}

func (m *stubMesh) Describe(context.Context) (*ClusterInfo, error) {
	if m.describe != nil {
		if err := m.describe(); err != nil {
			return nil, err
		}
	}
	return m.cluster, nil
}

func (m *stubMesh) change(format string, args ...any) error {
	m.changes = append(m.changes, fmt.Sprintf(format, args...))
	return m.refuse
}

func (m *stubMesh) AdmitNode(_ context.Context, name, url string) error {
	return m.change("admit %s at %s", name, url)
}

func (m *stubMesh) RemoveNode(_ context.Context, name string, force bool) error {
	return m.change("remove %s, force %v", name, force)
}

func (m *stubMesh) ReplaceNode(_ context.Context, name string, force bool) error {
	return m.change("replace %s, force %v", name, force)
}

func (m *stubMesh) DrainNode(_ context.Context, name string, undo, force bool) error {
	return m.change("drain %s, undo %v, force %v", name, undo, force)
}

func (m *stubMesh) Resources(_ context.Context, node string) ([]*observability.Resources, error) {
	if node != "" && node != "local" {
		return nil, fault.New(fault.InvalidArgument, "node", "%q is no node of this mesh", node)
	}
	return m.resources, nil
}

// Watch sends what watched has, and then waits for the end of ctx.
func (m *stubMesh) Watch(ctx context.Context, node string, send func(observability.Watched) error) error {
	if node != "" && node != "local" {
		return fault.New(fault.InvalidArgument, "node", "%q is no node of this mesh", node)
	}
	for {
		select {
		case w, more := <-m.watched:
			if !more {
				return nil
			}
			if err := send(w); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *stubMesh) Diagnose(context.Context) (*Diagnosis, error) { return m.diagnosis, nil }

// asHeader says who a request to served.http is of, which is nothing that the
// API knows of.
const asHeader = "Test-As"

// served is an API behind real listeners.
type served struct {
	api    *API
	mesh   *stubMesh
	keeper *keeper
	addr   net.Addr         // of gRPC
	conn   *grpc.ClientConn // with the root key
	bare   *grpc.ClientConn // without
	http   *httptest.Server // the gateway, for everybody, as root, or as who asHeader has
	open   *httptest.Server // the gateway, without a principal
}

// serve starts an API. change may be nil.
func serve(t testing.TB, change func(*Options)) *served {
	t.Helper()
	root := iam.Generate("root")
	s := &served{mesh: &stubMesh{cluster: &ClusterInfo{}}}
	s.keeper = newKeeper(t, root)
	o := Options{Cluster: s.mesh, Storage: s.mesh, Resources: s.mesh, Identities: s.keeper, Auth: s.keeper.gate}
	if change != nil {
		change(&o)
	}
	if o.Objects == nil {
		o.Objects = newObjects(t)
	}
	var err error
	if s.api, err = New(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.api.GRPCServer().Serve(l) }()
	t.Cleanup(func() {
		s.api.GRPCServer().Stop()
		if err := <-stopped; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	s.addr = l.Addr()
	s.conn = dial(t, l.Addr(), "Bearer "+root.String())
	s.bare = dial(t, l.Addr(), "")

	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		as := iam.Principal{ID: iam.RootID, User: iam.RootID, Root: true, Via: iam.ViaRoot, Door: "http"}
		if given := r.Header.Get(asHeader); given != "" {
			var err error
			if as, err = s.keeper.gate.Verify(iam.Request{Authorization: given, Door: "http", Now: time.Now()}); err != nil {
				fault.WriteProblem(w, fault.Wrap(fault.Unauthenticated, "", err))
				return
			}
		}
		s.api.Gateway().ServeHTTP(w, r.WithContext(iam.WithPrincipal(r.Context(), as)))
	}))
	t.Cleanup(s.http.Close)
	s.open = httptest.NewServer(s.api.Gateway())
	t.Cleanup(s.open.Close)
	return s
}

// dial makes a client that sends credential, where there is one.
func dial(t testing.TB, addr net.Addr, credential string) *grpc.ClientConn {
	t.Helper()
	with := func(ctx context.Context) context.Context {
		if credential == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, "authorization", credential)
	}
	conn, err := grpc.NewClient(addr.String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(with(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(with(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// must gives the value of a call that can't fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("unexpected error: %v", err))
	}
	return v
}

// newServer serves h.
func newServer(t testing.TB, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// logBuffer is a log that a test reads while a server writes.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
