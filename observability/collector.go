package observability

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CollectorOptions set up a Collector. Node and Host are required.
type CollectorOptions struct {
	Node string
	Host *Host
	// Drives returns the node's drives, in a steady order and none twice. It
	// is called once a sample, never twice at a time, and must not block. nil:
	// no drives.
	Drives func() []DriveSource
	// Mesh returns what the node has exchanged with the others so far. It is
	// called once a sample and must not block. nil: it is alone.
	Mesh func() MeshCounters
	// Requests are the node's, for the rates of its APIs; nil: there are none.
	Requests *Requests
	// Sample and Fold are the time between two samples and between two
	// folds into average and maximum; 0: 1 s and 1 min.
	Sample, Fold time.Duration
	// Failed is told when a part of the host can't be read, again when that
	// changes, and nil when all is well again. It must not block. nil:
	// nobody is told.
	Failed func(err error)
}

// Collector keeps current, average and maximum of a node's resources. Its
// methods may be called by any goroutine.
type Collector struct {
	o         CollectorOptions
	published atomic.Pointer[Resources] // never nil
	feed      Feed                      // of what is published with each sample

	meshRates meshRates // Run's goroutine alone has them
	callRates callRates

	mu       sync.Mutex // guards the rest; no I/O under it
	drives   []Drive    // as the node told, with Device of those known
	sample   *sample    // the last one; nil before the first
	cpu      cpuWindows
	memory   memoryWindows
	cores    map[int32]*window // busy; as many as maxCores, and as many that went offline
	networks map[string]*networkWindows
	grid     trafficWindows
	bulk     trafficWindows
	peers    []Peer // of the last sample
	apis     []APICalls
	problem  string // the one Failed was told last
}

type trafficWindows struct{ received, sent window }

type cpuWindows struct{ busy, user, system, idle, iowait, steal, load1, load5, load15 window }

type memoryWindows struct {
	total, used, free, available, buffers, cache, swapTotal, swapUsed, resident, heap window
}

type networkWindows struct {
	receivedBytes, sentBytes, receivedPackets, sentPackets, errors, drops window
}

// NewCollector returns a Collector that does nothing until Run.
func NewCollector(o CollectorOptions) *Collector {
	if o.Sample <= 0 {
		o.Sample = time.Second
	}
	if o.Fold <= 0 {
		o.Fold = time.Minute
	}
	if o.Drives == nil {
		o.Drives = func() []DriveSource { return nil }
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	c := &Collector{o: o, cores: make(map[int32]*window), networks: make(map[string]*networkWindows)}
	c.callRates.requests = o.Requests
	c.published.Store(&Resources{Node: o.Node, Up: true})
	return c
}

// Resources returns what was published last. It is never nil and must not be
// changed. Before the first sample it has no more than the node's name.
func (c *Collector) Resources() *Resources { return c.published.Load() }

// Run takes samples until ctx ends, and then returns nil. It is called once. A
// drive that hangs is waited for for a second at most: the goroutine that asks
// it is left behind, one a drive, and ends when the drive answers.
func (c *Collector) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.watchDrives(ctx) })
	defer wg.Wait()

	fold := time.Now().Add(c.o.Fold)
	for {
		s, err := c.o.Host.take(ctx, c.o.Sample/2)
		if err != nil {
			return nil // ctx ended
		}
		if now := time.Now(); !now.Before(fold) {
			c.fold()
			fold = fold.Add(c.o.Fold)
			if !now.Before(fold) {
				fold = now.Add(c.o.Fold) // the machine slept
			}
		}
		c.add(s)
		if !c.wait(ctx) {
			return nil
		}
	}
}

