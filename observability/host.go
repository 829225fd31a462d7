package observability

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

const (
	// maxInterfaces bounds the network interfaces that are reported, and
	// with them the series: those that have carried the most bytes. A
	// container host may have thousands, most of them virtual.
	maxInterfaces = 64

	// readTimeout bounds one reading. On macOS and FreeBSD it runs a program.
	readTimeout = 5 * time.Second

	// maxCores bounds the logical CPUs that are reported one by one.
	maxCores = 256
)

// Host reads the host's counters and makes rates of them. One per process is
// enough: the collectors of several nodes share its samples. It has no
// goroutine: the first collector whose time has come takes the reading, the
// others get the same sample.
type Host struct {
	source source
	// epoch aligns the collectors: all sample at epoch + n × interval.
	epoch time.Time

	// turn is a lock that gives up when a context ends; it guards the rest.
	turn    chan struct{}
	devices map[string]bool // block devices that drives are on
	last    *reading        // what rates are made against
	sample  *sample         // made of last; nil before the first
}

// NewHost returns a Host that reads this machine's counters. It starts
// nothing.
func NewHost() *Host { return newHost(newSystem()) }

func newHost(s source) *Host {
	return &Host{
		source:  s,
		epoch:   time.Now(),
		turn:    make(chan struct{}, 1),
		devices: make(map[string]bool),
	}
}

// source reads counters. Its methods may be called at once, but read never
// twice at a time.
type source interface {
	// read reads what it can. The counters are since the host's start.
	// devices are the block devices wanted, by the names that device gives.
	read(ctx context.Context, devices []string) *reading
	// device returns the block device that holds path; "" when it has none
	// or it is not known.
	device(ctx context.Context, path string) string
}

// reading is the host's counters at one moment. What couldn't be read is nil
// and has an error in problems.
type reading struct {
	at       time.Time
	cores    int32
	cpu      map[int32]cpuTimes // of each core, by number; nil: not known
	load     *loads
	memory   *memoryBytes
	networks map[string]networkCounters
	disks    map[string]diskCounters
	problems []error
}

// cpuTimes are seconds, of one core or of several together.
type cpuTimes struct{ user, system, idle, iowait, steal float64 }

type loads struct{ one, five, fifteen float64 }

type memoryBytes struct {
	total, used, free, available, buffers, cache, swapTotal, swapUsed, resident, heap float64
}

type networkCounters struct {
	receivedBytes, sentBytes, receivedPackets, sentPackets, errors, drops uint64
}

type diskCounters struct {
	reads, writes, readBytes, writtenBytes uint64
	ioMillis                               uint64 // spent on all requests, together
	busyMillis                             uint64 // with a request under way
}

// sample is what a reading says about the time since the one before. It is
// never changed, collectors share it.
type sample struct {
	at       time.Time
	cores    int32
	cpu      *cpuRatios // nil: not known, as after the first reading
	busy     []coreBusy // of the cores, by number
	load     *loads
	memory   *memoryBytes
	networks map[string]*networkRates // nil value: there, but no rates yet
	disks    map[string]*diskRates    // likewise
	problem  error
}

type cpuRatios struct{ busy, user, system, idle, iowait, steal float64 }

type coreBusy struct {
	core  int32
	busy  float64
	known bool
}

type networkRates struct {
	receivedBytes, sentBytes, receivedPackets, sentPackets, errors, drops float64
}

type diskRates struct {
	reads, writes, readBytes, writtenBytes, await, utilization float64
}

// take returns the sample of the last reading when that is younger than
// fresh, else that of a new one. It fails only when ctx ends.
func (h *Host) take(ctx context.Context, fresh time.Duration) (*sample, error) {
	if err := h.lock(ctx); err != nil {
		return nil, err
	}
	defer h.unlock()
	if h.sample != nil && time.Since(h.sample.at) < fresh {
		return h.sample, nil
	}
	readCtx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r := h.source.read(readCtx, slices.Sorted(maps.Keys(h.devices)))
	if err := ctx.Err(); err != nil {
		return nil, err // the reading may be half of one
	}
	h.sample = r.since(h.last)
	h.last = r
	return h.sample, nil
}

// watch returns the block device that holds path and has it read from now on.
// Asking for the device may hang with the drive; nothing is locked meanwhile.
func (h *Host) watch(ctx context.Context, path string) (string, error) {
	device := h.source.device(ctx, path)
	if device == "" {
		return "", nil
	}
	if err := h.lock(ctx); err != nil {
		return "", err
	}
	defer h.unlock()
	h.devices[device] = true
	return device, nil
}

func (h *Host) lock(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Host) unlock() { <-h.turn }

// next returns how long to wait for the next common moment to sample.
func (h *Host) next(interval time.Duration) time.Duration {
	return interval - time.Since(h.epoch)%interval
}

