package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// Index is the replicated state behind two calls. All methods may be called
// from many goroutines at once. Errors are *fault.Error or the context's.
type Index interface {
	// Propose commits a command and returns its result once that is durable.
	// When ctx ends before the command was taken from the queue, nothing
	// happens; after that it completes, whether or not anybody waits for it.
	Propose(ctx context.Context, cmd *Command) (*Result, error)
	// Read answers a query from a state that shows every command that was
	// acknowledged before the call.
	Read(ctx context.Context, q *Query) (*Answer, error)
}

// Options configures Open.
type Options struct {
	Dir   string   // the node's data directory; the index is below it in state/
	Self  string   // this node's name
	Peers []string // names of all nodes; Self may be left out
	Owner string   // the node that holds the index; "" is the first of the sorted names

	// Grid serves the other nodes' calls, and Conn gives the connection with
	// a node by its name. A node alone needs neither.
	Grid *grid.Manager
	Conn func(node string) *grid.Connection

	Logger *slog.Logger     // nil is silent
	Clock  func() time.Time // stamps commands; nil is time.Now
}

// Control is a node's way to the index. See the package's doc.
type Control struct{}

var errBeingBuilt = errors.New("control: being built")

// Open opens the index on the owner, and the way to it elsewhere. It does not
// wait for other nodes: WaitReady does.
func Open(ctx context.Context, o Options) (*Control, error) { return nil, errBeingBuilt }

// Propose implements Index.
func (c *Control) Propose(ctx context.Context, cmd *Command) (*Result, error) {
	return nil, errBeingBuilt
}

// Read implements Index.
func (c *Control) Read(ctx context.Context, q *Query) (*Answer, error) { return nil, errBeingBuilt }

// Deployment is the id of the mesh, "" until it is agreed. It never changes
// after that.
func (c *Control) Deployment() string { return "" }

// Topology is the newest view of the nodes that this node knows. It is never
// nil, and has epoch 0 until one is known.
func (c *Control) Topology() *Topology { return &Topology{} }

// WaitReady returns when the deployment id is agreed and the index can be
// read from here, or with the reason why not when ctx ends, and at once
// where waiting can't help.
func (c *Control) WaitReady(ctx context.Context) error { return errBeingBuilt }

// Ready is WaitReady's answer of this moment: nil, or the reason.
func (c *Control) Ready() error { return errBeingBuilt }

// Done is closed when the index can't go on, because its store failed: the
// node must stop, and Err has the reason.
func (c *Control) Done() <-chan struct{} { return nil }

// Err is why Done is closed.
func (c *Control) Err() error { return nil }

// Close ends the node's part: calls in flight end with Unavailable, and
// everything is joined.
func (c *Control) Close() error { return nil }
