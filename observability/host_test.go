package observability

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a source whose counters are what the test's script says at the
// time of the reading.
type scripted struct {
	script  func(n int, r *reading) // n counts readings from 0
	devices map[string]string       // path to device

	mu      sync.Mutex
	n       int
	wanted  []string // devices of the last reading
	reading bool     // overlap check
}

func (s *scripted) read(_ context.Context, devices []string) *reading {
	s.mu.Lock()
	if s.reading {
		panic("two readings at once")
	}
	s.reading = true
	n := s.n
	s.n++
	s.wanted = slices.Clone(devices)
	s.mu.Unlock()
	r := &reading{at: time.Now(), cores: 2}
	if s.script != nil {
		s.script(n, r)
	}
	s.mu.Lock()
	s.reading = false
	s.mu.Unlock()
	return r
}

func (s *scripted) device(_ context.Context, path string) string { return s.devices[path] }

func (s *scripted) readings() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func TestRates(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	boot := networkCounters{receivedBytes: 1 << 50, sentBytes: 1 << 40, receivedPackets: 1 << 30, sentPackets: 1 << 20, errors: 1 << 10, drops: 1 << 9}
	plus := func(c networkCounters, n uint64) networkCounters {
		return networkCounters{c.receivedBytes + n, c.sentBytes + 2*n, c.receivedPackets + 3*n, c.sentPackets + 4*n, c.errors + 5*n, c.drops + 6*n}
	}
	network := func(second int, c networkCounters) *reading {
		return &reading{at: at(second), networks: map[string]networkCounters{"eth0": c}}
	}
	for _, test := range []struct {
		name       string
		last, this *reading
		want       *networkRates
	}{
		{"first reading", nil, network(0, boot), nil},
		{"first of this interface", &reading{at: at(0)}, network(1, boot), nil},
		{"one second", network(0, boot), network(1, plus(boot, 10)), &networkRates{10, 20, 30, 40, 50, 60}},
		{"ten seconds", network(0, boot), network(10, plus(boot, 10)), &networkRates{1, 2, 3, 4, 5, 6}},
		{"standing still", network(0, boot), network(1, boot), &networkRates{}},
		{"reset", network(0, boot), network(1, networkCounters{receivedBytes: 5}), nil},
		{"reset of one counter", network(0, boot), network(1, func() networkCounters { c := plus(boot, 10); c.drops = 0; return c }()), nil},
		{"after a reset", network(0, networkCounters{receivedBytes: 5}), network(1, networkCounters{receivedBytes: 7}), &networkRates{receivedBytes: 2}},
		{"no time passed", network(0, boot), network(0, plus(boot, 10)), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := test.this.since(test.last).networks["eth0"]
			if !ok {
				t.Fatal("the interface is missing")
			}
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Fatalf("rates %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestDiskRates(t *testing.T) {
	before := diskCounters{reads: 100, writes: 200, readBytes: 1000, writtenBytes: 2000, ioMillis: 5000, busyMillis: 700}
	after := diskCounters{reads: 110, writes: 230, readBytes: 5000, writtenBytes: 8000, ioMillis: 5400, busyMillis: 1700}
	want := diskRates{reads: 5, writes: 15, readBytes: 2000, writtenBytes: 3000, await: 0.010, utilization: 0.5}
	if got := after.since(before, 2); got == nil || *got != want {
		t.Errorf("rates %+v, want %+v", got, want)
	}
	if got := before.since(after, 2); got != nil {
		t.Errorf("rates %+v of counters that went back", got)
	}
	idle := after.since(after, 1)
	if idle == nil || *idle != (diskRates{}) {
		t.Errorf("rates %+v of an idle disk", idle)
	}
	over := diskCounters{busyMillis: 1003} // the kernel counts in ticks
	if got := over.since(diskCounters{}, 1); got == nil || got.utilization != 1 {
		t.Errorf("utilization %+v, want 1", got)
	}
}

func TestCPURatios(t *testing.T) {
	before := cpuTimes{user: 1000, system: 500, idle: 9000, iowait: 10, steal: 1}
	for _, test := range []struct {
		name string
		now  cpuTimes
		want *cpuRatios
	}{
		{"a second of four cores", cpuTimes{user: 1002, system: 501, idle: 9000.5, iowait: 10.25, steal: 1.25},
			&cpuRatios{busy: 0.8125, user: 0.5, system: 0.25, idle: 0.125, iowait: 0.0625, steal: 0.0625}},
		{"iowait went back", cpuTimes{user: 1001, system: 500, idle: 9001, iowait: 9, steal: 1},
			&cpuRatios{busy: 0.5, user: 0.5, idle: 0.5}},
		{"reset", cpuTimes{user: 1, idle: 10}, nil},
		{"no time passed", before, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.now.minus(before).ratios()
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Fatalf("ratios %+v, want %+v", got, test.want)
			}
			if got != nil && math.Abs(got.user+got.system+got.idle+got.iowait+got.steal-1) > 1e-12 {
				t.Fatalf("ratios %+v do not add up to 1", got)
			}
		})
	}
}

func TestInterfacesAreBounded(t *testing.T) {
	r := &reading{networks: make(map[string]networkCounters)}
	for i := range 1000 {
		r.networks[fmt.Sprintf("veth%04d", i)] = networkCounters{receivedBytes: 1}
	}
	r.networks["eth0"] = networkCounters{receivedBytes: 1}
	r.networks["dummy0"] = networkCounters{}
	s := r.since(nil)
	if len(s.networks) != maxInterfaces {
		t.Errorf("%d interfaces, want %d", len(s.networks), maxInterfaces)
	}
	if _, ok := s.networks["eth0"]; !ok {
		t.Error("eth0, the first by name, is missing")
	}
	if _, ok := s.networks["dummy0"]; ok {
		t.Error("dummy0 never carried a packet and is there")
	}
}

// TestBusiestInterfacesAreReported: the physical one is, whatever its name, and
// those that carried the most, of equals the first by name.
func TestBusiestInterfacesAreReported(t *testing.T) {
	r := &reading{networks: map[string]networkCounters{
		"wan": {receivedBytes: 1 << 40, sentBytes: 1},
		"zwo": {sentBytes: 1 << 41},
	}}
	for i := range 100 {
		r.networks[fmt.Sprintf("cali%03d", i)] = networkCounters{receivedBytes: 500, sentBytes: 500}
	}
	r.networks["cali050"] = networkCounters{receivedPackets: 1 << 50}
	want := []string{"wan", "zwo"}
	for i := range 63 {
		if i != 50 {
			want = append(want, fmt.Sprintf("cali%03d", i))
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(r.since(nil).networks)); !slices.Equal(got, want) {
		t.Errorf("interfaces %q, want %q", got, want)
	}
}

// TestHostIsSampledOnce lets five nodes' collectors run for ten seconds: the
// host is read once a second, and all have the same sample.
func TestHostIsSampledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &scripted{}
		h := newHost(source)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var collectors []*Collector
		for i := range 5 {
			c := NewCollector(CollectorOptions{Node: fmt.Sprint("node", i), Host: h})
			collectors = append(collectors, c)
			wg.Go(func() { _ = c.Run(ctx) })
			time.Sleep(130 * time.Millisecond) // they don't start together
		}
		time.Sleep(10*time.Second - 5*130*time.Millisecond + time.Millisecond)
		synctest.Wait()
		if n := source.readings(); n != 11 { // at 0, 0.52 (which does for 1), 2, 3, … 10 s
			t.Errorf("%d readings in 10 s", n)
		}
		first := collectors[0].Resources().SampledAtUnixNano
		for _, c := range collectors {
			if at := c.Resources().SampledAtUnixNano; at != first || at == 0 {
				t.Errorf("sampled at %d and %d", first, at)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestHostYieldsToContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHost(&scripted{script: func(int, *reading) { <-release }})
		done := make(chan error)
		go func() { _, err := h.take(t.Context(), time.Second); done <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.take(ctx, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("take behind a reading that hangs: %v", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
