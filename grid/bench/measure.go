package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// sample is what one run of one stack in one row gave, by the name of the
// metric. Rates are per second; times are in microseconds, sizes in bytes.
type sample map[string]float64

// metric names
const (
	rate        = "rate"      // round trips or messages a second
	throughput  = "bytes"     // payload bytes a second, one way
	p50         = "p50"       // µs
	p99         = "p99"       // µs
	cpuEach     = "cpu"       // µs of processor time for each, both ends
	allocsEach  = "allocs"    // allocations for each, both ends
	p99Idle     = "p99 idle"  // µs, without the stream
	p99Ratio    = "p99 ratio" // beside the stream to idle
	loneBytes   = "lone"      // bytes a second of the stream alone
	streamRatio = "stream ratio"
	nearHeap    = "heap here" // bytes for each connection or call
	farHeap     = "heap there"
	bothHeap    = "heap"
	nearStack   = "stacks here"
	farStack    = "stacks there"
	nearGo      = "goroutines here"
	farGo       = "goroutines there"
	seconds     = "seconds" // the whole took
	others      = "others"  // share of the processors that other programs had
)

// load is a number of callers that make round trips.
type load struct {
	callers, size int
}

// bench is one invocation of the program.
type bench struct {
	warm, time time.Duration
	profiles   string // directory; "" for none
	idle       int    // connections
	inFlight   int    // requests
	base       setup
}

// slack is how long a measurement may take beyond what it is meant to.
const slack = 20 * time.Second

// link is a near and a far end that are connected.
type link struct {
	far    far
	client client
	stop   []func() error // profiles
}

// open starts a far end of the stack and connects to it.
func (b *bench) open(ctx context.Context, name, row string, inProcess bool) (*link, error) {
	st, ok := stackNamed(name)
	if !ok {
		return nil, fmt.Errorf("there is no stack %q", name)
	}
	s := b.base
	s.Stack = name
	f, err := startFar(ctx, s, inProcess)
	if err != nil {
		return nil, err
	}
	l := &link{far: f}
	if l.client, err = st.dial(ctx, s, f.addr()); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if b.profiles != "" {
		if err := l.profile(filepath.Join(b.profiles, row+"."+name)); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l *link) profile(path string) error {
	stop, err := l.far.profile(path + ".far.pprof")
	if err != nil {
		return err
	}
	l.stop = append(l.stop, stop)
	near := new(peer)
	if near.profile, err = startProfile(path + ".near.pprof"); err != nil {
		return err
	}
	l.stop = append(l.stop, near.stopProfile)
	return nil
}

func (l *link) close() error {
	var errs []error
	for _, stop := range l.stop {
		errs = append(errs, stop())
	}
	return errors.Join(append(errs, l.client.close(), l.far.close())...)
}

// reading is what both ends, and the machine, have used so far.
type reading struct {
	usage
	busy time.Duration
	at   time.Time
}

func (l *link) read() (reading, error) {
	u, err := l.far.usage(false)
	return reading{readUsage(false).add(u), busyTime(), time.Now()}, err
}

// spent puts into s what n round trips or messages have cost.
func (s sample) spent(n float64, before, after reading) {
	cpu := after.CPU - before.CPU
	s[cpuEach] = cpu.Seconds() * 1e6 / n
	s[allocsEach] = float64(after.Mallocs-before.Mallocs) / n
	if before.busy > 0 {
		all := after.at.Sub(before.at) * time.Duration(runtime.NumCPU())
		s[others] = max(0, (after.busy-before.busy-cpu).Seconds()/all.Seconds())
	}
}

// requests measures round trips.
func (b *bench) requests(ctx context.Context, l *link, ld load) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, b.warm+b.time+slack)
	defer cancel()
	d, err := startDriver(ctx, l.client, ld)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	if err := pause(ctx, b.warm, d.failed); err != nil {
		return nil, err
	}
	before, err := l.read()
	if err != nil {
		return nil, err
	}
	count, start := d.begin(), time.Now()
	n := 0.0
	for n == 0 { // a slow stack on a busy machine gets as long as it needs
		if err := pause(ctx, b.time, d.failed); err != nil {
			return nil, err
		}
		n = float64(d.count() - count)
	}
	elapsed := time.Since(start).Seconds()
	after, err := l.read()
	if err != nil {
		return nil, err
	}
	if err := d.stop(); err != nil {
		return nil, err
	}
	h := d.latencies()
	s := sample{rate: n / elapsed, throughput: n / elapsed * float64(ld.size), p50: h.quantile(0.50), p99: h.quantile(0.99)}
	s.spent(n, before, after)
	return s, nil
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

// driver runs the callers of a load, each with a context of its own that has
// a deadline.
type driver struct {
	cancel  context.CancelFunc
	callers []*drivenCaller
	timed   atomic.Bool // latencies count
	ending  atomic.Bool
	failed  chan error // the first
	wg      sync.WaitGroup
	client  client
}

type drivenCaller struct {
	done atomic.Int64
	hist *histogram // nil: not kept
	_    [64]byte   // its count is on a cache line of its own
}

// maxTimed is up to how many callers latencies are kept: the memory of more
// histograms would make the garbage collector's work rarer than it is.
const maxTimed = 32

func startDriver(ctx context.Context, c client, ld load) (*driver, error) {
	ctx, cancel := context.WithCancel(ctx)
	d := &driver{cancel: cancel, failed: make(chan error, 1), client: c}
	for range ld.callers {
		call, err := c.caller(ctx)
		if err != nil {
			return nil, errors.Join(err, d.stop())
		}
		dc := new(drivenCaller)
		if ld.callers <= maxTimed {
			dc.hist = new(histogram)
		}
		d.callers = append(d.callers, dc)
		d.wg.Go(func() {
			if err := d.drive(ctx, dc, call, ld.size); err != nil {
				select {
				case d.failed <- err:
				default:
				}
			}
		})
	}
	return d, nil
}

