package object

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// Every node looks at all drives of the mesh every HealthEvery: at its own
// itself, at the others by asking their nodes. Placement, reads and healing go
// by what the last look has shown.

const (
	// lookTimeout bounds one look at all drives, and what a drive here that
	// hangs may take of it.
	lookTimeout = time.Second
	// missedLooks in a row make a drive unreachable whose node is connected.
	missedLooks = 2
	// looksAtOnce bounds how many nodes are asked at once.
	looksAtOnce = 16
)

// DriveHealth is how a drive of the mesh was when it was last looked at.
type DriveHealth struct {
	ID, Node, Pool, Zone string
	State                dataio.State // Offline where it isn't reachable
	Reachable            bool         // its node answers, and has it open
	Draining             bool         // it or its node is, or its node leaves
	TotalBytes           int64        // as last known
	UsedBytes            int64
	FreeBytes            int64
	// Since is when its present trouble began; zero: it is Online. There are
	// two: it is slow or takes nothing new (Degraded, ReadOnly), or it can't be
	// relied on (Suspect, Offline, out of reach). Going from one to the other
	// begins anew.
	Since time.Time
}

// trouble is what Since is kept for.
type trouble uint8

const (
	troubleNone  trouble = iota
	troubleMinor         // what is there can be read
	troubleGrave
)

func troubleOf(reachable bool, state dataio.State) trouble {
	switch {
	case reachable && state == dataio.Online:
		return troubleNone
	case reachable && (state == dataio.Degraded || state == dataio.ReadOnly):
		return troubleMinor
	}
	return troubleGrave
}

// health is what is known of all drives.
type health struct {
	mu      sync.Mutex // guards what follows. No I/O under it
	drives  map[string]*look
	at      time.Time            // of the last look at all of them
	looking chan struct{}        // closed when the look under way ends; nil: there is none
	own     map[string]*ownLook  // by drive id
	avoid   map[string]time.Time // drives that held up a put: until when
	late    map[string]int       // given up by puts, and not at their end yet, by drive id
}

func (h *health) init() {
	h.drives = make(map[string]*look)
	h.own = make(map[string]*ownLook)
	h.avoid = make(map[string]time.Time)
	h.late = make(map[string]int)
}

// look is what the last looks at a drive have shown.
type look struct {
	report  driveReport
	missed  int // looks in a row without an answer
	known   bool
	trouble trouble
	since   time.Time
}

// reachable says that a drive's node answers for it.
func (l *look) reachable() bool { return l != nil && l.known && l.missed < missedLooks }

// state is the drive's, Offline where nobody answers for it.
func (l *look) state() dataio.State {
	if !l.reachable() {
		return dataio.Offline
	}
	return dataio.State(l.report.State)
}

// ownLook is a look at a drive of this node that is under way, or was.
type ownLook struct {
	report driveReport
	done   chan struct{} // closed when report is of the present look
}

// Health returns all drives of the topology, as they were at the last look.
func (s *Service) Health() []DriveHealth {
	t := s.o.Topology()
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	var all []DriveHealth
	for i := range t.Nodes {
		n := &t.Nodes[i]
		for _, id := range n.Drives {
			l := s.health.drives[id]
			_, draining := t.Drive(id)
			d := DriveHealth{
				ID: id, Node: n.Name, Pool: poolOf(n), Zone: n.Zone,
				State: l.state(), Reachable: l.reachable(), Draining: draining,
			}
			if l != nil {
				d.TotalBytes, d.UsedBytes, d.FreeBytes, d.Since = l.report.Total, l.report.Used, l.report.Free, l.since
			} else {
				d.Since = time.Now() // it was never looked at
			}
			all = append(all, d)
		}
	}
	return all
}

// poolOf is the pool of a node's drives.
func poolOf(n *control.Node) string {
	if n.Pool == "" {
		return control.DefaultPool
	}
	return n.Pool
}

