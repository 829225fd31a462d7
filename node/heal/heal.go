package heal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// Objects is what healing needs of package object's Service. Its methods may be
// called from many goroutines at once.
type Objects interface {
	// Health gives all drives, as they were when they were last looked at.
	Health() []object.DriveHealth
	// PlaceCopy says where one more copy of a segment should go: Drives are
	// those whose copies stay, bad those that it may not go to.
	PlaceCopy(seg control.SegmentCopies, bad map[string]bool) (drive string, ok bool)
	// CopyTo has a drive get copies, and gives an error, or nil, for each.
	CopyTo(ctx context.Context, drive string, items []object.CopyItem) ([]error, error)
	// Check looks at copies on a drive, and gives those that are bad.
	Check(ctx context.Context, drive string, items []object.CheckItem, verify bool, bytesPerSecond int64) ([]object.BadCopy, error)
}

// Options configures a Healer. The zero value of everything below Conn is the
// default given in parentheses.
type Options struct {
	Self     string // this node's name
	Index    control.Index
	Topology func() *control.Topology
	Objects  Objects
	// Leader names the node that coordinates, "" where none is known, and tells
	// whether it is this one.
	Leader func() (name string, self bool)
	Grid   *grid.Manager                      // New registers the handlers 210–213 here; nil for a node alone
	Conn   func(node string) *grid.Connection // of another node, by name

	Replicas       int           // copies of a segment where its pool has so many drives (3)
	After          time.Duration // for how long a drive isn't well before its copies count as lost (15 min)
	BytesPerSecond int64         // of copies and checks together, on request (256 MiB)
	ScrubPeriod    time.Duration // in which the scrub reads everything once (14 d)
	Log            *slog.Logger  // (discarded)
	Hooks          Hooks

	LookEvery    time.Duration // between two looks at the drives (1 s)
	PendingEvery time.Duration // between two readings of the heal rows, at least (2 s)
	PassEvery    time.Duration // between two passes that nothing asks for (6 h)
	DrainEvery   time.Duration // between two passes while something drains (30 s)
	NoteEvery    time.Duration // between two notes of how far the scrub has come (5 min)
	SweepEvery   time.Duration // between two looks for garbage of drives that are gone (10 min)
}

// Hooks reports what happens, for metrics. Each may be nil; they are called
// from many goroutines at once and must not block.
type Hooks struct {
	Copied        func(copies int, bytes int64) // copies made, anew or again
	Failed        func(segments int)            // given up until the next run
	BadCopies     func(copies int)              // found by a check
	Unrecoverable func(segments int)            // found to have no good copy, in each round again
	Pending       func(rows int64)              // heal rows, as they were just read

	// Span begins what a drive is asked about some segments: to copy, check or
	// verify them. end is called once, with its error.
	Span func(ctx context.Context, what, drive string, segments int) (_ context.Context, end func(error))
}

func (h *Hooks) span(ctx context.Context, what, drive string, segments int) (context.Context, func(error)) {
	if h.Span == nil {
		return ctx, func(error) {}
	}
	return h.Span(ctx, what, drive, segments)
}

// Healer is a node's part in healing. All methods may be called from many
// goroutines at once.
type Healer struct {
	o       Options
	log     *slog.Logger
	pace    pace
	rate    meter // bytes copied
	cleared meter // bytes of copies moved off drives that drain
	reports reports
	names   names
	seen    sight // lead's: since when drives aren't well

	// mu guards what follows.
	mu    sync.Mutex
	term  *term // while this node coordinates
	heard heard // of the coordinator, while it is another
}

// heard is what the coordinator was last seen to be asked for.
type heard struct {
	at          time.Time
	rebalancing bool
	verifying   bool
}

// heardFor is for how long it is good enough to go on from.
const heardFor = time.Minute

