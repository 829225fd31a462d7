package object

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/fault"
)

// triesMax is how often each copy of a part is tried: once with little
// patience, while there are others, and once more when all have failed.
const triesMax = 2

// Why a copy is bad, as Options.BadCopy has it.
const (
	badMissing    = "missing"
	badSize       = "size"
	badCorrupted  = "corrupted"
	badUnreadable = "unreadable"
)

// whyBad says why a copy is bad whose drive gave an error; "" where that is
// about something else.
func whyBad(err error) string {
	switch {
	case errors.Is(err, dataio.ErrNotFound):
		return badMissing
	case errors.Is(err, dataio.ErrSize), errors.Is(err, dataio.ErrRange):
		return badSize
	case errors.Is(err, dataio.ErrCorrupted), errors.Is(err, dataio.ErrUnknownFormat): // a flipped bit in the version is one
		return badCorrupted
	case errors.Is(err, syscall.EIO):
		return badUnreadable
	}
	return ""
}

// badCopy reports a copy that isn't what its record says.
func (s *Service) badCopy(ref payloadRef, why string) {
	if !s.reads.tell(ref) {
		return
	}
	if f := s.o.Hooks.BadCopy; f != nil {
		f(ref.drive, ref.id)
	}
	if f := s.o.BadCopy; f != nil {
		f(ref.id, ref.drive, why)
	}
	s.log.Warn("a copy of a payload is bad", "drive", ref.drive, "id", ref.id.String(), "why", why)
}

// replicas are the copies of a segment of which a part is read, in the order in
// which they are tried: those here before others, those that are well before
// those that are slow, and these before those that are away. Among equals it is
// the one with the fewest reads under way, then the first by the segment's id,
// so that each segment stays in one cache.
//
// What fails is passed by for the next, without waiting while there is one.
// Only when none is left are they tried once more, and patiently, and those
// waited for that are away.
type replicas struct {
	s      *Service
	part   part
	verify bool
	// again looks whether the segment has got other copies meanwhile. Once; nil:
	// nobody can tell.
	again func(ctx context.Context) []string

	all   []*choice
	until time.Time // the end of all patience; zero while all is well
	why   string    // the last failed, for Hooks.Failover
}

// choice is one of them.
type choice struct {
	drive    string
	rank     standing
	tries    int
	bad      bool  // it isn't what the record says: not to be tried again
	err      error // of the last time
	failedAt time.Time
}

// standing orders replicas; less is better.
type standing struct {
	class    int // see the constants
	far      int // 1 on another node
	underWay int
	hash     uint64
}

// The classes of replicas.
const (
	classWell = iota
	classSlow // or in trouble lately
	classAway
)

func (r standing) compare(other standing) int {
	return cmp.Or(cmp.Compare(r.class, other.class), cmp.Compare(r.far, other.far),
		cmp.Compare(r.underWay, other.underWay), cmp.Compare(other.hash, r.hash))
}

// replicasOf returns the copies of a part's segment.
func (s *Service) replicasOf(p part, verify bool) *replicas {
	r := &replicas{s: s, part: p, verify: verify}
	r.add(p.segment.Drives)
	return r
}

// add adds the copies on drives that aren't among them yet, and says whether
// there were any.
func (r *replicas) add(drives []string) bool {
	known := len(r.all)
	for _, drive := range drives {
		if !slices.ContainsFunc(r.all, func(have *choice) bool { return have.drive == drive }) {
			r.all = append(r.all, &choice{drive: drive, rank: r.s.rankOf(drive, r.part.segment.ID)})
		}
	}
	slices.SortStableFunc(r.all, func(a, b *choice) int { return a.rank.compare(b.rank) })
	return len(r.all) > known
}

// rankOf says how good a choice a drive is to read a segment from.
func (s *Service) rankOf(drive string, id dataio.ID) standing {
	var buf [64]byte
	underWay, troubled := s.reads.look(drive)
	r := standing{underWay: underWay, hash: xxh3.Hash(append(append(buf[:0], id[:]...), drive...))}
	if r.class = s.classOf(drive); troubled {
		r.class = max(r.class, classSlow)
	}
	if d, _ := s.drive(drive); d == nil {
		r.far = 1
	}
	return r
}

// classOf says how a drive is.
func (s *Service) classOf(drive string) int {
	own, _ := s.drive(drive)
	if own == nil {
		if _, known := findDrive(s.o.Topology(), drive); !known || s.away(drive) != nil {
			return classAway
		}
	}
	var state dataio.State
	if own != nil {
		state = own.State()
	} else {
		state = s.lastState(drive)
	}
	switch state {
	case dataio.Online, dataio.ReadOnly:
		return classWell
	case dataio.Offline:
		return classAway
	}
	return classSlow
}

// lastState is how a drive elsewhere was at the last look, Online if there was
// none yet. One whose node is connected and doesn't answer is slow.
func (s *Service) lastState(drive string) dataio.State {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	switch l := s.health.drives[drive]; {
	case l == nil, !l.known:
		return dataio.Online
	case !l.reachable():
		return dataio.Degraded
	default:
		return l.state()
	}
}

// absence is what a drive waits for before it can be asked.
type absence struct {
	what, why string // for waits
	err       error  // fault.Waiting
}

