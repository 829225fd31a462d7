package control

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// freshEvery is how often a copy that nobody reads is brought up to the time,
// so that a stale read finds it no older than that.
const freshEvery = 2 * time.Second

// A try to do so is given up after freshTry, a leader may be lost by then, and
// made again after freshAgain.
const freshTry, freshAgain = time.Second, 250 * time.Millisecond

// noteEvery is how exact freshness is: a node that reads a hundred thousand times
// a second needn't write down each of them.
const noteEvery = time.Millisecond

// freshness is up to when a group's copy here shows everything.
type freshness struct{ at atomic.Pointer[time.Time] }

// age is how old the copy is; the longest there is where that isn't known.
func (f *freshness) age() time.Duration {
	if at := f.at.Load(); at != nil {
		return time.Since(*at)
	}
	return 1<<63 - 1
}

// note says that the copy shows everything that was acknowledged up to at.
func (f *freshness) note(at time.Time) {
	for {
		old := f.at.Load()
		if old != nil && at.Sub(*old) < noteEvery {
			return
		}
		if now := at; f.at.CompareAndSwap(old, &now) { // a variable of its own: most often there is none
			return
		}
	}
}

// Read implements Index.
func (c *Control) Read(ctx context.Context, q *Query) (a *Answer, err error) {
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
	name, ofRecords := full.ofBucket()
	switch {
	case full.BucketUsages != nil:
		a, err = c.readUsages(ctx, &full)
	case name != "":
		err = c.withBucket(ctx, name, func(b *Bucket) error {
			full.BucketID = b.ID
			if a, err = c.readData(ctx, &full); err == nil {
				a.Bucket = b
			}
			return err
		})
	case ofRecords:
		a, err = c.readData(ctx, &full)
	default:
		a, err = c.readSystem(ctx, &full)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// RecordNow gives a record as Read does, with Answer.Made, where this node alone
// knows everything that was acknowledged before the call, and keeps the record.
// Else there is none, and Read says why, or has it.
func (c *Control) RecordNow(bucket, key string) (*Record, *atomic.Value) {
	if c.enter() != nil {
		return nil, nil
	}
	defer c.leave()
	e := c.engine.Load()
	if e == nil || c.Err() != nil || !e.ReadNow(dataGroup) {
		return nil, nil
	}
	system := c.system.acquire()
	b := system.known.get(bucket)
	c.system.release(system)
	if b == nil {
		return nil, nil
	}
	v, err := c.data.at(c.ctx, 0) // any state of the group shows it all
	if err != nil {
		return nil, nil
	}
	defer c.data.release(v)
	if v.open.check(v, bucket, b.ID) != nil {
		return nil, nil
	}
	found := v.kept.get(place{b.ID, key})
	if found == nil {
		return nil, nil
	}
	c.reached()
	return &found.Record, &found.made
}

// ofBucket names the bucket whose records a query is for, and tells whether a
// data group answers it.
func (q *Query) ofBucket() (name string, data bool) {
	switch {
	case q.Record != nil:
		return q.Record.Bucket, true
	case q.Records != nil:
		return q.Records.Bucket, true
	case q.Begin != nil:
		return q.Begin.Bucket, true
	case q.BucketUsage != nil:
		return q.BucketUsage.Bucket, true
	}
	return "", q.Garbage != nil || q.Segments != nil || q.Usage != nil || q.Copies != nil ||
		q.Scrub != nil || q.BucketUsages != nil || q.Totals != nil
}

// readSystem answers from the system group, readData from the data group.
func (c *Control) readSystem(ctx context.Context, q *Query) (*Answer, error) {
	return c.read(ctx, systemGroup, q)
}

func (c *Control) readData(ctx context.Context, q *Query) (*Answer, error) {
	return c.read(ctx, dataGroup, q)
}

// readOnce is one try: at this node's copy, or at another's where this one has
// none, or one that no leader keeps up to date. The caller limits its time.
func (c *Control) readOnce(ctx context.Context, g replica.GroupID, q *Query) (*Answer, error) {
	hosts, leader := c.hosts(g), c.leader(g)
	if hosts && (c.follows(leader) || c.freshness[g].age() <= q.MaxAge) {
		return c.readHere(ctx, g, q)
	}
	to := leader
	if !c.connected(to) {
		to = c.detour(leader)
	}
	if to == "" {
		return nil, errNoLeader
	}
	a, err := readCall.Call(ctx, c.conn(to), q)
	if err != nil {
		c.setHint(g, "")
		return nil, readError(err)
	}
	return a, nil
}

// readError makes a try's own time limit and a lost connection passing: a read
// changes nothing.
func readError(err error) error {
	err = tryError(err)
	if errors.Is(err, errLost) {
		return fault.Wrap(fault.Waiting, "index", err)
	}
	return err
}

// read tries until it succeeds, or what it lacks doesn't come.
func (c *Control) read(ctx context.Context, g replica.GroupID, q *Query) (*Answer, error) {
	changed, end := c.leaderChange(), time.Now().Add(fault.Patience(ctx, longestCall))
	a, err := c.readTry(ctx, end, g, q) // most often the only one, and so without the longer limit
	if err == nil {
		c.reached()
		return a, nil
	}
	inner, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	t := tries{c: c, ctx: ctx, inner: inner, group: g}
	for t.again(err, changed) {
		changed = c.leaderChange()
		if a, err = c.readTry(inner, end, g, q); err == nil {
			c.reached()
			return a, nil
		}
	}
	return nil, t.err(err)
}

// readTry is readOnce for tryTimeout at most, until end, and while this node runs.
func (c *Control) readTry(ctx context.Context, end time.Time, g replica.GroupID, q *Query) (*Answer, error) {
	if e := c.engine.Load(); e != nil && ctx.Err() == nil && c.Err() == nil && e.ReadNow(g) && c.hosts(g) {
		return c.readHere(ctx, g, q) // which waits for nothing then
	}
	ctx, cancel := context.WithTimeout(ctx, min(tryTimeout, time.Until(end)))
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	return c.readOnce(ctx, g, q)
}

// readHere answers from this node's copy, once that is new enough.
func (c *Control) readHere(ctx context.Context, g replica.GroupID, q *Query) (*Answer, error) {
	v, err := c.viewFor(ctx, g, q.MaxAge)
	if err != nil {
		return nil, err
	}
	s := c.state(g)
	defer s.release(v)
	a, err := v.answer(q)
	if err == nil && q.Begin != nil {
		err = c.room(g) // before the payload is sent, rather than after
	}
	if err != nil {
		return nil, c.readError(s, err)
	}
	a.Epoch = c.Topology().Epoch
	// A put's birth must not lie as far back as the last command.
	a.LogTime = max(a.LogTime, c.now().UnixNano())
	return a, nil
}

// readError lets refusals pass, and makes of everything else a Corrupted.
func (c *Control) readError(s *state, err error) error {
	if _, refused := refusal(err); refused {
		return err
	}
	return s.unreadable(err)
}

// viewFor gives a view that shows everything that was acknowledged before the
// call, or maxAge before it. The caller limits its time, by tryTimeout or less.
func (c *Control) viewFor(ctx context.Context, g replica.GroupID, maxAge time.Duration) (*view, error) {
	s, fresh := c.state(g), &c.freshness[g]
	if maxAge > 0 && fresh.age() <= maxAge {
		return s.acquire(), nil
	}
	e := c.engine.Load()
	if e == nil || c.Err() != nil {
		return nil, errNoLeader
	}
	asked := time.Now()
	index, err := e.ReadIndex(ctx, g)
	if err == nil {
		var v *view
		if v, err = s.at(ctx, index); err == nil {
			fresh.note(asked)
			return v, nil
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, replica.ErrClosed) {
		err = errNoLeader
	}
	return nil, err
}

// keepFresh brings a group's copy up to the time as soon as it is freshEvery
// old, for stale reads, and for those who must know how old it may be. Each
// group is waited for on its own.
func (c *Control) keepFresh(g replica.GroupID) {
	for wait := freshEvery; c.rest(wait, nil); {
		if age := c.freshness[g].age(); age < freshEvery {
			wait = freshEvery - age
			continue
		}
		if wait = freshAgain; !c.hosts(g) {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, freshTry)
		if v, err := c.viewFor(ctx, g, 0); err == nil {
			c.state(g).release(v)
		}
		cancel()
	}
}

// rest waits for d, or for sooner, and tells whether the node goes on.
func (c *Control) rest(d time.Duration, sooner <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-sooner:
	case <-c.ctx.Done():
	}
	return c.ctx.Err() == nil
}

// serveRead answers another node's query from the copy here.
func (c *Control) serveRead(ctx context.Context, q *Query) (*Answer, error) {
	if err := q.validate(); err != nil {
		return nil, ToWire(err)
	}
	g := systemGroup
	if _, data := q.ofBucket(); data {
		g = dataGroup
	}
	if !c.hosts(g) {
		return nil, ToWire(fault.New(fault.Waiting, nodeSubject(c.self), "has no copy of group %s", groupName(g)))
	}
	if leader := c.leader(g); leader != c.self && !c.connected(leader) {
		return nil, ToWire(c.missing(g, errNoLeader))
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	a, err := c.readHere(ctx, g, q)
	if errors.Is(err, errNoLeader) {
		err = c.missing(g, err)
	}
	if err != nil {
		return nil, ToWire(err)
	}
	return a, nil
}
