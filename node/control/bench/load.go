package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one run of one system in one row gave, by the name of the
// metric. Times are in microseconds.
type sample map[string]float64

// metric names
const (
	rate        = "rate" // operations a second
	p50         = "p50"
	p99         = "p99"
	cpuEach     = "cpu"          // of all processes, for each operation
	cpuServers  = "cpu servers"  // of the members alone
	others      = "others"       // share of the processors that other programs had
	syncsLeader = "syncs leader" // sync system calls for each put
	syncsAll    = "syncs all"    // of the three members
)

type operation int

const (
	opPut  operation = iota // of a new key
	opGet                   // of a key that is there, linearizable
	opStat                  // the same without the value
)

type placement int

const (
	spread     placement = iota // over the three members
	atLeader                    // all clients at the leader
	atFollower                  // all clients at one follower
)

// work is a load.
type work struct {
	op             operation
	at             placement
	clients, conns int
	size           int
	warm, time     time.Duration
}

// slack is how long a run may take beyond what it is meant to.
const slack = 30 * time.Second

// acknowledged is a put that a member, by its number, has acknowledged.
type acknowledged struct {
	member int
	key    string
}

// targets are the members that the clients talk to.
func (m *mesh) targets(at placement, leader int) []int {
	switch at {
	case atLeader:
		return []int{leader}
	case atFollower:
		return []int{(leader + 1) % members}
	}
	return []int{0, 1, 2}
}

// outcome is what came of a run.
type outcome struct {
	sample   sample
	from, to time.Time // when the operations of the sample ended
	done     int       // how many
	leader   int       // the member that led all the time
}

// run measures one load, and reads back the last put of each client. all are
// the systems that are up, this one among them.
func (m *mesh) run(ctx context.Context, w work, all []*mesh) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, w.warm+w.time+slack)
	defer cancel()
	leader, err := m.leader(ctx)
	if err != nil {
		return nil, err
	}
	d, err := m.startDriver(ctx, w, m.targets(w.at, leader))
	if err != nil {
		return nil, err
	}
	defer d.stop()
	o, err := m.window(ctx, w, d, all)
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	o.leader = leader
	if after, err := m.leader(ctx); err != nil || after != leader {
		return nil, errors.Join(err, fmt.Errorf("%s: the leader changed during the run", m.sys.name))
	}
	return o, m.verify(ctx, d.last(), w.size)
}

// window lets the load go for its time, and measures it.
func (m *mesh) window(ctx context.Context, w work, d *driver, all []*mesh) (*outcome, error) {
	if err := pause(ctx, w.warm, d.failed); err != nil {
		return nil, err
	}
	before, err := m.read(all)
	if err != nil {
		return nil, err
	}
	d.timed.Store(true)
	o := &outcome{from: time.Now()}
	if err := pause(ctx, w.time, d.failed); err != nil {
		return nil, err
	}
	d.timed.Store(false)
	o.to = time.Now()
	after, err := m.read(all)
	if err != nil {
		return nil, err
	}
	if err := d.stop(); err != nil {
		return nil, err
	}
	times := d.times()
	if len(times) == 0 {
		return nil, fmt.Errorf("%s: nothing was done within %v", m.sys.name, w.time)
	}
	slices.Sort(times)
	o.done = len(times)
	o.sample = sample{rate: float64(o.done) / o.to.Sub(o.from).Seconds(), p50: quantile(times, 0.50), p99: quantile(times, 0.99)}
	o.sample.spent(float64(o.done), before, after)
	return o, nil
}

// quantile of sorted times, in µs.
func quantile(times []time.Duration, q float64) float64 {
	return times[int(q*float64(len(times)-1))].Seconds() * 1e6
}