// away says why a drive can't be asked at the moment; nil: it can. One that is
// not in the topology is to be asked for, since the view here may be old, and
// so is a node to which there is no way: that is what says so.
func (s *Service) away(drive string) *absence {
	if d, _ := s.drive(drive); d != nil {
		return nil
	}
	node, known := findDrive(s.o.Topology(), drive)
	subject := s.driveName(node.Name, drive)
	switch {
	case !known:
		return nil
	case node.Name == s.o.Self:
		return &absence{"drive " + drive, "not open", fault.New(fault.Waiting, subject, "is not open")}
	case s.o.Conn(node.Name) == nil, connected(s.o.Conn(node.Name)):
		return nil
	}
	return &absence{"node " + node.Name, "not connected", fault.New(fault.Waiting, subject, "node %s is not connected", node.Name)}
}

// open opens what is left of the part, after done bytes of it, on the next copy.
// It is Corrupted only if every copy is.
func (r *replicas) open(ctx context.Context, done int64) (*source, error) {
	rest := part{r.part.segment, r.part.off + done, r.part.n - done}
	for {
		c, how, err := r.next(ctx)
		if err != nil {
			return nil, err
		}
		if r.why != "" && r.s.o.Hooks.Failover != nil {
			r.s.o.Hooks.Failover(r.why)
		}
		c.tries++
		began := time.Now()
		r.s.reads.begin(c.drive)
		src, err := r.s.openOn(ctx, c.drive, rest, how)
		if err == nil {
			src.copy = c
			r.until = time.Time{}
			return src, nil
		}
		r.s.reads.end(c.drive)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r.failed(c, began, err)
	}
}

// done ends the use of a source.
func (r *replicas) done(src *source) {
	src.close()
	r.s.reads.end(src.copy.drive)
}

// failed notes that a copy can't be read, or not for now, for which it was asked
// at began.
func (r *replicas) failed(c *choice, began time.Time, err error) {
	c.err, c.failedAt = err, time.Now()
	if r.until.IsZero() {
		r.until = began.Add(r.s.o.WaitTimeout)
	}
	r.why = fault.KindOf(err).Reason()
	if fault.KindOf(err) == fault.Corrupted {
		c.bad = true
		return
	}
	r.s.reads.failed(c.drive)
}

// failure is why no copy can be read: what the last said that may be good, so
// that it may be read later, or, where none may be, what the last bad one did.
func (r *replicas) failure() error {
	err := error(fault.New(fault.Corrupted, "object", "has a segment on no drive"))
	for _, bad := range []bool{true, false} {
		for _, c := range r.all {
			if c.bad == bad && c.err != nil {
				err = c.err
			}
		}
	}
	if fe := fault.From(err); fe.Kind == fault.Deadline { // a copy's, not the request's
		return &fault.Error{Kind: fault.Unavailable, Subject: fe.Subject, Detail: fe.Detail, Err: err}
	}
	return err
}

// next returns the copy to be tried next, and how. While there are copies that
// have not been tried and aren't away, it doesn't wait; then it does, for as
// long as a request may.
func (r *replicas) next(ctx context.Context) (*choice, manner, error) {
	how := manner{verify: r.verify, patience: r.s.o.WaitTimeout}
	leave := func() {}
	defer func() { leave() }()
	for waits := false; ; {
		if c := r.untried(); c != nil {
			how.hedge = r.others(c)
			return c, how, nil
		}
		if r.until.IsZero() { // all are away
			r.until = time.Now().Add(r.s.o.WaitTimeout)
		}
		c, left, away := r.second()
		switch {
		case c != nil && time.Since(c.failedAt) < retryMax/4:
			// It has failed just now: a moment later it may not.
			if err := pause(ctx); err != nil {
				return nil, how, err
			}
			fallthrough
		case c != nil:
			how.patience = max(time.Until(r.until)/time.Duration(left), min(silence, r.s.o.WaitTimeout))
			return c, how, nil
		case away != nil && time.Now().Before(r.until):
			if !waits {
				waits, leave = true, r.enter()
			}
			if err := pause(ctx); err != nil {
				return nil, how, err
			}
		case r.refresh(ctx): // there are untried ones
		case away != nil:
			return nil, how, away
		default:
			return nil, how, r.failure()
		}
	}
}

// untried returns the first copy that was not tried yet, unless it was away
// when the read began.
func (r *replicas) untried() *choice {
	for _, c := range r.all {
		if c.tries == 0 && !c.bad && c.rank.class < classAway {
			return c
		}
	}
	return nil
}

// others says whether there is another copy that could be read in place of one
// that stalls.
func (r *replicas) others(c *choice) bool {
	return slices.ContainsFunc(r.all, func(other *choice) bool {
		return other != c && !other.bad && other.tries < triesMax && other.rank.class < classAway
	})
}

// second returns the first copy that may be tried once more and isn't away,
// with the number of them; and why one is away.
func (r *replicas) second() (c *choice, left int, away error) {
	for _, other := range r.all {
		if other.bad || other.tries >= triesMax {
			continue
		}
		if why := r.s.away(other.drive); why != nil {
			away = why.err
			continue
		}
		if left++; c == nil {
			c = other
		}
	}
	return c, left, away
}

// enter notes that a request waits for all copies that are away; leave is its
// end.
func (r *replicas) enter() (leave func()) {
	var all []func()
	for _, c := range r.all {
		if why := r.s.away(c.drive); why != nil && !c.bad {
			all = append(all, r.s.waits.enter(why.what, why.why))
		}
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}

// refreshTimeout bounds the second look at a record.
const refreshTimeout = 2 * time.Second

// refresh looks once whether the segment has copies elsewhere by now: it may
// have been healed or moved since its record was read.
func (r *replicas) refresh(ctx context.Context) bool {
	if r.again == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	drives := r.again(ctx)
	r.again = nil
	return r.add(drives)
}
