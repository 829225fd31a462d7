package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// target is a drive that a segment can be written to.
type target struct {
	node  control.Node
	drive string
	local *dataio.Drive // nil on another node
}

// targets returns the drives that can be reached now in the order in which
// they are to be tried for a segment: rendezvous hashing, so that each drive
// gets an even share, and that its absence moves nothing but its own. It waits
// a while if there are none.
func (s *Service) targets(ctx context.Context, id dataio.ID) ([]target, error) {
	t := s.o.Topology()
	if found := s.reachable(t); len(found) > 0 {
		rank(found, id)
		return found, nil
	}
	defer s.waits.enter("a drive", "none can be reached")()
	for until := time.Now().Add(s.o.WaitTimeout); ; {
		a, err := s.o.Index.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
		if err != nil {
			return nil, err
		}
		if found := s.reachable(a.Topology); len(found) > 0 {
			rank(found, id)
			return found, nil
		}
		if time.Now().After(until) {
			return nil, fault.New(fault.Waiting, "mesh", "no drive can be reached for new payload")
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// reachable returns the drives of this node that are open and of the nodes
// that are connected.
func (s *Service) reachable(t *control.Topology) []target {
	if t == nil {
		return nil
	}
	var found []target
	for _, n := range t.Nodes {
		self := n.Name == s.o.Self
		if n.Draining || n.Leaving || !self && !connected(s.o.Conn(n.Name)) {
			continue
		}
		for _, id := range n.Drives {
			var local *dataio.Drive
			if self {
				if local, _ = s.drive(id); local == nil {
					continue
				}
			}
			found = append(found, target{node: n, drive: id, local: local})
		}
	}
	return found
}

// rank orders drives by their hash with the segment's id, highest first.
func rank(targets []target, id dataio.ID) {
	type scored struct {
		target
		score uint64
	}
	all := make([]scored, len(targets))
	buf := make([]byte, 0, 64)
	for i, t := range targets {
		buf = append(append(buf[:0], id[:]...), t.drive...)
		all[i] = scored{t, xxh3.Hash(buf)}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.drive, b.drive))
	})
	for i := range all {
		targets[i] = all[i].target
	}
}

// refusals collects why drives didn't take a segment.
type refusals struct {
	noSpace error // the last of that kind
	last    error
	full    int
	asked   int
}

// add notes a refusal, and says whether the next drive may be asked: an error
// that every drive would give ends the search.
func (r *refusals) add(err error) bool {
	r.asked++
	r.last = err
	switch fault.KindOf(err) {
	case fault.NoSpace:
		r.noSpace = err
		r.full++
		return true
	case fault.Unavailable, fault.Waiting, fault.Overloaded:
		return true
	}
	return false
}

// err is the answer if no drive took the segment. Room is what is missing if
// one drive says so: the others may come back, but not sooner.
func (r *refusals) err() error {
	if r.noSpace == nil {
		return r.last
	}
	return &fault.Error{Kind: fault.NoSpace, Subject: "mesh", Err: r.noSpace,
		Detail: fmt.Sprintf("no drive takes the payload: %d of the %d that can be reached are full", r.full, r.asked)}
}

// driveFault gives an error of a drive its kind, and the drive's name.
func (s *Service) driveFault(err error, d *dataio.Drive) error {
	if err == nil {
		return nil
	}
	var fe *fault.Error
	if errors.As(err, &fe) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	kind, detail := fault.Unavailable, "failed"
	switch {
	case errors.Is(err, dataio.ErrNoSpace):
		kind, detail = fault.NoSpace, "is full"
	case errors.Is(err, dataio.ErrReadOnly):
		detail = "is read-only"
	case errors.Is(err, dataio.ErrSuspect):
		detail = "is suspect: a write or sync on it has failed"
	case errors.Is(err, dataio.ErrOffline):
		detail = "is offline"
	case errors.Is(err, dataio.ErrExists):
		kind, detail = fault.Conflict, "has a payload of that id already"
	case errors.Is(err, dataio.ErrNotFound):
		kind, detail = fault.Corrupted, "has lost a payload"
	case errors.Is(err, dataio.ErrCorrupted):
		kind, detail = fault.Corrupted, "has a corrupted payload"
	case errors.Is(err, dataio.ErrSize), errors.Is(err, dataio.ErrRange):
		kind, detail = fault.Corrupted, "has a payload of another size"
	}
	return &fault.Error{Kind: kind, Subject: s.driveName(s.o.Self, d.ID()), Detail: detail, Err: err}
}

// room refuses a put that can't fit, before its body is read. A put of one
// segment is refused by the drives themselves; a larger one could fill them
// first, so the nodes are asked what they have free. A node that doesn't
// answer in time is taken to have enough.
func (s *Service) room(ctx context.Context, sizeBytes int64) error {
	if sizeBytes <= s.o.SegmentBytes {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	var (
		mu        sync.Mutex // guards what follows
		free      int64
		uncertain bool
	)
	nodes := make(map[string]bool)
	for _, t := range s.reachable(s.o.Topology()) {
		nodes[t.node.Name] = true
	}
	var g errgroup.Group
	g.SetLimit(roomParallel)
	for node := range nodes {
		g.Go(func() error {
			bytes, err := s.freeBytes(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			free += bytes
			uncertain = uncertain || err != nil
			return nil
		})
	}
	g.Wait()
	if uncertain || len(nodes) == 0 || free >= sizeBytes {
		return nil
	}
	return fault.New(fault.NoSpace, "mesh", "has %d bytes free on the drives that can be reached, and the object has %d", free, sizeBytes)
}

const (
	roomTimeout  = 2 * time.Second
	roomParallel = 16
)

// freeBytes returns what a node's drives have free for new payload.
func (s *Service) freeBytes(ctx context.Context, node string) (int64, error) {
	if node == s.o.Self {
		return s.ownFreeBytes(), nil
	}
	c := s.o.Conn(node)
	if !connected(c) {
		return 0, nil
	}
	resp, err := spaceCall.Call(ctx, c, &spaceRequest{})
	if err != nil {
		return 0, err
	}
	return resp.FreeBytes, nil
}

// ownFreeBytes asks this node's drives.
func (s *Service) ownFreeBytes() int64 {
	var free int64
	for _, d := range s.ownDrives() {
		if u, err := d.Usage(); err == nil && d.State() == dataio.Online {
			free += u.FreeBytes
		}
	}
	return free
}