// wait returns at the next moment to sample, or false when ctx ends.
func (c *Collector) wait(ctx context.Context) bool {
	timer := time.NewTimer(c.o.Host.next(c.o.Sample))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// add takes a sample in, unless it was before: the host's samples are shared,
// and another node's may have been young enough.
func (c *Collector) add(s *sample) {
	c.mu.Lock()
	same := c.sample == s
	c.mu.Unlock()
	if same {
		return
	}
	now := time.Now()
	var mesh MeshCounters
	if c.o.Mesh != nil {
		mesh = c.o.Mesh()
	}
	peers, grid, bulk := c.meshRates.sample(now, mesh)
	apis := c.callRates.sample(now)

	c.mu.Lock()
	c.sample, c.peers, c.apis = s, peers, apis
	c.grid.add(grid)
	c.bulk.add(bulk)
	if s.cpu != nil {
		c.cpu.add(s.cpu)
	}
	if s.load != nil {
		c.cpu.load1.add(s.load.one)
		c.cpu.load5.add(s.load.five)
		c.cpu.load15.add(s.load.fifteen)
	}
	if s.memory != nil {
		c.memory.add(s.memory)
	}
	c.addCoresLocked(s)
	c.addNetworksLocked(s)
	published := c.publishLocked()

	problem := ""
	if s.problem != nil {
		problem = s.problem.Error()
	}
	changed := problem != c.problem
	c.problem = problem
	c.mu.Unlock()
	c.feed.Publish(published, 0)
	if changed {
		c.o.Failed(s.problem)
	}
}

// addCoresLocked keeps the window of a core that went offline, like that of an
// interface.
func (c *Collector) addCoresLocked(s *sample) {
	for _, core := range s.busy {
		w := c.cores[core.core]
		if w == nil {
			if len(c.cores) >= 2*maxCores {
				continue
			}
			w = new(window)
			c.cores[core.core] = w
		}
		if core.known {
			w.add(core.busy)
		}
	}
}

// addNetworksLocked keeps the windows of an interface that went away, for
// when it comes back, while there aren't too many.
func (c *Collector) addNetworksLocked(s *sample) {
	for name, rates := range s.networks {
		w := c.networks[name]
		if w == nil {
			w = new(networkWindows)
			c.networks[name] = w
		}
		if rates != nil {
			w.add(rates)
		}
	}
	if len(c.networks) <= 2*maxInterfaces {
		return
	}
	maps.DeleteFunc(c.networks, func(name string, _ *networkWindows) bool {
		_, here := s.networks[name]
		return !here
	})
}

func (c *Collector) fold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.cpu.all() {
		w.fold()
	}
	for _, w := range c.memory.all() {
		w.fold()
	}
	for _, n := range c.networks {
		for _, w := range n.all() {
			w.fold()
		}
	}
	for _, w := range c.cores {
		w.fold()
	}
	for _, w := range []*window{&c.grid.received, &c.grid.sent, &c.bulk.received, &c.bulk.sent} {
		w.fold()
	}
}

// publishLocked makes the Resources that everybody reads until the next.
func (c *Collector) publishLocked() *Resources {
	r := &Resources{
		Node:   c.o.Node,
		Up:     true,
		Drives: slices.Clone(c.drives),
		CPU:    c.cpu.resources(),
		Memory: c.memory.resources(),
	}
	if s := c.sample; s != nil {
		r.SampledAtUnixNano = s.at.UnixNano()
		r.CPU.Cores = s.cores
		for i := range r.Drives {
			r.Drives[i].addRates(s.disks)
		}
		r.Networks = make([]Network, 0, len(s.networks))
		for _, name := range slices.Sorted(maps.Keys(s.networks)) {
			r.Networks = append(r.Networks, c.networks[name].resources(name))
		}
		for _, core := range s.busy {
			if w := c.cores[core.core]; w != nil {
				r.Cores = append(r.Cores, Core{core.core, w.gauge()})
			}
		}
		if c.o.Mesh != nil {
			r.Mesh = []MeshTraffic{c.bulk.resources(ViaBulk), c.grid.resources(ViaGrid)}
		}
		r.Peers, r.APIs = c.peers, c.apis
	} else {
		for i := range r.Drives {
			r.Drives[i].Device = ""
		}
	}
	c.published.Store(r)
	return r
}

// add takes in what a sample said; nil: it said nothing.
func (w *trafficWindows) add(r *bytesRates) {
	if r != nil {
		w.received.add(r.received)
		w.sent.add(r.sent)
	}
}

