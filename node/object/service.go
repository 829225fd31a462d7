package object

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// Options configures a Service. The zero value of everything below Insecure is
// the default given in parentheses.
type Options struct {
	Self       string                             // this node's name
	Deployment func() string                      // the mesh's id; "" until agreed
	Index      control.Index                      // buckets and records
	IndexDone  <-chan struct{}                    // closed when this node's part of it has ended for good; nil: never
	Topology   func() *control.Topology           // latest known view of nodes and drives; never nil
	Grid       *grid.Manager                      // New registers the handlers 200–299 here; nil for a node alone
	Conn       func(node string) *grid.Connection // of another node, by name; never nil
	Drives     []*dataio.Drive                    // this node's; more by AddDrive. Closing them is the caller's
	Secrets    func() [][]byte                    // mesh secrets: the first signs, all verify
	TLS        *tls.Config                        // for dialling https peers' bulk ports
	// HostCertificates has a node's certificate be for the host in its base URL,
	// as that of a public authority is, instead of the node's name.
	HostCertificates bool
	// SnapshotFile finds a file of the index's snapshots that other nodes ask
	// for on the bulk port; nil: there are none.
	SnapshotFile func(path string) (file string, release func(), err error)
	Insecure     bool // take bulk requests without a secret and a client certificate

	// Dial replaces the TCP dialler of the bulk port. addr is "host:port".
	Dial  func(ctx context.Context, addr string) (net.Conn, error)
	Log   *slog.Logger // (discarded)
	Hooks Hooks

	// BadCopy is told of a copy that a read has found to be missing or wrong;
	// it must not block. May be nil.
	BadCopy func(id dataio.ID, drive string, why string)

	Replicas     int           // copies of each payload file, where its pool has so many drives (3)
	CopyGrace    time.Duration // how long a put waits at least for copies beyond the majority (250 ms)
	HealthEvery  time.Duration // pause between two looks at all drives (2 s)
	OrphanAge    time.Duration // log time from the first sight of a file that no record knows to its removal (2 h)
	SegmentBytes int64         // payload files' largest size, for tests (SegmentMaxBytes)
	WaitTimeout  time.Duration // longest wait for a node or drive that isn't there (10 s)
	BulkUploads  int           // uploads served at once on the bulk port (256)
	BulkReads    int           // reads served at once on the bulk port (1024)
	BulkConns    int           // open bulk connections to one peer (512)
	ReclaimGrace time.Duration // age of garbage before its files are removed (10 min)
	ReclaimEvery time.Duration // pause between two looks for garbage, jittered (1 min)
}

// Hooks reports what happens, for metrics. Each may be nil; they are called
// from many goroutines at once and must not block.
type Hooks struct {
	// Sent counts payload bytes that a reader sent, by the way that was asked
	// for. Whether the kernel went along is not known here.
	Sent func(path Path, bytes int64)
	// BulkConns reports bulk connections opened (+1) and closed (-1) to a node.
	BulkConns func(node string, delta int)
	// Reclaimed reports payload files removed because no record refers to
	// them any more.
	Reclaimed func(files int, bytes int64)
	// LeftBehind reports payload files that a failed put could not remove:
	// their node was gone, or it is unknown whether the commit went through.
	LeftBehind func(files int)
	// CopiesMissing reports copies that a put was acknowledged without; they
	// are healed later.
	CopiesMissing func(copies int)
	// Failover reports that a read went on with another copy, and why.
	Failover func(reason string)
	// BadCopy reports a copy that a read has found to be missing or wrong.
	BadCopy func(drive string, id dataio.ID)
	// Orphans reports payload files removed that no record has ever known.
	Orphans func(files int, bytes int64)

	// Span begins a part of a call that its trace shows by a name, and gives the
	// context for what belongs to it; end is called once, with the part's error.
	// node is the node that it is about. It allocates nothing where the call has
	// no trace. Traceparent is what goes along to a bulk port, "" where nothing
	// does; Serve is Span there. All three are set or none.
	Span        func(ctx context.Context, name, node string) (_ context.Context, end func(error))
	Traceparent func(ctx context.Context) string
	Serve       func(ctx context.Context, traceparent, name, node string) (_ context.Context, end func(error))
}

// span begins a part of a call.
func (s *Service) span(ctx context.Context, name, node string) (_ context.Context, end func(error)) {
	if s.o.Hooks.Span == nil {
		return ctx, func(error) {}
	}
	return s.o.Hooks.Span(ctx, name, node)
}

// Path is the way that payload takes to a reader's destination.
type Path uint8

// The paths.
const (
	PathInline   Path = iota // from the record, copied
	PathSendfile             // from a file here to a plaintext connection (inKernel)
	PathSplice               // from a bulk connection to such a one
	PathCopy                 // from either, through memory
	PathGrid                 // out of a grid message, copied
)

// String is the path's name, as a metric's label has it.
func (p Path) String() string {
	switch p {
	case PathInline:
		return "inline"
	case PathSendfile:
		return "sendfile"
	case PathSplice:
		return "splice"
	case PathCopy:
		return "copy"
	case PathGrid:
		return "grid"
	}
	return fmt.Sprintf("path(%d)", uint8(p))
}

