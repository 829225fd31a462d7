package control

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
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
	Dir   string   // the node's data directory, which exists; the index is below it in state/
	Self  string   // this node's name
	Peers []string // names of all nodes; Self may be left out
	Owner string   // the node that holds the index; "" is the first of the sorted names

	// Grid serves the other nodes' calls, and Conn gives the connection with
	// a node by its name, never nil. A node alone needs neither.
	Grid *grid.Manager
	Conn func(node string) *grid.Connection

	Logger *slog.Logger     // nil is silent
	Clock  func() time.Time // stamps commands; nil is time.Now
	Hooks  Hooks

	fs vfs.FS // nil is the real one
}

// Hooks is how the index reports. Every function may be nil, must be quick
// and must not block.
type Hooks struct {
	// Committed reports a batch on the owner: how many commands shared its
	// sync, how large it was and how long it took from the first's start.
	Committed func(commands, bytes int, took time.Duration)
}

// Control is a node's way to the index. See the package's doc.
type Control struct {
	self  string
	owner string // name of the node that holds the index
	dir   string
	fs    vfs.FS
	log   *slog.Logger
	grid  *grid.Manager

	local  *owner           // on the owner; nil elsewhere
	remote *grid.Connection // with the owner; nil on the owner

	deployment atomic.Pointer[string]
	confirmed  atomic.Bool // the owner has the same id, or is this node
	topology   atomic.Pointer[Topology]

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	joined  sync.WaitGroup // follow
	refresh chan struct{}  // has room for one: follow should ask the owner now
	waiting atomic.Bool    // somebody has said in the log that the owner is waited for
	never   chan struct{}  // Done, where there is no store that can fail

	// mu guards what follows.
	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup // Add under mu, and not once closed is set
	unready error          // why the index can't be used from here; nil: it can
	changed chan struct{}  // closed and replaced when unready changes
}

// Propose implements Index.
func (c *Control) Propose(ctx context.Context, cmd *Command) (*Result, error) {
	if cmd.Init != nil {
		return nil, fault.New(fault.InvalidArgument, "command", "is an Init, which is the owner's own")
	}
	full := complete(cmd)
	if err := full.validate(); err != nil {
		return nil, err
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	out, err := c.submit(ctx, full)
	if err != nil {
		return nil, err
	}
	res, left, err := out.result(full)
	// A DeleteRecords that would grow too large for one entry leaves keys.
	for err == nil && len(left) > 0 {
		rest := complete(&Command{DeleteRecords: &DeleteRecords{Bucket: full.DeleteRecords.Bucket, Keys: left}})
		if out, err = c.submit(ctx, rest); err != nil {
			break
		}
		var more *Result
		if more, left, err = out.result(rest); err == nil {
			more.Deleted = append(res.Deleted, more.Deleted...)
			more.Missing = append(res.Missing, more.Missing...)
			res = more
		}
	}
	if err != nil {
		return nil, err
	}
	c.notice(res.Epoch)
	return res, nil
}

// complete gives a command what its caller may leave out.
func complete(cmd *Command) *Command {
	full := *cmd
	if full.Version == 0 {
		full.Version = CommandVersion
	}
	if full.RequestID == ([16]byte{}) {
		full.RequestID = randomID()
	}
	if full.CreateBucket != nil && full.CreateBucket.ID == ([16]byte{}) {
		full.CreateBucket = &CreateBucket{Name: full.CreateBucket.Name, ID: randomID()}
	}
	return &full
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	return id
}

// submit brings a complete command to the owner.
func (c *Control) submit(ctx context.Context, cmd *Command) (*outcome, error) {
	if c.local != nil {
		return c.local.propose(ctx, cmd)
	}
	return ask(ctx, c, proposeCall.Call, cmd)
}

// Read implements Index.
func (c *Control) Read(ctx context.Context, q *Query) (*Answer, error) {
	full := *q
	if full.Version == 0 {
		full.Version = QueryVersion
	}
	if err := full.validate(); err != nil {
		return nil, err
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	if c.local != nil {
		return c.local.read(ctx, &full)
	}
	a, err := ask(ctx, c, readCall.Call, &full)
	if err != nil {
		return nil, err
	}
	c.notice(a.Epoch)
	return a, nil
}

// Deployment is the id of the mesh, "" until it is agreed. It never changes
// after that.
func (c *Control) Deployment() string {
	if id := c.deployment.Load(); id != nil {
		return *id
	}
	return ""
}

// Realm is the mesh's id once the owner has confirmed it to this run of the
// node, and "" before: for the grid's handshake. A node that comes with the id
// of another mesh can so still ask, and say what is wrong; until then it asks
// nothing else.
func (c *Control) Realm() string {
	if c.confirmed.Load() {
		return c.Deployment()
	}
	return ""
}

// Topology is the newest view of the nodes that this node knows. It is never
// nil, has epoch 0 until one is known, and is immutable.
func (c *Control) Topology() *Topology { return c.topology.Load() }

// notice asks for a new view of the topology where an answer speaks of one.
func (c *Control) notice(epoch uint64) {
	if c.remote != nil && epoch > c.Topology().Epoch {
		c.poke()
	}
}

// poke makes follow ask the owner now.
func (c *Control) poke() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// Ready tells whether the deployment id is agreed and the index can be used
// from here: nil, or the reason why not.
func (c *Control) Ready() error {
	if c.local != nil {
		if err := c.local.store.failure(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	err := c.unready
	c.mu.Unlock()
	if c.remote != nil && fault.KindOf(err) == fault.Waiting {
		return c.waitingFor(err) // with the latest failure to connect
	}
	return err
}

// WaitReady returns nil when Ready does. It returns the reason why not when
// ctx ends, and at once where waiting can't help: this node belongs to
// another mesh, its store has failed, or it is closed.
func (c *Control) WaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed, closed := c.changed, c.closed
		c.mu.Unlock()
		err := c.Ready()
		if err == nil || closed || c.Err() != nil || fault.KindOf(err) == fault.WrongMesh {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// setUnready says whether the index can be used.
func (c *Control) setUnready(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.unready = err
	close(c.changed)
	c.changed = make(chan struct{})
}

// Done is closed when the index can't go on, because its store has failed:
// the node must stop, and Err has the reason.
func (c *Control) Done() <-chan struct{} {
	if c.local != nil {
		return c.local.store.failed
	}
	return c.never
}

// Err is why Done is closed, nil while it isn't.
func (c *Control) Err() error {
	if c.local != nil {
		return c.local.store.failure()
	}
	return nil
}

// enter begins a call, which leave ends; Close waits for it.
func (c *Control) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errStopping()
	}
	c.calls.Add(1)
	return nil
}

func (c *Control) leave() { c.calls.Done() }

func errStopping() error { return fault.New(fault.Unavailable, "index", "the node is stopping") }

// Close ends the node's part: a batch that is being committed completes,
// other calls end with Unavailable, and everything is joined. It may be
// called again.
func (c *Control) Close() error {
	c.mu.Lock()
	first := !c.closed
	if first {
		c.closed = true
		c.unready = errStopping()
		close(c.changed)
	}
	c.mu.Unlock()
	if !first {
		return nil
	}
	c.cancel()
	c.joined.Wait()
	if c.local != nil {
		c.local.halt()
	}
	c.calls.Wait()
	if c.local == nil {
		return nil
	}
	return c.local.close()
}
