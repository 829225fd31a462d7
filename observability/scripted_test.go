package observability

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLastHour steps memory up for a minute: the last hour's maximum forgets it
// an hour later, the one since the start never does.
func TestLastHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			used := 100.0
			if n >= 120 && n < 180 { // the third minute
				used = 160
			}
			r.memory = &memoryBytes{used: used}
		}})})
		time.Sleep(time.Millisecond)
		for _, step := range []struct {
			minutes int // since the start
			want    Gauge
		}{
			{1, Gauge{100, 100, 100, 100, 100}},
			{3, Gauge{100, 120, 160, 120, 160}},
			{60, Gauge{100, 101, 160, 101, 160}},
			{62, Gauge{100, 100 + 60./62, 160, 101, 160}},
			{63, Gauge{100, 100 + 60./63, 160, 100, 100}},
			{120, Gauge{100, 100.5, 160, 100, 100}},
		} {
			time.Sleep(time.Duration(step.minutes)*time.Minute + time.Millisecond - time.Since(c.o.Host.epoch))
			synctest.Wait()
			got := c.Resources().Memory.Used
			near := func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }
			if got.Current != step.want.Current || got.Maximum != step.want.Maximum || got.MaximumHour != step.want.MaximumHour ||
				!near(got.Average, step.want.Average) || !near(got.AverageHour, step.want.AverageHour) {
				t.Errorf("after %d min: %+v, want %+v", step.minutes, got, step.want)
			}
		}
	})
}

// TestInterfaceBackAfterLong has an average and a maximum of the last hour as
// soon as it has samples again, which are no more than those since the start.
func TestInterfaceBackAfterLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const away = 2 * 60 * 60
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			r.networks = map[string]networkCounters{"lo": {receivedBytes: 1}}
			switch {
			case n < 60: // 59 rates of 50
				r.networks["eth0"] = networkCounters{receivedBytes: uint64(1<<40 + 50*n)}
			case n >= away: // 60 a second
				r.networks["eth0"] = networkCounters{receivedBytes: uint64(1 + 60*(n-away))}
			}
		}})})
		time.Sleep(time.Millisecond)
		advance(away)
		received := func() Gauge {
			t.Helper()
			n := c.Resources().Networks
			if len(n) != 2 || n[0].Interface != "eth0" {
				t.Fatalf("networks %+v, want eth0 and lo", n)
			}
			return n[0].ReceivedBytes
		}
		if got, want := received(), (Gauge{50, 50, 50, 0, 0}); got != want {
			t.Errorf("at its return: %+v, want %+v", got, want)
		}
		advance(1)
		if got, want := received(), (Gauge{60, 50 + 10./60, 60, 60, 60}); got != want {
			t.Errorf("a second later: %+v, want %+v", got, want)
		}
		advance(60) // a minute was folded, with 59 rates
		if got, want := received(), (Gauge{60, 55, 60, 60, 60}); got != want {
			t.Errorf("a minute later: %+v, want %+v", got, want)
		}
	})
}

// TestInterfaceThatComesBack keeps what was known of it: average and maximum go
// on, the time without it has no samples, and its return gives no spike.
func TestInterfaceThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			switch {
			case n < 120: // 50 a second
				r.networks = map[string]networkCounters{"eth0": {receivedBytes: uint64(1<<40 + 50*n)}}
			case n < 180:
			default: // back with new counters, 150 a second
				r.networks = map[string]networkCounters{"eth0": {receivedBytes: uint64(1 + 150*(n-180))}}
			}
		}})})
		time.Sleep(time.Millisecond)
		advance(120)
		if n := c.Resources().Networks; len(n) != 0 {
			t.Fatalf("networks %+v while it is away", n)
		}
		advance(60)
		if n := c.Resources().Networks; len(n) != 1 || n[0].ReceivedBytes.Maximum != 50 || n[0].ReceivedBytes.Current != 50 {
			t.Fatalf("networks %+v at its return, want the rate it had", n)
		}
		advance(60)
		// 119 rates of 50, and 59 of 150.
		n := c.Resources().Networks
		if want := (119*50 + 59*150.) / (119 + 59); len(n) != 1 || n[0].ReceivedBytes.Maximum != 150 || n[0].ReceivedBytes.Average-want > 1e-9 || want-n[0].ReceivedBytes.Average > 1e-9 {
			t.Errorf("networks %+v, want an average of %g", n, want)
		}
	})
}