// Service is one node's objects. All methods may be called from many
// goroutines at once.
type Service struct {
	o     Options
	now   recordsNow // Index; nil: it has none at hand
	log   *slog.Logger
	bulk  *bulkClient
	waits waitLog

	traffic traffic // of the bulk port

	strays strays
	reads  readings

	// uploadSlots and readSlots bound what the bulk port serves at once.
	uploadSlots, readSlots chan struct{}

	chunks sync.Pool // *chunk
	health health

	closing    context.Context // ends with Close, and with it what outlives its caller
	close      context.CancelFunc
	background sync.WaitGroup // of spawn; Add under mu, and not once closing has ended

	// mu guards the fields below it. No I/O under it.
	mu        sync.Mutex
	drives    map[string]*dataio.Drive // this node's, by id
	drivesNew chan struct{}            // closed and replaced when a drive is added
	incoming  map[payloadRef]*incoming // payload that is being written here
}

// payloadRef names a payload file in the mesh.
type payloadRef struct {
	drive string
	id    dataio.ID
}

// New makes the service and registers its grid handlers. It starts nothing.
func New(o Options) (*Service, error) {
	switch {
	case o.Self == "":
		return nil, errors.New("object: Options.Self is empty")
	case o.Index == nil, o.Topology == nil, o.Deployment == nil:
		return nil, errors.New("object: Options.Index, Topology and Deployment are required")
	case o.Grid != nil && o.Conn == nil:
		return nil, errors.New("object: Options.Grid without Conn")
	}
	if o.Secrets == nil {
		o.Secrets = func() [][]byte { return nil }
	}
	if o.Conn == nil {
		o.Conn = func(string) *grid.Connection { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Replicas = orDefault(o.Replicas, 3)
	o.CopyGrace = orDefault(o.CopyGrace, 250*time.Millisecond)
	o.HealthEvery = orDefault(o.HealthEvery, 2*time.Second)
	o.OrphanAge = orDefault(o.OrphanAge, 2*time.Hour)
	o.SegmentBytes = orDefault(o.SegmentBytes, SegmentMaxBytes)
	o.WaitTimeout = orDefault(o.WaitTimeout, 10*time.Second)
	o.BulkUploads = orDefault(o.BulkUploads, 256)
	o.BulkReads = orDefault(o.BulkReads, 1024)
	o.BulkConns = orDefault(o.BulkConns, 512)
	o.ReclaimGrace = orDefault(o.ReclaimGrace, 10*time.Minute)
	o.ReclaimEvery = orDefault(o.ReclaimEvery, time.Minute)
	if o.Replicas > replicasMax {
		return nil, fmt.Errorf("object: Options.Replicas is %d; at most %d", o.Replicas, replicasMax)
	}
	if o.SegmentBytes > SegmentMaxBytes {
		return nil, fmt.Errorf("object: Options.SegmentBytes is %d; at most %d", o.SegmentBytes, SegmentMaxBytes)
	}
	now, _ := o.Index.(recordsNow)
	s := &Service{
		o:           o,
		now:         now,
		log:         o.Log,
		uploadSlots: make(chan struct{}, o.BulkUploads),
		readSlots:   make(chan struct{}, o.BulkReads),
		drives:      make(map[string]*dataio.Drive),
		drivesNew:   make(chan struct{}),
		incoming:    make(map[payloadRef]*incoming),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.chunks.New = func() any { return &chunk{home: &s.chunks} }
	s.health.init()
	s.waits.log = o.Log
	s.bulk = newBulkClient(s)
	for _, d := range o.Drives {
		s.drives[d.ID()] = d
	}
	if o.Grid != nil {
		if err := s.register(o.Grid); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// replicasMax is less than what a record can hold: a segment that is on its way
// from drive to drive is on some more.
const replicasMax = 8

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// AddDrive makes one more drive of this node serve. Requests that wait for it
// go on.
func (s *Service) AddDrive(d *dataio.Drive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drives[d.ID()] = d
	close(s.drivesNew)
	s.drivesNew = make(chan struct{})
}

// drive returns a drive of this node, or nil and a channel that is closed when
// there are more of them.
func (s *Service) drive(id string) (*dataio.Drive, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drives[id], s.drivesNew
}

// ownDrives returns this node's drives, in no order.
func (s *Service) ownDrives() []*dataio.Drive {
	s.mu.Lock()
	defer s.mu.Unlock()
	drives := make([]*dataio.Drive, 0, len(s.drives))
	for _, d := range s.drives {
		drives = append(drives, d)
	}
	return drives
}

// spawn runs f in a goroutine that Close joins, unless the service is being
// closed.
func (s *Service) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.background.Go(f)
	return true
}

// stopping is why spawn didn't run something.
func stopping() error { return fault.New(fault.Unavailable, "node", "is stopping") }

// Run does the background work (looking at the drives, removing files that
// nothing refers to, closing idle bulk connections) until ctx ends; it joins what it started and
// returns nil. Everything else works without it.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.reclaimLoop(ctx); return nil })
	g.Go(func() error { s.orphanLoop(ctx); return nil })
	g.Go(func() error { s.bulk.reapLoop(ctx); return nil })
	g.Go(func() error { s.healthLoop(ctx); return nil })
	return g.Wait()
}

// Close ends commits that are still being repeated and removals that are still
// being tried, waits for what puts have given up on slow drives, and closes the idle bulk connections; those in use are closed by
// who uses them. It may be called again.
func (s *Service) Close() error {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	s.background.Wait()
	s.bulk.close()
	return nil
}

// BulkHandler serves the peer listener's BulkPath. Its requests prove the mesh
// secret themselves.
func (s *Service) BulkHandler() http.Handler { return http.HandlerFunc(s.serveBulk) }
