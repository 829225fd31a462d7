package observability

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// runCollector runs a collector in a synctest bubble until the test's end.
func runCollector(t *testing.T, o CollectorOptions) *Collector {
	t.Helper()
	c := NewCollector(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// advance moves virtual time to just after the readings of that many seconds.
func advance(seconds int) {
	time.Sleep(time.Duration(seconds) * time.Second)
	synctest.Wait()
}

func TestFolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Reading n has n+1 bytes of memory in use and n² bytes received
		// since boot: a rate of 2n-1.
		const boot = 1 << 40
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			r.memory = &memoryBytes{used: float64(n + 1)}
			r.networks = map[string]networkCounters{"eth0": {receivedBytes: boot + uint64(n*n)}}
		}})})
		time.Sleep(time.Millisecond)
		synctest.Wait()

		// Before the first minute is over: from the samples so far.
		r := c.Resources()
		if want := (Gauge{1, 1, 1, 1, 1}); r.Memory.Used != want {
			t.Errorf("at once: used %+v, want %+v", r.Memory.Used, want)
		}
		if len(r.Networks) != 1 || r.Networks[0].ReceivedBytes != (Gauge{}) {
			t.Errorf("at once: networks %+v, want eth0 without a rate", r.Networks)
		}
		advance(1)
		r = c.Resources()
		if want := (Gauge{2, 1.5, 2, 1.5, 2}); r.Memory.Used != want {
			t.Errorf("after 1 s: used %+v, want %+v", r.Memory.Used, want)
		}
		if want := (Gauge{1, 1, 1, 1, 1}); r.Networks[0].ReceivedBytes != want {
			t.Errorf("after 1 s: received %+v, want %+v", r.Networks[0].ReceivedBytes, want)
		}
		advance(58)
		r = c.Resources()
		if want := (Gauge{60, 30.5, 60, 30.5, 60}); r.Memory.Used != want {
			t.Errorf("after 59 s: used %+v, want %+v", r.Memory.Used, want)
		}

		// The minute is over: readings 0 to 59 are folded in.
		advance(1)
		r = c.Resources()
		if want := (Gauge{61, 30.5, 60, 30.5, 60}); r.Memory.Used != want {
			t.Errorf("after 60 s: used %+v, want %+v", r.Memory.Used, want)
		}
		if want := (Gauge{119, 59, 117, 59, 117}); r.Networks[0].ReceivedBytes != want {
			t.Errorf("after 60 s: received %+v, want %+v", r.Networks[0].ReceivedBytes, want)
		}
		// Only current moves until the next.
		advance(59)
		r = c.Resources()
		if want := (Gauge{120, 30.5, 60, 30.5, 60}); r.Memory.Used != want {
			t.Errorf("after 119 s: used %+v, want %+v", r.Memory.Used, want)
		}
		advance(1)
		r = c.Resources()
		if want := (Gauge{121, 60.5, 120, 60.5, 120}); r.Memory.Used != want {
			t.Errorf("after 120 s: used %+v, want %+v", r.Memory.Used, want)
		}
	})
}

// TestResetGivesNoSpike resets the counters in the middle, lets the interface
// go away and come back with small ones: the maximum stays that of the rates.
func TestResetGivesNoSpike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			received := uint64(1<<50 + 100*n)
			switch {
			case n >= 10 && n < 20:
				received = uint64(7 + 100*n) // reset
			case n >= 20 && n < 25:
				return // gone
			case n >= 25:
				received = uint64(1<<45 + 100*n) // another one of that name
			}
			r.networks = map[string]networkCounters{"eth0": {receivedBytes: received}}
		}})})
		time.Sleep(time.Millisecond)
		for second := range 40 {
			synctest.Wait()
			networks := c.Resources().Networks
			if second >= 20 && second < 25 {
				if len(networks) != 0 {
					t.Fatalf("after %d s: networks %+v, want none", second, networks)
				}
			} else if second > 0 {
				if want := (Gauge{100, 100, 100, 100, 100}); len(networks) != 1 || networks[0].ReceivedBytes != want {
					t.Fatalf("after %d s: networks %+v, want %+v received", second, networks, want)
				}
			}
			time.Sleep(time.Second)
		}
	})
}

// TestDrives: rates are those of the drive's device, a drive without one has
// none, and one that disappears is gone with the next sample.
func TestDrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &scripted{
			devices: map[string]string{"/mnt/a": "sda1", "/mnt/c": "sdc1"},
			script: func(n int, r *reading) {
				r.disks = map[string]diskCounters{"sda1": {reads: uint64(1e9 + 5*n), readBytes: uint64(1e12 + 4096*n), ioMillis: uint64(10 * n), busyMillis: uint64(250 * n)}}
			},
		}
		drives := []Drive{
			{ID: "a", Path: "/mnt/a", State: "online", TotalBytes: 100, UsedBytes: 40, FreeBytes: 60},
			{ID: "b", Path: "/mnt/b", State: "offline", Errors: 3},
			{ID: "c", Path: "/mnt/c", State: "online"}, // sdc1 isn't counted
		}
		var mu sync.Mutex // guards present
		present := drives
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(source), Drives: func() []DriveSource {
			mu.Lock()
			defer mu.Unlock()
			return told(present...)
		}})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		got := c.Resources().Drives
		if len(got) != 3 || got[0].UsedBytes != 40 || got[1].Errors != 3 {
			t.Fatalf("at once: drives %+v", got)
		}
		if got[0].ReadsPerSecond != 0 {
			t.Errorf("at once: %g reads a second", got[0].ReadsPerSecond)
		}
		advance(3)
		got = c.Resources().Drives
		want := drives[0]
		want.Device, want.ReadsPerSecond, want.ReadBytesPerSecond, want.AwaitSeconds, want.UtilizationRatio = "sda1", 5, 4096, 0.002, 0.25
		if got[0] != want {
			t.Errorf("drive a: %+v, want %+v", got[0], want)
		}
		if got[1] != drives[1] || got[2] != drives[2] {
			t.Errorf("drives b and c: %+v, want no device and no rates", got[1:])
		}
		mu.Lock()
		present = drives[:1]
		mu.Unlock()
		advance(1)
		if got = c.Resources().Drives; len(got) != 1 {
			t.Errorf("drives %+v, want one", got)
		}
	})
}