// TestCores have windows of their own, under the numbers that the system gives
// them; one that goes offline is gone, and comes back without a spike.
func TestCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			s := float64(n)
			r.cpu = map[int32]cpuTimes{0: {user: 0.5 * s, idle: 0.5 * s}, 5: {user: s}}
			if n >= 10 && n < 20 {
				delete(r.cpu, 5)
			}
			if n >= 20 {
				r.cpu[5] = cpuTimes{idle: s} // it has begun at 0 again
			}
		}})})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := c.Resources().Cores; len(got) != 2 || got[1] != (Core{Core: 5}) {
			t.Fatalf("at once: cores %+v, want two without a ratio", got)
		}
		advance(9)
		half, one := Gauge{0.5, 0.5, 0.5, 0.5, 0.5}, Gauge{1, 1, 1, 1, 1}
		if got := c.Resources().Cores; !slices.Equal(got, []Core{{0, half}, {5, one}}) {
			t.Errorf("cores %+v", got)
		}
		advance(1)
		if got := c.Resources().Cores; !slices.Equal(got, []Core{{0, half}}) {
			t.Errorf("with one offline: cores %+v", got)
		}
		advance(11)
		want := Gauge{0, 0.9, 1, 0.9, 1} // nine samples of 1, one of 0
		if got := c.Resources().Cores; len(got) != 2 || got[1].BusyRatio != want {
			t.Errorf("back: cores %+v, want %+v", got, want)
		}
	})
}

// TestCoreThatComesOnline brings all it did since boot: that isn't the load of
// a second, and neither is it when one goes.
func TestCoreThatComesOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			s := float64(n)
			r.cpu = map[int32]cpuTimes{0: {user: 0.25 * s, idle: 0.75 * s}}
			if n >= 5 && n < 10 {
				r.cpu[1] = cpuTimes{user: 1e6 + 0.25*s, system: 1e5, idle: 1e4 + 0.75*s}
			}
		}})})
		time.Sleep(time.Millisecond)
		advance(15)
		quarter := Gauge{0.25, 0.25, 0.25, 0.25, 0.25}
		if got := c.Resources().CPU; got.BusyRatio != quarter || got.UserRatio != quarter || got.SystemRatio != (Gauge{}) {
			t.Errorf("cpu %+v, want a quarter, of the user", got)
		}
	})
}

func TestCoresAreBounded(t *testing.T) {
	r := &reading{cpu: make(map[int32]cpuTimes)}
	for i := range int32(5000) {
		r.cpu[i] = cpuTimes{idle: 1}
	}
	if s := r.since(nil); len(s.busy) != maxCores || s.busy[maxCores-1].core != maxCores-1 {
		t.Errorf("%d cores, want the first %d", len(s.busy), maxCores)
	}
}

