package grid

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// RoutePath is where (*Manager).Handler is mounted. It is the protocol's
// name: a change of the protocol is a new path.
const RoutePath = "/grid/v1"

// ManagerOptions configures a Manager. The zero value of everything below
// Realm is the default given in parentheses.
type ManagerOptions struct {
	Local    string          // base URL of this server, "http://10.0.0.1:7402" or "https://…"
	Hosts    []string        // base URLs of all servers; Local may be among them
	Secrets  func() [][]byte // the first proves, all verify, so that a secret can be rotated
	TLS      *tls.Config     // for dialling; peers' names are checked against their certificates
	Insecure bool            // without Secrets and client certificates NewManager fails unless this is set
	Realm    func() string   // "" until agreed; once both ends have one they must be equal, live sessions included

	Hooks Hooks

	// Dial replaces the TCP dialler, in tests for instance. addr is "host:port".
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	MaxMessage       int           // bytes; largest payload taken or sent (16 MiB)
	StreamWindow     int           // bytes unread per stream and direction (256 KiB)
	SessionWindow    int           // bytes of bulk on their way per session and direction (512 KiB)
	ReassemblyBudget int           // bytes of partly received messages per session (64 MiB)
	InboundBudget    int           // bytes of requests being served per session (256 MiB)
	QueueLimit       int           // bytes waiting to be written per session (32 MiB)
	MaxConcurrent    int           // requests served at once per handler, where it sets none (131072)
	HandshakeTimeout time.Duration // from connect to ready (5 s)
	WriteTimeout     time.Duration // one write that makes no progress (10 s)
	PingInterval     time.Duration // silence before a ping (2 s)
	DeadAfter        time.Duration // silence before the session is dropped (10 s)
	BackoffMin       time.Duration // first bound of the reconnection jitter (50 ms)
	BackoffMax       time.Duration // last bound of it (5 s)
	CloseGrace       time.Duration // time for handlers to notice the end of their ctx in Close (1 s)
}

// Manager is one node's end of the grid: its handlers and its connections.
// All methods may be called from many goroutines at once.
type Manager struct{}

var errTODO = errors.New("grid: being built")

// NewManager starts a node's end of the grid. It connects to the hosts it
// dials in the background; ctx ends what Close would end, without draining.
func NewManager(ctx context.Context, o ManagerOptions) (*Manager, error) { return nil, errTODO }

// Local gives the normalised name of this node.
func (m *Manager) Local() string { return "" }

// Hosts lists the normalised names of all other nodes, sorted.
func (m *Manager) Hosts() []string { return nil }

// Connection gives the connection with a host, by its base URL in any
// spelling. It is never nil: calls on the connection of an unknown host give
// ErrUnknownHost. The local name gives a loopback.
func (m *Manager) Connection(host string) *Connection { return &Connection{} }

// AddHost makes a host known and connects to it. A known host is no error.
func (m *Manager) AddHost(host string) error { return errTODO }

// RemoveHost forgets a host: its session ends, and calls give ErrUnknownHost.
func (m *Manager) RemoveHost(host string) error { return errTODO }

// Handler serves the accepting end; mount it at RoutePath.
func (m *Manager) Handler() http.Handler { return http.NotFoundHandler() }

// Close drains until ctx ends (peers are told, running calls finish), then
// cancels what is left and joins every goroutine. It may be called again.
// Handlers that ignore the end of their ctx are named in a *StuckError and
// not waited for.
func (m *Manager) Close(ctx context.Context) error { return nil }

// Stats is a snapshot of every connection, sorted by host.
func (m *Manager) Stats() []ConnectionStats { return nil }
