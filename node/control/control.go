package control

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// Index is the replicated state behind two calls. All methods may be called
// from many goroutines at once. Errors are *fault.Error or the context's.
type Index interface {
	// Propose commits a command and returns its result once a majority has it
	// on disk and it is applied. Where ctx ends before that, it may or may not
	// happen.
	Propose(ctx context.Context, cmd *Command) (*Result, error)
	// Read answers a query from a state that shows every command that was
	// acknowledged before the call, or, with Query.MaxAge, that long before.
	Read(ctx context.Context, q *Query) (*Answer, error)
}

// Options configures Open.
type Options struct {
	Dir   string            // the node's data directory, which exists
	Self  string            // this node's name
	Peers map[string]string // names of the founding nodes, this one among them, and the base URLs of their peer listeners; nil: it is alone

	// Grid serves the other nodes' calls. A node alone needs none.
	Grid *grid.Manager
	// Fetch reads size bytes from offset on of a file of another node's
	// snapshot; that answers with the file that its SnapshotFile names. A node alone needs none.
	Fetch func(ctx context.Context, node, path string, offset, size int64, to io.Writer) error

	Logger *slog.Logger     // nil is silent
	Clock  func() time.Time // stamps commands; nil is time.Now
	// MeshSecrets gives the mesh secrets that this node accepts at the moment;
	// the first is the one it proves itself with. It must be quick, and may be
	// called from many goroutines. nil: there are none, and no access keys can be
	// made.
	MeshSecrets func() [][]byte
	Hooks       Hooks

	fs       vfs.FS        // nil is the real one
	logBytes int64         // of a group's log before it is cut; 0 is the engine's own
	boxKept  time.Duration // how long a box of the master is kept that nobody needs; 0 is keepBoxes
}

// Hooks is how the index reports. Every function may be nil, must be quick
// and must not block.
type Hooks struct {
	// Topology is told every change of the nodes.
	Topology func(*Topology)
	// Vouched is told the base URLs of the nodes of a mesh that takes this node
	// in, with those of the configuration, before it has a topology: one call at a
	// time.
	Vouched func(urls map[string]string)
	// IAM is told what IAM gives, at first and after it has changed. It is
	// called from a goroutine of its own and may take its time: what changes
	// meanwhile comes as one change.
	IAM func(*iam.Rows)
	// Committed reports a batch that was applied to a group: how many entries
	// it had and how long it took.
	Committed func(group string, entries int, took time.Duration)
	// Proposed reports a command that this node, as the leader of its group, has
	// seen through: how long it took until a majority had it and it was applied.
	Proposed func(group string, took time.Duration)
	// Led reports that a group has another leader, "" for none, or another term.
	Led func(group, leader string)
	// Span begins a part of a call that its trace shows by a name, and gives the
	// context for what belongs to it; end is called once, with the part's error.
	// It allocates nothing where the call has no trace.
	Span func(ctx context.Context, name string) (_ context.Context, end func(error))
}

// Control is a node's part of the index. See the package's doc.
type Control struct {
	self     string
	peers    map[string]string
	dir      string
	fs       vfs.FS
	log      *slog.Logger
	grid     *grid.Manager
	clock    func() time.Time
	hooks    Hooks
	fetch    func(ctx context.Context, node, path string, offset, size int64, to io.Writer) error
	logBytes int64
	secrets  func() [][]byte
	boxKept  time.Duration

	raftID uint64
	logs   *disk.Store
	engine atomic.Pointer[replica.Engine] // nil while the node has no part in a mesh
	system *state
	data   *state
	memory *semaphore.Weighted // bytes of the commands between propose and their answer

	deployment atomic.Pointer[string]
	confirmed  atomic.Bool // the system group has the same id in this run
	topology   atomic.Pointer[Topology]
	vouched    atomic.Pointer[vouched] // who takes this node in, while it is blank
	iam        iamFeed
	boxes      boxKeeping   // the steward's
	tightSince [2]time.Time // the steward's: since when this node leads a group without room, or offered to hand it over; zero: it doesn't
	members    membership
	links      links
	meetings   meetings
	freshness  [2]freshness // by group

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	joined  sync.WaitGroup
	waiting atomic.Bool   // somebody has said in the log that the index is waited for
	poked   chan struct{} // has room for one: tend should look now
	stirred chan struct{} // has room for one: steward should look now
	failed  chan struct{} // closed when the node can't go on
	failure error         // written before failed is closed
	once    sync.Once

	// mu guards what follows.
	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup // Add under mu, and not once closed is set
	unready error          // why the index can't be used from here; nil: it can
	changed chan struct{}  // closed and replaced when unready changes
	leading chan struct{}  // closed and replaced when a leader changes
	hint    string         // who leads the data group, as another node has said; "" unknown
}

