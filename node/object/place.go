package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// tier says how well a drive will do for a new copy.
type tier uint8

const (
	tierGood tier = iota
	tierSlow      // works, but keeps others waiting
	tierFull      // says that it has no room; it knows better when it is asked
	tierBad       // says that it takes nothing
)

// target is a drive that a copy can be written to.
type target struct {
	node  control.Node
	drive string
	local *dataio.Drive // nil on another node
	tier  tier
}

// zone is where the drive is: its node, where that gives none.
func (t *target) zone() string {
	if t.node.Zone != "" {
		return "zone " + t.node.Zone
	}
	return "node " + t.node.Name
}

// pool is what a pool has for one new payload file.
type pool struct {
	name    string
	want    int      // copies that it should get: R
	need    int      // and must get: W, a majority
	found   []target // drives that can be reached
	good    int      // of them, how many are slow at worst
	best    int      // and not even that
	free    int64    // bytes on those that are slow at worst
	away    int      // drives that can't be reached, and may come back
	missing []string // what is to be waited for
}

// ready says that the file can be written now, as far as is known.
func (p *pool) ready() bool { return p.good >= p.need }

// hopeful says that it can be when those that are away come back.
func (p *pool) hopeful() bool { return p.away > 0 && p.good+p.away >= p.need }