// TestPartThatFails is told once, and once that it is over; the rest goes on.
func TestPartThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		c := runCollector(t, CollectorOptions{
			Node: "n1",
			Host: newHost(&scripted{script: func(n int, r *reading) {
				r.memory = &memoryBytes{used: float64(n)}
				if n >= 2 && n < 5 {
					r.problems = append(r.problems, errors.New("load: not today"))
					return
				}
				r.load = &loads{one: 3}
			}}),
			Failed: func(err error) {
				if err == nil {
					told = append(told, "well")
				} else {
					told = append(told, err.Error())
				}
			},
		})
		time.Sleep(time.Millisecond)
		advance(3)
		if r := c.Resources(); r.Memory.Used.Current != 3 || r.CPU.Load1 != (Gauge{3, 3, 3, 3, 3}) {
			t.Errorf("resources %+v", r)
		}
		advance(5)
		if len(told) != 2 || told[0] != "load: not today" || told[1] != "well" {
			t.Errorf("told %q", told)
		}
	})
}

// TestEveryValueArrives follows each value from the reading to its field.
func TestEveryValueArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			s := float64(n)
			r.cpu = map[int32]cpuTimes{
				0: {user: 5 * s, idle: 3 * s},
				1: {user: 1 * s, system: 4 * s, iowait: 2 * s, steal: 1 * s},
			}
			r.load = &loads{1, 2, 3}
			r.memory = &memoryBytes{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
			u := uint64(1 + n)
			r.networks = map[string]networkCounters{"eth0": {1 * u, 2 * u, 3 * u, 4 * u, 5 * u, 6 * u}, "lo": {u, u, u, u, u, u}}
		}})})
		time.Sleep(time.Millisecond)
		advance(2)
		g := func(v float64) Gauge { return Gauge{v, v, v, v, v} }
		r := c.Resources()
		if want := (CPU{2, g(11. / 16), g(6. / 16), g(4. / 16), g(3. / 16), g(2. / 16), g(1. / 16), g(1), g(2), g(3)}); r.CPU != want {
			t.Errorf("cpu %+v, want %+v", r.CPU, want)
		}
		if want := (Memory{g(1), g(2), g(3), g(4), g(5), g(6), g(7), g(8), g(9), g(10)}); r.Memory != want {
			t.Errorf("memory %+v, want %+v", r.Memory, want)
		}
		want := []Network{{"eth0", g(1), g(2), g(3), g(4), g(5), g(6)}, {"lo", g(1), g(1), g(1), g(1), g(1), g(1)}}
		if !slices.Equal(r.Networks, want) {
			t.Errorf("networks %+v, want %+v", r.Networks, want)
		}
		if r.Node != "n1" || !r.Up || r.SampledAtUnixNano != time.Now().Add(-time.Millisecond).UnixNano() {
			t.Errorf("node %q, up %v, sampled at %d", r.Node, r.Up, r.SampledAtUnixNano)
		}
	})
}

// TestInterfacesThatComeAndGo, as on a container host, leave nothing behind.
func TestInterfacesThatComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			r.networks = map[string]networkCounters{"eth0": {receivedBytes: uint64(1 + 10*n)}}
			for i := range 20 {
				r.networks[fmt.Sprintf("veth%d-%d", n, i)] = networkCounters{receivedBytes: 1}
			}
		}})})
		time.Sleep(time.Millisecond)
		advance(200)
		c.mu.Lock()
		kept := len(c.networks)
		c.mu.Unlock()
		networks := c.Resources().Networks
		if kept > 2*maxInterfaces || len(networks) != 21 {
			t.Errorf("%d kept, %d published", kept, len(networks))
		}
		if want := (Gauge{10, 10, 10, 10, 10}); networks[0].Interface != "eth0" || networks[0].ReceivedBytes != want {
			t.Errorf("eth0 %+v, want %+v", networks[0], want)
		}
	})
}

// TestPublishedIsNotTouched keeps one publication through later samples.
func TestPublishedIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{
			Node:   "n1",
			Host:   newHost(&scripted{script: func(n int, r *reading) { r.networks = map[string]networkCounters{"lo": {sentBytes: uint64(1 + n*n)}} }}),
			Drives: func() []DriveSource { return told(Drive{ID: "a"}) },
		})
		advance(5)
		kept := c.Resources()
		networks, drives, at := kept.Networks[0], kept.Drives[0], kept.SampledAtUnixNano
		advance(100)
		if kept.Networks[0] != networks || kept.Drives[0] != drives || kept.SampledAtUnixNano != at {
			t.Error("a publication changed")
		}
	})
}