// TestMeshTraffic: rates of grid, bulk and peers, with a peer whose counters
// begin again, one that leaves, and one that joins.
func TestMeshTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n uint64
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{}), Mesh: func() MeshCounters {
			m := MeshCounters{BulkReceived: 1<<40 + 1000*n, BulkSent: 500 * n}
			b := PeerCounters{Node: "b", Up: true, RTT: 2 * time.Millisecond, ReceivedBytes: 1<<50 + 10*n, SentBytes: 20 * n,
				ReceivedMessages: 3 * n, SentMessages: 4 * n, QueuedBytes: 5, CallsOut: 6, CallsIn: 7, Sessions: 1}
			if n >= 5 {
				b.ReceivedBytes, b.Sessions = 10*n, 2
			}
			m.Peers = []PeerCounters{b}
			if n < 8 {
				m.Peers = append(m.Peers, PeerCounters{Node: "a", ReceivedBytes: 1<<45 + 100*n})
			} else {
				m.Peers = append(m.Peers, PeerCounters{Node: "c", ReceivedBytes: 1<<45 + 100*n})
			}
			n++
			return m
		}})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		r := c.Resources()
		if len(r.Peers) != 2 || r.Peers[1].ReceivedBytesPerSecond != 0 || r.Peers[1].RTTSeconds != 0.002 || len(r.Mesh) != 2 || r.Mesh[0].ReceivedBytes != (Gauge{}) {
			t.Fatalf("at once: peers %+v, mesh %+v", r.Peers, r.Mesh)
		}
		for second := 1; second <= 20; second++ {
			advance(1)
			r = c.Resources()
			if got := r.Mesh[0]; got != (MeshTraffic{ViaBulk, Gauge{1000, 1000, 1000, 1000, 1000}, Gauge{500, 500, 500, 500, 500}}) {
				t.Fatalf("after %d s: bulk %+v", second, got)
			}
			want := 110.0
			switch second {
			case 5: // b's began again
				want = 100
			case 8: // c has only come
				want = 10
			}
			if got := r.Mesh[1]; got.Via != ViaGrid || got.ReceivedBytes.Current != want || got.ReceivedBytes.Maximum != 110 {
				t.Fatalf("after %d s: grid %+v, want %g", second, got, want)
			}
		}
		if want := (Peer{"b", true, 0.002, 10, 20, 3, 4, 5, 6, 7, 2}); r.Peers[0] != want || r.Peers[1].Node != "c" {
			t.Errorf("peers %+v, want %+v first", r.Peers, want)
		}
	})
}

// TestCallBuckets: every time is in the bucket that says so, and a quantile is
// at most a quarter off.
func TestCallBuckets(t *testing.T) {
	for d := time.Microsecond; d < 50*time.Second; d += 1 + d/50 {
		i := callsBucket(d)
		if s := d.Seconds(); s < callsFrom(i) || i < callsBuckets-1 && s >= callsFrom(i+1) {
			t.Fatalf("%v is in bucket %d, which begins at %g", d, i, callsFrom(i))
		}
		var c callCounts
		for range 10 {
			c.count(d, classSuccess)
		}
		var s callSnapshot
		c.snapshot(&s)
		if q := s.quantile(0.5, 10); d >= callsLeast && (q < 0.75*d.Seconds() || q > 1.25*d.Seconds()) {
			t.Fatalf("median %g of %v", q, d)
		}
	}
	if i := callsBucket(time.Hour); i != callsBuckets-1 {
		t.Errorf("an hour is in bucket %d", i)
	}
}

// TestAPIRates follows requests to the samples: those a second are of the last,
// quantiles of the last ten, and after ten without any the API is gone.
func TestAPIRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel, err := New(t.Context(), Options{Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		defer tel.Shutdown(t.Context())
		requests := tel.Requests()
		do := func(n int, took time.Duration, c class) {
			for range n {
				q := requests.begin(&requests.http)
				q.api.Store(requests.api(&requests.http, "GetObject"))
				q.firstByte(t.Context(), took, c)
			}
		}
		do(1000, time.Second, classSuccess) // before the collector's first sample: no rate is made of them
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{}), Requests: requests})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := c.Resources().APIs; len(got) != 0 {
			t.Fatalf("at once: %+v", got)
		}
		do(90, time.Millisecond, classSuccess)
		do(6, 100*time.Millisecond, classClientError)
		do(4, 100*time.Millisecond, classServerError)
		advance(1)
		got := c.Resources().APIs
		if len(got) != 1 || got[0].Name != "GetObject" || got[0].Proto != "http" || got[0].RequestsPerSecond != 100 ||
			got[0].ClientErrorsPerSecond != 6 || got[0].ServerErrorsPerSecond != 4 {
			t.Fatalf("%+v", got)
		}
		if p50, p99 := got[0].TTFBP50Seconds, got[0].TTFBP99Seconds; p50 < 0.00075 || p50 > 0.00125 || p99 < 0.075 || p99 > 0.125 {
			t.Errorf("p50 %g, p99 %g", p50, p99)
		}
		advance(1)
		if got = c.Resources().APIs; len(got) != 1 || got[0].RequestsPerSecond != 0 || got[0].TTFBP99Seconds < 0.075 {
			t.Errorf("a second later: %+v", got)
		}
		advance(8)
		if got = c.Resources().APIs; len(got) != 1 {
			t.Errorf("nine seconds later: %+v", got)
		}
		advance(1)
		if got = c.Resources().APIs; len(got) != 0 {
			t.Errorf("ten seconds later: %+v", got)
		}
		do(10, time.Millisecond, classSuccess)
		advance(1)
		if got = c.Resources().APIs; len(got) != 1 || got[0].RequestsPerSecond != 10 || got[0].TTFBP99Seconds > 0.01 {
			t.Errorf("again: %+v", got)
		}
	})
}