func (w *trafficWindows) resources(via string) MeshTraffic {
	return MeshTraffic{Via: via, ReceivedBytes: w.received.gauge(), SentBytes: w.sent.gauge()}
}

// addRates fills in the rates of d's device, or forgets the device when there
// is nothing to tell of it.
func (d *Drive) addRates(disks map[string]*diskRates) {
	rates, counted := disks[d.Device]
	if !counted {
		d.Device = ""
		return
	}
	if rates == nil {
		return // from the next sample on
	}
	d.ReadsPerSecond = rates.reads
	d.WritesPerSecond = rates.writes
	d.ReadBytesPerSecond = rates.readBytes
	d.WrittenBytesPerSecond = rates.writtenBytes
	d.AwaitSeconds = rates.await
	d.UtilizationRatio = rates.utilization
}

func (w *cpuWindows) add(r *cpuRatios) {
	w.busy.add(r.busy)
	w.user.add(r.user)
	w.system.add(r.system)
	w.idle.add(r.idle)
	w.iowait.add(r.iowait)
	w.steal.add(r.steal)
}

func (w *cpuWindows) all() []*window {
	return []*window{&w.busy, &w.user, &w.system, &w.idle, &w.iowait, &w.steal, &w.load1, &w.load5, &w.load15}
}

func (w *cpuWindows) resources() CPU {
	return CPU{
		BusyRatio:   w.busy.gauge(),
		UserRatio:   w.user.gauge(),
		SystemRatio: w.system.gauge(),
		IdleRatio:   w.idle.gauge(),
		IowaitRatio: w.iowait.gauge(),
		StealRatio:  w.steal.gauge(),
		Load1:       w.load1.gauge(),
		Load5:       w.load5.gauge(),
		Load15:      w.load15.gauge(),
	}
}

func (w *memoryWindows) add(m *memoryBytes) {
	w.total.add(m.total)
	w.used.add(m.used)
	w.free.add(m.free)
	w.available.add(m.available)
	w.buffers.add(m.buffers)
	w.cache.add(m.cache)
	w.swapTotal.add(m.swapTotal)
	w.swapUsed.add(m.swapUsed)
	w.resident.add(m.resident)
	w.heap.add(m.heap)
}

func (w *memoryWindows) all() []*window {
	return []*window{&w.total, &w.used, &w.free, &w.available, &w.buffers, &w.cache,
		&w.swapTotal, &w.swapUsed, &w.resident, &w.heap}
}

func (w *memoryWindows) resources() Memory {
	return Memory{
		Total:           w.total.gauge(),
		Used:            w.used.gauge(),
		Free:            w.free.gauge(),
		Available:       w.available.gauge(),
		Buffers:         w.buffers.gauge(),
		Cache:           w.cache.gauge(),
		SwapTotal:       w.swapTotal.gauge(),
		SwapUsed:        w.swapUsed.gauge(),
		ProcessResident: w.resident.gauge(),
		ProcessHeap:     w.heap.gauge(),
	}
}

func (w *networkWindows) add(r *networkRates) {
	w.receivedBytes.add(r.receivedBytes)
	w.sentBytes.add(r.sentBytes)
	w.receivedPackets.add(r.receivedPackets)
	w.sentPackets.add(r.sentPackets)
	w.errors.add(r.errors)
	w.drops.add(r.drops)
}

func (w *networkWindows) all() []*window {
	return []*window{&w.receivedBytes, &w.sentBytes, &w.receivedPackets, &w.sentPackets, &w.errors, &w.drops}
}

func (w *networkWindows) resources(name string) Network {
	return Network{
		Interface:       name,
		ReceivedBytes:   w.receivedBytes.gauge(),
		SentBytes:       w.sentBytes.gauge(),
		ReceivedPackets: w.receivedPackets.gauge(),
		SentPackets:     w.sentPackets.gauge(),
		Errors:          w.errors.gauge(),
		Drops:           w.drops.gauge(),
	}
}
