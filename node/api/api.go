// Package api is the outside of a node: gRPC services, and the same as JSON.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"

	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// Options configures an API. Objects, Cluster, Resources and Auth are
// required; the zero value of everything below TLS is the default given in
// parentheses.
type Options struct {
	Objects   *object.Service
	Cluster   Cluster
	Resources Resources
	Auth      *iam.Authenticator
	Requests  *observability.Requests // counts gRPC calls; nil counts none
	// Ready waits until the node can do its work, or says what is missing. It
	// is asked before every gRPC call but health and reflection, after
	// authentication. The gateway doesn't ask: the HTTP listener did. Nil is
	// always ready.
	Ready  func(ctx context.Context) error
	Logger *slog.Logger // nil discards
	TLS    *tls.Config  // nil: plaintext
}

// Cluster describes the mesh.
type Cluster interface {
	Describe(ctx context.Context) (*ClusterInfo, error)
}

// ClusterInfo is the mesh as one node sees it.
type ClusterInfo struct {
	DeploymentID string
	Node         string     // the one that answers
	Nodes        []NodeInfo // in the order of their names
}

// NodeInfo describes one node. Version and Drives are known while it is up.
type NodeInfo struct {
	Name    string
	PeerURL string
	Version string
	Up      bool
	Index   bool // keeps the index
	Drives  []DriveInfo
}

// DriveInfo describes one drive.
type DriveInfo struct {
	ID, Path                         string
	State                            string // online, read_only, suspect, offline
	TotalBytes, UsedBytes, FreeBytes int64
}

// Resources reports what the nodes use.
type Resources interface {
	// Resources gives the resources of one node, of this one ("local"), or of
	// all (""), in the order of their names. A node that is down is in it, and
	// says why.
	Resources(ctx context.Context, node string) ([]*observability.Resources, error)
}

// API is the outside of a node but for the bytes over HTTP.
type API struct{}

// New makes the services. It starts nothing.
func New(o Options) (*API, error) { return nil, errors.New("api: being built") }

// GRPCServer is the gRPC server with every service, health and reflection. The
// caller serves and stops it.
func (a *API) GRPCServer() *grpc.Server { return nil }

// Gateway serves /v1/: the unary calls as JSON. It expects the principal in
// the request's context and refuses requests without one.
func (a *API) Gateway() http.Handler { return http.NotFoundHandler() }

// SetServing makes the gRPC health service say SERVING or NOT_SERVING. It
// begins with the latter.
func (a *API) SetServing(serving bool) {}

// OpenAPI serves the OpenAPI description of the gateway.
func OpenAPI() http.Handler { return http.NotFoundHandler() }