// TestWatch: whoever keeps up sees every sample in its order, whoever doesn't
// the newest and how many it missed; neither holds up the sampler.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{script: func(n int, r *reading) {
			r.memory = &memoryBytes{used: float64(n)}
		}})})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		quick, slow := NewWatcher(), NewWatcher()
		stopQuick, stopSlow := c.Watch(quick), c.Watch(slow)
		for want := range 100 {
			got, err := quick.Next(t.Context())
			if err != nil || got.Missed != 0 || got.Resources.Memory.Used.Current != float64(want) {
				t.Fatalf("%+v, %v, want sample %d", got, err, want)
			}
		}
		synctest.Wait() // the other got the last one first
		got, err := slow.Next(t.Context())
		if err != nil || got.Missed != 99 || got.Resources.Memory.Used.Current != 99 {
			t.Fatalf("the slow one got %g and missed %d, %v", got.Resources.Memory.Used.Current, got.Missed, err)
		}
		stopQuick()
		stopSlow()
		advance(5)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if got, err := quick.Next(ctx); err == nil {
			t.Errorf("%+v after the stop", got)
		}
	})
}

// TestWatchersTakeTurns: a node that puts often doesn't hide the others.
func TestWatchersTakeTurns(t *testing.T) {
	w := NewWatcher()
	for i := range 10 {
		w.Put(&Resources{Node: "busy", SampledAtUnixNano: int64(i)}, 0)
		if i == 3 {
			w.Put(&Resources{Node: "calm"}, 2)
		}
	}
	for _, want := range []Watched{{&Resources{Node: "busy", SampledAtUnixNano: 9}, 9}, {&Resources{Node: "calm"}, 2}} {
		got, err := w.Next(t.Context())
		if err != nil || got.Missed != want.Missed || got.Resources.Node != want.Resources.Node || got.Resources.SampledAtUnixNano != want.Resources.SampledAtUnixNano {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}

// TestFeedManyWatchers publishes while watchers come and go.
func TestFeedManyWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed Feed
		var seen atomic.Int64
		for i := range 20 {
			go func() {
				w := NewWatcher()
				stop := feed.Watch(w)
				for range i + 1 {
					if _, err := w.Next(t.Context()); err != nil {
						t.Error(err)
					}
					seen.Add(1)
				}
				if left := stop(); left > 19 {
					t.Errorf("%d left", left)
				}
			}()
		}
		synctest.Wait()
		for i := range 20 {
			feed.Publish(&Resources{Node: fmt.Sprint("n", i%2)}, 0)
			synctest.Wait()
		}
		if n := seen.Load(); n != 210 {
			t.Errorf("%d samples seen, want 1+2+…+20", n)
		}
		if len(feed.watchers) != 0 {
			t.Errorf("%d watchers are left", len(feed.watchers))
		}
	})
}