// pause waits for d, for ctx or for a failure.
func pause(ctx context.Context, d time.Duration, failed <-chan error) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// driver runs the clients of a load. Each does one operation after the other.
type driver struct {
	mesh    *mesh
	work    work
	run     int
	clients []*driven
	timed   atomic.Bool // times count
	ending  atomic.Bool
	cancel  context.CancelFunc
	failed  chan error // the first
	wg      sync.WaitGroup
	first   error // of failed, once stop has taken it
}

// driven is one client. Only its goroutine touches it before stop.
type driven struct {
	client
	id, member int
	random     *rand.Rand
	puts       int // acknowledged
	times      []time.Duration
}

func (m *mesh) startDriver(ctx context.Context, w work, targets []int) (*driver, error) {
	m.runs++
	ctx, cancel := context.WithCancel(ctx)
	d := &driver{mesh: m, work: w, run: m.runs, cancel: cancel, failed: make(chan error, 1)}
	for i := range w.clients {
		conn := i % w.conns // the targets in turn have one each
		member := targets[conn%len(targets)]
		pool, err := m.connect(member, conn/len(targets)+1)
		if err != nil {
			cancel()
			return nil, err
		}
		d.clients = append(d.clients, &driven{
			client: pool[conn/len(targets)], id: i, member: member,
			random: rand.New(rand.NewPCG(uint64(m.runs), uint64(i))), times: make([]time.Duration, 0, 1024),
		})
	}
	for _, c := range d.clients {
		d.wg.Go(func() {
			if err := d.drive(ctx, c); err != nil {
				select {
				case d.failed <- err:
				default:
				}
			}
		})
	}
	return d, nil
}

// drive ends with the operation during which the driver was stopped: what has
// begun is waited for, so that no put is left without an outcome.
func (d *driver) drive(ctx context.Context, c *driven) error {
	for !d.ending.Load() {
		var err error
		start := time.Now()
		switch d.work.op {
		case opPut:
			key := d.key(c, c.puts)
			value := valueOf(key, d.work.size)
			start = time.Now()
			if err = c.put(ctx, key, value); err == nil {
				c.puts++
			}
		case opGet:
			key := d.mesh.keys[c.random.IntN(len(d.mesh.keys))]
			var got []byte
			if got, err = c.get(ctx, key); err == nil && !bytes.Equal(got, d.mesh.values[key]) {
				err = fmt.Errorf("%q has %d other bytes", key, len(got))
			}
		case opStat:
			err = c.stat(ctx, d.mesh.keys[c.random.IntN(len(d.mesh.keys))])
		}
		if err != nil {
			return fmt.Errorf("%s: client %d at n%d: %w", d.mesh.sys.name, c.id, c.member+1, err)
		}
		if d.timed.Load() {
			c.times = append(c.times, time.Since(start))
		}
	}
	return nil
}

// key is the n-th that a client puts. All keys of a mesh are distinct.
func (d *driver) key(c *driven, n int) string {
	return fmt.Sprintf("put/%04d/%05d/%08d", d.run, c.id, n)
}

// stop ends the clients and gives the first failure.
func (d *driver) stop() error {
	d.ending.Store(true)
	d.wg.Wait()
	d.cancel()
	select {
	case d.first = <-d.failed:
	default:
	}
	return d.first
}

// times are those of all operations that ended within the window. Only to be
// had after stop.
func (d *driver) times() (all []time.Duration) {
	for _, c := range d.clients {
		all = append(all, c.times...)
	}
	return all
}

// last is each client's last put. Only to be had after stop.
func (d *driver) last() (puts []acknowledged) {
	for _, c := range d.clients {
		if c.puts > 0 {
			puts = append(puts, acknowledged{c.member, d.key(c, c.puts-1)})
		}
	}
	return puts
}

// all is every put that was acknowledged. Only to be had after stop.
func (d *driver) all() (puts []acknowledged) {
	for _, c := range d.clients {
		for n := range c.puts {
			puts = append(puts, acknowledged{c.member, d.key(c, n)})
		}
	}
	return puts
}