// healthLoop looks at all drives until ctx ends.
func (s *Service) healthLoop(ctx context.Context) {
	tick := time.NewTicker(s.o.HealthEvery)
	defer tick.Stop()
	for {
		s.lookAt(ctx, 0)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lookAt sees to it that the last look is no older than maxAge, or that ctx
// has ended. Of several callers one looks.
func (s *Service) lookAt(ctx context.Context, maxAge time.Duration) {
	h := &s.health
	for {
		h.mu.Lock()
		if maxAge > 0 && !h.at.IsZero() && time.Since(h.at) < maxAge {
			h.mu.Unlock()
			return
		}
		other := h.looking
		if other == nil {
			h.looking = make(chan struct{})
			h.mu.Unlock()
			s.lookNow(ctx)
			return
		}
		h.mu.Unlock()
		select {
		case <-other:
			if maxAge <= 0 {
				return // it was looked at just now
			}
			maxAge = max(maxAge, lookTimeout)
		case <-ctx.Done():
			return
		}
	}
}

// lookNow looks at all drives of the topology.
func (s *Service) lookNow(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	t := s.o.Topology()
	var (
		mu      sync.Mutex // guards reports
		reports = make(map[string]driveReport)
	)
	var g errgroup.Group
	g.SetLimit(looksAtOnce)
	for i := range t.Nodes {
		n := &t.Nodes[i]
		g.Go(func() error {
			found := s.lookAtNode(within, n)
			mu.Lock()
			defer mu.Unlock()
			for _, r := range found {
				reports[r.ID] = r
			}
			return nil
		})
	}
	g.Wait()
	s.health.note(t, reports, ctx.Err() == nil)
}

// lookAtNode asks a node for its drives. One that isn't connected has none.
func (s *Service) lookAtNode(ctx context.Context, n *control.Node) []driveReport {
	if n.Name == s.o.Self {
		return s.lookAtOwn(ctx)
	}
	c := s.o.Conn(n.Name)
	if len(n.Drives) == 0 || !connected(c) {
		return nil
	}
	resp, err := drivesCall.Call(ctx, c, &drivesRequest{})
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(resp.Drives, func(r driveReport) bool { return !slices.Contains(n.Drives, r.ID) })
}

// judge sees whether the drive's trouble is another one than before.
func (l *look) judge(now time.Time) {
	switch is := troubleOf(l.reachable(), l.state()); {
	case is == troubleNone:
		l.trouble, l.since = is, time.Time{}
	case is != l.trouble:
		l.trouble, l.since = is, now
	}
}

// note takes down what a look has shown. One that was cut short says nothing
// about those who didn't answer.
func (h *health) note(t *control.Topology, reports map[string]driveReport, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if whole {
		h.at = now
	}
	close(h.looking)
	h.looking = nil
	seen := make(map[string]bool)
	for _, n := range t.Nodes {
		for _, id := range n.Drives {
			seen[id] = true
			l := h.drives[id]
			if l == nil {
				l = &look{}
				h.drives[id] = l
			}
			r, answered := reports[id]
			switch {
			case answered:
				l.report, l.missed, l.known = r, 0, true
			case !whole:
				continue
			default:
				l.missed++
			}
			l.judge(now)
		}
	}
	maps.DeleteFunc(h.drives, func(id string, _ *look) bool { return !seen[id] })
	maps.DeleteFunc(h.avoid, func(_ string, until time.Time) bool { return now.After(until) })
}

// lookAtOwn looks at this node's drives. One that hangs is given as it was
// last, with its state of now; there is never more than one look at it.
func (s *Service) lookAtOwn(ctx context.Context) []driveReport {
	drives := s.ownDrives()
	looks := make([]*ownLook, len(drives))
	for i, d := range drives {
		looks[i] = s.ownLook(d)
	}
	timer := time.NewTimer(lookTimeout / 2)
	defer timer.Stop()
	reports := make([]driveReport, len(drives))
	for i, d := range drives {
		select {
		case <-looks[i].done:
		case <-timer.C:
			timer.Reset(0) // the others have had their time, too
		case <-ctx.Done():
		}
		s.health.mu.Lock()
		reports[i] = looks[i].report
		s.health.mu.Unlock()
		reports[i].ID, reports[i].State = d.ID(), uint8(d.State())
	}
	return reports
}

// ownLook returns the look at a drive that is under way, or begins one.
func (s *Service) ownLook(d *dataio.Drive) *ownLook {
	h := &s.health
	h.mu.Lock()
	l := &ownLook{done: make(chan struct{})}
	if last := h.own[d.ID()]; last != nil {
		if !closed(last.done) {
			h.mu.Unlock()
			return last
		}
		l.report = last.report
	}
	h.own[d.ID()] = l
	h.mu.Unlock()
	if !s.spawn(func() {
		defer close(l.done)
		u, err := d.Usage() // which may change the state
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		l.report.Total, l.report.Used, l.report.Free = u.TotalBytes, u.UsedBytes, u.FreeBytes
	}) {
		close(l.done)
	}
	return l
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *Service) serveDrives(ctx context.Context, _ *drivesRequest) (*drivesResponse, error) {
	return &drivesResponse{Drives: s.lookAtOwn(ctx)}, nil
}

// slowFor is how long a drive that has held up a put is avoided, if others will
// do. Its node's own look at it decides afterwards.
const slowFor = 4 * time.Second

// distrust has a drive avoided for a while.
func (h *health) distrust(drive string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.avoid[drive] = time.Now().Add(slowFor)
}

// startLate and endLate count what puts have given up on a drive.
func (h *health) startLate(drive string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.late[drive]++
}

func (h *health) endLate(drive string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late[drive]--; h.late[drive] <= 0 {
		delete(h.late, drive)
	}
}