// New makes a node's part in healing and registers its grid handlers. It
// starts nothing.
func New(o Options) (*Healer, error) {
	switch {
	case o.Self == "":
		return nil, errors.New("heal: Options.Self is empty")
	case o.Index == nil, o.Topology == nil, o.Objects == nil, o.Leader == nil:
		return nil, errors.New("heal: Options.Index, Topology, Objects and Leader are required")
	case o.Grid != nil && o.Conn == nil:
		return nil, errors.New("heal: Options.Grid without Conn")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Replicas = orDefault(o.Replicas, 3)
	o.After = orDefault(o.After, 15*time.Minute)
	o.BytesPerSecond = orDefault(o.BytesPerSecond, 256<<20)
	o.ScrubPeriod = orDefault(o.ScrubPeriod, 14*24*time.Hour)
	o.LookEvery = orDefault(o.LookEvery, time.Second)
	o.PendingEvery = orDefault(o.PendingEvery, 2*time.Second)
	o.PassEvery = orDefault(o.PassEvery, 6*time.Hour)
	o.DrainEvery = orDefault(o.DrainEvery, 30*time.Second)
	o.NoteEvery = orDefault(o.NoteEvery, 5*time.Minute)
	o.SweepEvery = orDefault(o.SweepEvery, 10*time.Minute)
	h := &Healer{o: o, log: o.Log, pace: pace{perSecond: o.BytesPerSecond}, seen: make(sight)}
	h.reports.init()
	if o.Grid != nil {
		if err := h.register(o.Grid); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Run heals while this node coordinates, and follows who does while it doesn't,
// until ctx ends; it joins what it started and returns nil.
func (h *Healer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { h.lead(ctx); return nil })
	g.Go(func() error { h.sendReports(ctx); return nil })
	return g.Wait()
}

// lead begins this node's term when it has the lead, and ends it when it has
// it no more.
func (h *Healer) lead(ctx context.Context) {
	var listened time.Time
	for {
		// How drives are is followed by every node, so that a new coordinator
		// knows since when they aren't well.
		v := newView(h.o.Topology(), h.o.Objects.Health(), h.seen, h.o.Replicas, h.o.After, time.Now())
		leader, self := h.o.Leader()
		h.mu.Lock()
		t := h.term
		h.mu.Unlock()
		switch {
		case self && t == nil && v.epoch > 0:
			h.begin(ctx, v)
		case !self && t != nil:
			h.finish(t)
		case t != nil:
			t.look(v)
		case leader != "" && time.Since(listened) >= 5*h.o.LookEvery:
			listened = time.Now()
			h.listen(ctx, leader)
		}
		if rest(ctx, h.o.LookEvery) != nil {
			break
		}
	}
	h.mu.Lock()
	t := h.term
	h.mu.Unlock()
	if t != nil {
		h.finish(t)
	}
}

// listen asks the coordinator what it is at.
func (h *Healer) listen(ctx context.Context, leader string) {
	ctx, cancel := context.WithTimeout(ctx, h.o.LookEvery)
	defer cancel()
	s, err := h.ask(ctx, leader)
	if err != nil {
		return // the next time, or somebody else leads by then
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = heard{at: time.Now(), rebalancing: s.Rebalance.Running, verifying: s.Scrub.Running && s.Scrub.Fast}
}

// begin begins this node's term.
func (h *Healer) begin(ctx context.Context, v *view) {
	h.log.Info("this node coordinates healing")
	t := newTerm(ctx, h, v)
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.heard.at) < heardFor {
		t.rebalance.wanted = h.heard.rebalancing
		t.scrub.wanted = h.heard.verifying
		t.scrub.goOn = h.heard.verifying
	}
	h.term = t
	t.run()
}

// finish ends it, and waits for its end.
func (h *Healer) finish(t *term) {
	h.mu.Lock()
	h.heard = heard{}
	h.term = nil
	h.mu.Unlock()
	t.end()
	h.log.Info("this node coordinates healing no more")
}

// Status describes how healing goes, wherever it is coordinated. Waiting where
// nobody can be asked.
func (h *Healer) Status(ctx context.Context) (*Status, error) {
	return forward(ctx, h, h.ask, func(t *term) (*Status, error) { return t.status(), nil })
}

// Start has a pass begin now, and a round of the scrub if req says so.
func (h *Healer) Start(ctx context.Context, req StartRequest) error {
	_, err := forward(ctx, h,
		func(ctx context.Context, node string) (*none, error) { return call(ctx, h, node, startCall.Call, &req) },
		func(t *term) (*none, error) { t.start(req); return &none{}, nil })
	return err
}

// Rebalance has copies moved from drives and pools that are fuller than the
// others to those that are emptier, once; or ends that.
func (h *Healer) Rebalance(ctx context.Context, start bool) error {
	_, err := forward(ctx, h,
		func(ctx context.Context, node string) (*none, error) {
			return call(ctx, h, node, rebalanceCall.Call, &rebalanceRequest{Start: start})
		},
		func(t *term) (*none, error) { t.askRebalance(start); return &none{}, nil })
	return err
}

// current is this node's term.
func (h *Healer) current() (*term, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.term == nil {
		return nil, errNotLeader(h.o.Self)
	}
	return h.term, nil
}

func errNotLeader(node string) error {
	return fault.New(fault.Waiting, "healing", "is not coordinated by node %s", node)
}

// names are the buckets' names, by id.
type names struct {
	mu   sync.Mutex // guards what follows
	of   map[[16]byte]string
	read time.Time
}

// namesFor is how long the names are good for, where one isn't among them.
const namesFor = 10 * time.Second

// bucketName gives a bucket's name, "" where it has none any more.
func (h *Healer) bucketName(ctx context.Context, id [16]byte) string {
	h.names.mu.Lock()
	name, known := h.names.of[id]
	fresh := time.Since(h.names.read) < namesFor
	h.names.mu.Unlock()
	if known || fresh {
		return name
	}
	of := make(map[[16]byte]string)
	for after := ""; ; {
		a, err := h.o.Index.Read(ctx, &control.Query{Buckets: &control.BucketsQuery{After: after}})
		if err != nil {
			return ""
		}
		for _, b := range a.Buckets {
			of[b.ID], after = b.Name, b.Name
		}
		if !a.More {
			break
		}
	}
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	h.names.of, h.names.read = of, time.Now()
	return of[id]
}

// knownName is bucketName without asking anybody.
func (h *Healer) knownName(id [16]byte) string {
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	if name := h.names.of[id]; name != "" {
		return name
	}
	return fmt.Sprintf("%x", id)
}