// Propose implements Index.
func (c *Control) Propose(ctx context.Context, cmd *Command) (*Result, error) {
	full := complete(cmd)
	if err := full.validate(); err != nil {
		return nil, err
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	switch {
	case full.Init != nil || full.SealMaster != nil:
		return nil, errLeadersOwn()
	case full.CreateBucket != nil:
		return c.createBucket(ctx, full)
	case full.DeleteBucket != nil:
		return c.deleteBucket(ctx, full.DeleteBucket.Name)
	case full.PutRecord != nil && full.PutRecord.BucketID == [16]byte{}:
		return c.inBucket(ctx, full, full.PutRecord.BucketName, func(id [16]byte) *Command {
			put := *full.PutRecord
			put.BucketID = id
			return &Command{Version: full.Version, RequestID: full.RequestID, PutRecord: &put}
		})
	case full.DeleteRecords != nil && full.DeleteRecords.BucketID == [16]byte{}:
		return c.inBucket(ctx, full, full.DeleteRecords.Bucket, func(id [16]byte) *Command {
			del := *full.DeleteRecords
			del.BucketID = id
			return &Command{Version: full.Version, RequestID: full.RequestID, DeleteRecords: &del}
		})
	case full.SetQuota != nil && full.SetQuota.BucketID == [16]byte{}:
		return c.inBucket(ctx, full, full.SetQuota.Bucket, func(id [16]byte) *Command {
			quota := *full.SetQuota
			quota.BucketID = id
			return &Command{Version: full.Version, RequestID: full.RequestID, SetQuota: &quota}
		})
	case full.MoveRecord != nil && full.MoveRecord.From.BucketID == [16]byte{}:
		return c.move(ctx, full)
	}
	return c.commit(ctx, full)
}

// commit brings a command that is complete and valid to its group, and makes
// the Result of its outcome.
func (c *Control) commit(ctx context.Context, full *Command) (*Result, error) {
	out, err := c.submit(ctx, full)
	if err != nil {
		return nil, err
	}
	res, rest, err := out.result(full)
	// What would grow too large for one entry of the log leaves a part.
	for err == nil && rest != nil {
		if out, err = c.submit(ctx, rest); err != nil {
			break
		}
		var more *Result
		if more, rest, err = out.result(rest); err == nil {
			res.add(more)
		}
	}
	if err != nil {
		return nil, err
	}
	if res.Revision > 0 {
		c.catchUp(ctx, res.Revision)
	}
	return res, nil
}

// catchUp waits until this node's copy of the system group has an entry: who
// makes a key here can use it here.
func (c *Control) catchUp(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if v, err := c.system.at(ctx, index); err == nil {
		c.system.release(v)
	} // else it comes later: the command is carried out
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

// state gives a group's.
func (c *Control) state(g replica.GroupID) *state {
	if g == systemGroup {
		return c.system
	}
	return c.data
}

// Deployment is the id of the mesh, "" until it is agreed. It never changes
// after that.
func (c *Control) Deployment() string {
	if id := c.deployment.Load(); id != nil {
		return *id
	}
	return ""
}

// Realm is the mesh's id once the system group has confirmed it to this run of
// the node, and "" before: for the grid's handshake. A node that comes with the
// id of another mesh can so still be told what is wrong.
func (c *Control) Realm() string {
	if c.confirmed.Load() {
		return c.Deployment()
	}
	return ""
}

// Topology is the newest view of the nodes that this node has. It is never
// nil, has epoch 0 until one is known, and is immutable.
func (c *Control) Topology() *Topology { return c.topology.Load() }

// IAM is all users and keys, as this node's copy of the system group has them:
// never nil, and immutable. What Propose has returned for here is in it. Users
// and Keys are in the order of their names and ids, Epoch is the index of the
// last entry that changed any of it, and LastUsed is always 0: queries have it.
func (c *Control) IAM() *iam.Rows { return c.iam.now() }

// SystemAge is how old this node's copy of the system group may be: it shows
// everything that was acknowledged up to so long ago. It is at most some two
// seconds while the node and a majority can reach each other, and the longest
// duration there is until they have for the first time.
func (c *Control) SystemAge() time.Duration { return c.freshness[systemGroup].age() }

// tellIAM tells the hook of changes.
func (c *Control) tellIAM() {
	for last := (*iam.Rows)(nil); ; {
		if rows := c.IAM(); rows != last {
			c.hooks.IAM(rows)
			last = rows
		}
		select {
		case <-c.iam.wake:
		case <-c.ctx.Done():
			return
		}
	}
}

// Ready tells whether the mesh's id is agreed and the system group can be
// read from here: nil, or the reason why not.
func (c *Control) Ready() error {
	if err := c.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unready
}

// WaitReady returns nil when Ready does. It returns the reason why not when
// ctx ends, and at once where waiting can't help: this node belongs to
// another mesh, its disk has failed, or it is closed.
func (c *Control) WaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed, closed := c.changed, c.closed
		c.mu.Unlock()
		err := c.Ready()
		if failed := c.Err(); failed != nil { // since Ready has looked, perhaps
			return failed
		}
		if err == nil || closed || fault.KindOf(err) == fault.WrongMesh {
			return err
		}
		select {
		case <-changed:
		case <-c.failed:
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

// Done is closed when the node can't go on: its disk has failed, it belongs to
// another mesh, or has left this one. The node must stop, and Err says why.
func (c *Control) Done() <-chan struct{} { return c.failed }

// Err is why Done is closed, nil while it isn't.
func (c *Control) Err() error {
	select {
	case <-c.failed:
		return c.failure
	default:
		return nil
	}
}

// fail says that the node can't go on. The first reason is kept.
func (c *Control) fail(err error) {
	c.once.Do(func() {
		c.failure = err
		close(c.failed)
	})
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

// Close ends the node's part: leadership is handed over, calls end with
// Unavailable, and everything is joined. It may be called again.
func (c *Control) Close() error {
	c.handOver() // while calls are still served
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
	c.links.close()
	c.calls.Wait()
	c.joined.Wait()
	if e := c.engine.Load(); e != nil {
		e.Close()
		if e.Stranded() {
			return nil // a write hangs in the kernel: the process has to end
		}
	}
	for _, s := range []*state{c.system, c.data} {
		if s != nil {
			s.close()
		}
	}
	if c.logs != nil {
		return c.logs.Close()
	}
	return nil
}