// since makes rates of the counters against an earlier reading, which may be
// nil. A counter that went back was reset (or its interface or device was
// replaced): then there are no rates this time, of all counters beside it.
func (r *reading) since(last *reading) *sample {
	s := &sample{
		at:      r.at,
		cores:   r.cores,
		load:    r.load,
		memory:  r.memory,
		problem: errors.Join(r.problems...),
	}
	if last == nil {
		last = &reading{at: r.at}
	}
	seconds := r.at.Sub(last.at).Seconds()
	s.addCPU(r.cpu, last.cpu)

	s.networks = make(map[string]*networkRates)
	for _, name := range busiest(r.networks) {
		var rates *networkRates
		if before, ok := last.networks[name]; ok {
			rates = r.networks[name].since(before, seconds)
		}
		s.networks[name] = rates
	}

	s.disks = make(map[string]*diskRates)
	for name, now := range r.disks {
		var rates *diskRates
		if before, ok := last.disks[name]; ok {
			rates = now.since(before, seconds)
		}
		s.disks[name] = rates
	}
	return s
}

// addCPU makes ratios of the cores, and of all together: of those that are in
// both readings. One that has come online since, with all that it did before,
// or that begins at zero again, is in neither this time.
func (s *sample) addCPU(now, last map[int32]cpuTimes) {
	var all cpuTimes
	for _, core := range slices.Sorted(maps.Keys(now)) {
		c := coreBusy{core: core}
		if before, ok := last[core]; ok {
			d := now[core].minus(before)
			if ratios := d.ratios(); ratios != nil {
				c.busy, c.known = ratios.busy, true
				all.add(d)
			}
		}
		if len(s.busy) < maxCores {
			s.busy = append(s.busy, c)
		}
	}
	s.cpu = all.ratios()
}

// busiest returns the interfaces to report: those that ever carried a packet
// or, where these are too many, the ones with the most bytes, and among equals
// the first by name.
func busiest(networks map[string]networkCounters) []string {
	names := make([]string, 0, len(networks))
	for name, n := range networks {
		if n != (networkCounters{}) {
			names = append(names, name)
		}
	}
	if len(names) <= maxInterfaces {
		return names
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(networks[b].bytes(), networks[a].bytes()), cmp.Compare(a, b))
	})
	return names[:maxInterfaces]
}

func (c networkCounters) bytes() uint64 { return c.receivedBytes + c.sentBytes }

func (t *cpuTimes) add(other cpuTimes) {
	t.user += other.user
	t.system += other.system
	t.idle += other.idle
	t.iowait += other.iowait
	t.steal += other.steal
}

func (now cpuTimes) minus(before cpuTimes) cpuTimes {
	return cpuTimes{
		user:   now.user - before.user,
		system: now.system - before.system,
		idle:   now.idle - before.idle,
		iowait: max(0, now.iowait-before.iowait), // Linux's goes back at times: proc(5)
		steal:  now.steal - before.steal,
	}
}

// ratios is nil for times that went back, or when none passed.
func (d cpuTimes) ratios() *cpuRatios {
	total := d.user + d.system + d.idle + d.iowait + d.steal
	if d.user < 0 || d.system < 0 || d.idle < 0 || d.steal < 0 || total <= 0 {
		return nil
	}
	return &cpuRatios{
		busy:   (d.user + d.system + d.steal) / total,
		user:   d.user / total,
		system: d.system / total,
		idle:   d.idle / total,
		iowait: d.iowait / total,
		steal:  d.steal / total,
	}
}

func (now networkCounters) since(before networkCounters, seconds float64) *networkRates {
	rate := rater{seconds: seconds}
	rates := &networkRates{
		receivedBytes:   rate.of(now.receivedBytes, before.receivedBytes),
		sentBytes:       rate.of(now.sentBytes, before.sentBytes),
		receivedPackets: rate.of(now.receivedPackets, before.receivedPackets),
		sentPackets:     rate.of(now.sentPackets, before.sentPackets),
		errors:          rate.of(now.errors, before.errors),
		drops:           rate.of(now.drops, before.drops),
	}
	if !rate.valid() {
		return nil
	}
	return rates
}

func (now diskCounters) since(before diskCounters, seconds float64) *diskRates {
	rate := rater{seconds: seconds}
	rates := &diskRates{
		reads:        rate.of(now.reads, before.reads),
		writes:       rate.of(now.writes, before.writes),
		readBytes:    rate.of(now.readBytes, before.readBytes),
		writtenBytes: rate.of(now.writtenBytes, before.writtenBytes),
		// Busy milliseconds a second are per mille of the time; the kernel
		// rounds them, which must not make more than all of it.
		utilization: min(1, rate.of(now.busyMillis, before.busyMillis)/1000),
	}
	waited := rate.of(now.ioMillis, before.ioMillis) / 1000
	if !rate.valid() {
		return nil
	}
	if requests := rates.reads + rates.writes; requests > 0 {
		rates.await = waited / requests
	}
	return rates
}

// rater makes rates of counters that belong together.
type rater struct {
	seconds float64
	reset   bool // one of the counters went back
}

func (r *rater) of(now, before uint64) float64 {
	if now < before {
		r.reset = true
		return 0
	}
	return float64(now-before) / r.seconds
}

func (r *rater) valid() bool { return !r.reset && r.seconds > 0 }
