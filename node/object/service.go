package object

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
)

// Options configures a Service. The zero value of everything below Insecure is
// the default given in parentheses.
type Options struct {
	Self       string                             // this node's name
	Deployment func() string                      // the mesh's id; "" until agreed
	Index      control.Index                      // buckets and records
	Topology   func() *control.Topology           // latest known view of nodes and drives; may be nil
	Grid       *grid.Manager                      // New registers the handlers 200–299 here
	Conn       func(node string) *grid.Connection // of a node by name; never nil
	Drives     []*dataio.Drive                    // this node's; more by AddDrive. Closing them is the caller's
	Secrets    func() [][]byte                    // mesh secrets: the first signs, all verify
	TLS        *tls.Config                        // for dialling https peers' bulk ports
	Insecure   bool                               // take bulk requests without a secret and a client certificate

	// Dial replaces the TCP dialler of the bulk port. addr is "host:port".
	Dial  func(ctx context.Context, addr string) (net.Conn, error)
	Log   *slog.Logger // (discarded)
	Hooks Hooks

	SegmentBytes int64         // payload files' largest size, for tests (SegmentMaxBytes)
	WaitTimeout  time.Duration // longest wait for a node or drive that isn't there (10 s)
	BulkUploads  int           // uploads served at once on the bulk port (128)
	BulkReads    int           // reads served at once on the bulk port (1024)
	BulkConns    int           // open bulk connections per peer (256)
	ReclaimGrace time.Duration // age of garbage before its files are removed (10 min)
	ReclaimEvery time.Duration // pause between two looks for garbage, jittered (1 min)
}

// Hooks reports what happens, for metrics. Each may be nil; they are called
// from many goroutines at once and must not block.
type Hooks struct {
	// Sent counts payload bytes that a reader sent, by the way that was asked
	// for. Whether the kernel went along is for dataio's events to say.
	Sent func(path Path, bytes int64)
	// BulkConns reports bulk connections opened (+1) and closed (-1) to a node.
	BulkConns func(node string, delta int)
	// Reclaimed reports payload files removed because no record refers to
	// them any more.
	Reclaimed func(files int, bytes int64)
	// LeftBehind reports payload files that a failed put could not remove:
	// their node was gone, or it is unknown whether the commit went through.
	LeftBehind func(files int)
}

// Path is the way that payload takes to a reader's destination.
type Path uint8

// The paths.
const (
	PathInline   Path = iota // from the record, copied
	PathSendfile             // from a file here to a destination with ReadFrom
	PathSplice               // from a bulk connection to a destination with ReadFrom
	PathCopy                 // through memory
	PathGrid                 // out of one grid message, copied
)

// Service is one node's objects. All methods may be called from many
// goroutines at once.
type Service struct{}

// New makes the service and registers its grid handlers. It starts nothing.
func New(o Options) (*Service, error) { return nil, errTODO }

// AddDrive makes one more drive of this node serve.
func (s *Service) AddDrive(d *dataio.Drive) {}

// Run does the background work (removing files that nothing refers to,
// closing idle bulk connections) until ctx ends; it joins what it started and
// returns nil. Everything else works without it.
func (s *Service) Run(ctx context.Context) error { return errTODO }

// Close waits for removals in the background and closes the bulk connections.
// It is called after the listeners have stopped, and may be called again.
func (s *Service) Close() error { return nil }

// BulkHandler serves the peer listener's /bulk/v1/.
func (s *Service) BulkHandler() http.Handler { return http.NotFoundHandler() }