// placements returns the pools that take a new payload file of sizeBytes (-1:
// not known), best first: where all the drives needed are well, and then where
// most is free. It waits a while if there is none yet. Where waiting is of no
// use, drives are full or broken, and say so best themselves: it is the pool
// with most drives then.
func (s *Service) placements(ctx context.Context, sizeBytes int64) ([]*pool, error) {
	s.lookAt(ctx, lookFresh*s.o.HealthEvery)
	ready, lacking, missing := choosePools(s.pools(s.o.Topology(), sizeBytes))
	if len(ready) > 0 {
		return ready, nil
	}
	defer s.waits.enter("new payload in "+lacking, missing)()
	for until := time.Now().Add(s.o.WaitTimeout); ; {
		a, err := s.o.Index.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
		if err != nil {
			return nil, err
		}
		s.lookAt(ctx, retryMax)
		if ready, lacking, missing = choosePools(s.pools(a.Topology, sizeBytes)); len(ready) > 0 {
			return ready, nil
		}
		if time.Now().After(until) {
			return nil, fault.New(fault.Waiting, lacking, "can't take new payload: %s", missing)
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// lookFresh times HealthEvery is how old the last look at the drives may be.
const lookFresh = 3

// choosePools orders the pools that can be tried, or says which one lacks what.
func choosePools(pools []*pool) (ready []*pool, lacking, missing string) {
	var hopeful, hopeless []*pool
	for _, p := range pools {
		switch {
		case p.ready():
			ready = append(ready, p)
		case p.hopeful():
			hopeful = append(hopeful, p)
		case len(p.found) > 0:
			hopeless = append(hopeless, p)
		}
	}
	switch {
	case len(ready) > 0:
		slices.SortFunc(ready, func(a, b *pool) int {
			enough := func(p *pool) int { return min(p.best, p.need) - p.need }
			return cmp.Or(cmp.Compare(enough(b), enough(a)), cmp.Compare(b.free, a.free), cmp.Compare(a.name, b.name))
		})
		return ready, "", ""
	case len(hopeful) > 0:
		p := slices.MaxFunc(hopeful, func(a, b *pool) int { return cmp.Compare(a.good, b.good) })
		missing := p.missing[:min(len(p.missing), 5)]
		return nil, "pool " + p.name, fmt.Sprintf("%d of the %d drives needed can be reached; %s", p.good, p.need, strings.Join(missing, ", "))
	case len(hopeless) > 0:
		slices.SortFunc(hopeless, func(a, b *pool) int { return cmp.Compare(len(b.found), len(a.found)) })
		return hopeless, "", ""
	}
	return nil, "mesh", "no pool has a drive for it"
}

// pools describes the pools that have drives for new payload, in the order of
// their names.
func (s *Service) pools(t *control.Topology, sizeBytes int64) []*pool {
	if t == nil {
		return nil
	}
	byName := make(map[string]*pool)
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.Draining || n.Leaving {
			continue
		}
		up := n.Name == s.o.Self || connected(s.o.Conn(n.Name))
		for _, id := range n.Drives {
			if _, draining := slices.BinarySearch(n.DrainingDrives, id); draining {
				continue
			}
			p := byName[poolOf(n)]
			if p == nil {
				p = &pool{name: poolOf(n)}
				byName[p.name] = p
			}
			p.want++
			s.enter(p, n, id, up, sizeBytes)
		}
	}
	pools := make([]*pool, 0, len(byName))
	for _, p := range byName {
		p.want = min(p.want, s.o.Replicas)
		p.need = p.want/2 + 1
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b *pool) int { return cmp.Compare(a.name, b.name) })
	return pools
}

// enter counts a drive in its pool. health.mu is held.
func (s *Service) enter(p *pool, n *control.Node, id string, up bool, sizeBytes int64) {
	var local *dataio.Drive
	if up && n.Name == s.o.Self {
		if local, _ = s.drive(id); local == nil {
			p.away++
			p.missing = append(p.missing, "drive "+id+" on node "+n.Name+" is not open")
			return
		}
	}
	if !up {
		p.away++
		p.missing = append(p.missing, "node "+n.Name+" is not connected")
		return
	}
	t := target{node: *n, drive: id, local: local}
	l := s.health.drives[id]
	state := dataio.Online
	if local != nil {
		state = local.State()
	} else if l != nil && l.known {
		state = dataio.State(l.report.State)
	}
	switch {
	case state == dataio.Suspect, state == dataio.Offline:
		t.tier = tierBad
	case state == dataio.ReadOnly, l != nil && l.known && l.report.Free < sizeBytes:
		t.tier = tierFull
	case state == dataio.Degraded, l != nil && l.missed >= missedLooks,
		time.Now().Before(s.health.avoid[id]), s.health.late[id] > 0:
		t.tier = tierSlow
	}
	if t.tier == tierGood {
		p.best++
	}
	if t.tier <= tierSlow {
		p.good++
		if l != nil {
			p.free += l.report.Free
		}
	}
	p.found = append(p.found, t)
}

// rank orders drives by their hash with the segment's id, highest first: each
// drive gets an even share, and its absence moves nothing but its own.
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

// picker hands out drives for the copies of one segment: spread over zones,
// then over nodes, in the order of rank. One goroutine uses it.
type picker struct {
	left  []target // ranked
	zones map[string]int
	nodes map[string]int
}

func newPicker(found []target, id dataio.ID) *picker {
	p := &picker{left: slices.Clone(found), zones: make(map[string]int), nodes: make(map[string]int)}
	rank(p.left, id)
	return p
}

// next takes the drive where a further copy is best, none worse than worst.
func (p *picker) next(worst tier) (target, bool) {
	best := -1
	for i := range p.left {
		t := &p.left[i]
		if t.tier > worst {
			continue
		}
		if best < 0 || p.compare(t, &p.left[best]) < 0 {
			best = i
		}
	}
	if best < 0 {
		return target{}, false
	}
	t := p.left[best]
	p.left = slices.Delete(p.left, best, best+1)
	p.use(&t, +1)
	return t, true
}

// compare prefers a drive that works, then one away from the copies so far.
func (p *picker) compare(a, b *target) int {
	return cmp.Or(
		cmp.Compare(a.tier, b.tier),
		cmp.Compare(p.zones[a.zone()], p.zones[b.zone()]),
		cmp.Compare(p.nodes[a.node.Name], p.nodes[b.node.Name]),
	)
}

// use counts a copy on a drive, or, with -1, that there won't be one.
func (p *picker) use(t *target, n int) {
	p.zones[t.zone()] += n
	p.nodes[t.node.Name] += n
}

// PlaceCopy returns the drive where one more copy of a segment should go. bad
// are those of its drives whose copies don't count, since they are gone, or are
// to go. It is a drive of the pool that has the other copies, or of another one
// if that takes none any more; never one that is in seg.Drives, bad or not.
func (s *Service) PlaceCopy(seg control.SegmentCopies, bad map[string]bool) (drive string, ok bool) {
	t := s.o.Topology()
	pools := s.pools(t, seg.SizeBytes)
	keep := make(map[string]int) // copies that stay, by pool
	var stay []target
	for _, id := range seg.Drives {
		if n, _ := t.Drive(id); n != nil && !bad[id] {
			keep[poolOf(n)]++
			stay = append(stay, target{node: *n, drive: id})
		}
	}
	slices.SortFunc(pools, func(a, b *pool) int {
		return cmp.Or(cmp.Compare(keep[b.name], keep[a.name]), cmp.Compare(b.free, a.free), cmp.Compare(a.name, b.name))
	})
	for i, pool := range pools {
		if i > 0 && keep[pools[i-1].name] > 0 {
			break // that pool takes payload, if not now
		}
		p := newPicker(slices.DeleteFunc(pool.found, func(t target) bool {
			return bad[t.drive] || slices.Contains(seg.Drives, t.drive)
		}), seg.ID)
		for i := range stay {
			p.use(&stay[i], +1)
		}
		if t, found := p.next(tierSlow); found {
			return t.drive, true
		}
	}
	return "", false
}

// refusals collects why drives didn't take a segment.
type refusals struct {
	noSpace error // the last of that kind
	last    error
	full    int
	asked   int
}

// add notes a refusal.
func (r *refusals) add(err error) {
	r.asked++
	r.last = err
	if fault.KindOf(err) == fault.NoSpace {
		r.noSpace = err
		r.full++
	}
}

// err is the answer if too few drives took the segment. Room is what is missing
// if one drive says so: the others may come back, but not sooner.
func (r *refusals) err() error {
	switch {
	case r.noSpace != nil:
		return &fault.Error{Kind: fault.NoSpace, Subject: "mesh", Err: r.noSpace,
			Detail: fmt.Sprintf("too few drives take the payload: %d of the %d that were asked are full", r.full, r.asked)}
	case r.last == nil:
		return fault.New(fault.Unavailable, "mesh", "too few drives take the payload")
	}
	return r.last
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

// room refuses a put that can't fit, before its body is read: with all its
// copies it would need more than the drives of all pools have free. A put of
// one segment is refused by the drives themselves. A drive that nobody knows
// about is taken to have enough.
func (s *Service) room(ctx context.Context, sizeBytes int64) error {
	if sizeBytes <= s.o.SegmentBytes {
		return nil
	}
	s.lookAt(ctx, lookFresh*s.o.HealthEvery)
	var free int64 // for objects: that of the drives, divided by the copies it takes
	for _, p := range s.pools(s.o.Topology(), 0) {
		if p.away > 0 || len(p.found) == 0 {
			return nil
		}
		s.health.mu.Lock()
		for _, t := range p.found {
			if l := s.health.drives[t.drive]; l == nil || !l.known {
				free += sizeBytes
			}
		}
		s.health.mu.Unlock()
		free += p.free / int64(p.need)
	}
	if free >= sizeBytes {
		return nil
	}
	return fault.New(fault.NoSpace, "mesh", "has room for %d bytes, and the object has %d", free, sizeBytes)
}