func (d *driver) drive(ctx context.Context, dc *drivenCaller, call caller, size int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req := make([]byte, size)
	for i := range req {
		req[i] = byte(i)
	}
	resp, err := call(ctx, req)
	if err == nil && !bytes.Equal(resp, req) {
		err = fmt.Errorf("the echo of %d bytes is another, of %d", len(req), len(resp))
	}
	for err == nil && !d.ending.Load() {
		if dc.hist != nil {
			start := time.Now()
			resp, err = call(ctx, req)
			if d.timed.Load() {
				dc.hist.add(time.Since(start))
			}
		} else {
			resp, err = call(ctx, req)
		}
		if err == nil && len(resp) != size {
			err = fmt.Errorf("an echo of %d bytes for %d", len(resp), size)
		}
		dc.done.Add(1)
	}
	if d.ending.Load() {
		return nil // its error may be that it was stopped
	}
	return err
}

// begin makes latencies count from now on, and gives the count so far.
func (d *driver) begin() int64 {
	d.timed.Store(true)
	return d.count()
}

func (d *driver) count() (n int64) {
	for _, dc := range d.callers {
		n += dc.done.Load()
	}
	return n
}

// stop ends the callers and gives the first failure. A stack that does not
// come back within two seconds has its connection closed.
func (d *driver) stop() error {
	d.ending.Store(true)
	force := time.AfterFunc(2*time.Second, func() {
		d.cancel()
		d.client.close()
	})
	d.wg.Wait()
	force.Stop()
	d.cancel()
	select {
	case err := <-d.failed:
		return err
	default:
		return nil
	}
}

// latencies are only to be had after stop.
func (d *driver) latencies() *histogram {
	all := new(histogram)
	for _, dc := range d.callers {
		if dc.hist == nil {
			continue
		}
		for i, n := range dc.hist {
			all[i] += n
		}
	}
	return all
}

// histogram counts durations in steps of about 3 %.
type histogram [64 << subBits]uint32

const subBits = 5

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-subBits-1, 0)
	h[min(shift<<subBits+int(v>>shift), len(h)-1)]++
}

// quantile gives the upper end of the step in which q lies, in µs.
func (h *histogram) quantile(q float64) float64 {
	total := uint64(0)
	for _, n := range h {
		total += uint64(n)
	}
	rank, seen := uint64(q*float64(total)), uint64(0)
	for i, n := range h {
		if seen += uint64(n); seen > rank {
			shift := max(i>>subBits-1, 0)
			return float64(uint64(i-shift<<subBits+1)<<shift) / 1e3
		}
	}
	return 0
}

// stream measures a flow of messages, from the first to the sink's word that
// it has had the last.
func (b *bench) stream(ctx context.Context, l *link, size int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, b.warm+b.time+slack)
	defer cancel()
	force := context.AfterFunc(ctx, func() { l.client.close() })
	defer force()
	if _, err := runFlow(ctx, l.client, size, within(b.warm)); err != nil {
		return nil, err
	}
	before, err := l.read()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	n, err := runFlow(ctx, l.client, size, within(b.time))
	elapsed := time.Since(start).Seconds()
	if err != nil {
		return nil, err
	}
	after, err := l.read()
	if err != nil {
		return nil, err
	}
	s := sample{rate: float64(n) / elapsed, throughput: float64(n) / elapsed * float64(size)}
	s.spent(float64(n), before, after)
	return s, nil
}

// within is true for a time.
func within(d time.Duration) func() bool {
	start := time.Now()
	return func() bool { return time.Since(start) < d }
}

// runFlow sends while more is true, which it asks every so many messages.
func runFlow(ctx context.Context, c client, size int, more func() bool) (int64, error) {
	f, err := c.flow(ctx)
	if err != nil {
		return 0, err
	}
	msg := make([]byte, size)
	every := max(64<<10/size, 1)
	sent := int64(0)
	for more() {
		for range every {
			if err := f.send(msg); err != nil {
				return 0, err
			}
		}
		sent += int64(every)
	}
	got, err := f.finish()
	if err == nil && got != sent {
		err = fmt.Errorf("%d of %d messages arrived", got, sent)
	}
	return sent, err
}

// beside measures small requests beside a saturating stream on the same
// connection: alone first, then the stream alone, then both.
func (b *bench) beside(ctx context.Context, l *link, ld load, size int) (sample, error) {
	idle, err := b.requests(ctx, l, ld)
	if err != nil {
		return nil, err
	}
	lone, err := b.stream(ctx, l, size)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.warm+b.time+slack)
	defer cancel()
	force := context.AfterFunc(ctx, func() { l.client.close() })
	defer force()
	var over atomic.Bool
	var sent int64
	var elapsed time.Duration
	flowed := make(chan error, 1)
	go func() {
		var err error
		start := time.Now()
		sent, err = runFlow(ctx, l.client, size, func() bool { return !over.Load() && ctx.Err() == nil })
		elapsed = time.Since(start)
		flowed <- err
	}()
	both, err := b.requests(ctx, l, ld)
	over.Store(true)
	if err != nil {
		cancel()
	}
	if err := errors.Join(err, <-flowed); err != nil {
		return nil, err
	}
	rateBeside := float64(sent) * float64(size) / elapsed.Seconds()
	return sample{
		p99Idle: idle[p99], p99: both[p99], p50: both[p50], rate: both[rate],
		p99Ratio: both[p99] / idle[p99], loneBytes: lone[throughput],
		throughput: rateBeside, streamRatio: rateBeside / lone[throughput], others: both[others],
	}, nil
}
