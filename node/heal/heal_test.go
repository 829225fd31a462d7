package heal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// virtual runs a test with a world on virtual time: nodes n1 to n4 with a drive
// each in pool default.
func virtual(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 4 {
			w.node(fmt.Sprintf("n%d", i+1), "default", "", 1)
		}
		f(t, w)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.violations) > 0 {
			t.Errorf("%s", strings.Join(w.violations, "\n"))
		}
	})
}

// fill puts n objects of three copies each over the first three drives.
func (w *world) fill(n int, size int64, drives ...string) (ids [][16]byte) {
	for range n {
		ids = append(ids, w.put(size, drives...))
	}
	return ids
}

// TestPending: copies that a put was acknowledged without are made at once.
func TestPending(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		h, _ := w.healer("n1", nil)
		w.until(time.Minute, "idle", func() bool { return w.status2(h).Pass > 0 && !w.status2(h).Passing })
		for range 300 {
			w.short(w.put(1<<20, "n1/a", "n2/a"))
		}
		w.well(time.Minute)
		if w.n().copies != 300 {
			t.Errorf("%d copies were made, want 300", w.n().copies)
		}
		w.until(time.Minute, "counted", func() bool { s := w.status(h); return s.Pending == 0 && s.Phase == PhaseIdle })
	})
}

// TestLost: a drive that is away for less than After moves nothing, and one that
// is for longer, or that is taken out of the mesh, is healed.
func TestLost(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		h, _ := w.healer("n1", nil)
		w.fill(1200, 1<<16, "n1/a", "n2/a", "n3/a")
		w.away("n3/a", true)
		time.Sleep(14 * time.Minute)
		if w.n().copies != 0 {
			t.Fatalf("%d copies were made of a drive that has only been away for 14 minutes", w.n().copies)
		}
		w.away("n3/a", false)
		time.Sleep(time.Hour)
		if w.n().copies != 0 {
			t.Fatalf("%d copies were made though the drive was back in time", w.n().copies)
		}
		w.away("n3/a", true)
		w.until(17*time.Minute, "copied", func() bool { return w.n().copies == 1200 })
		w.well(time.Minute)
		if s := w.status(h); s.Unrecoverable != nil || s.Stuck != nil {
			t.Errorf("%+v", s)
		}
		w.away("n3/a", false) // it comes back, with what is garbage by now
		w.reclaim()
		w.remove("n2/a")
		w.well(10 * time.Minute)
		if w.n().copies != 2400 {
			t.Errorf("%d copies, want 2400", w.n().copies)
		}
	})
}

// status2 is status that may be asked before there is one.
func (w *world) status2(h *Healer) *Status {
	s, err := h.Status(context.Background())
	if err != nil {
		return &Status{}
	}
	return s
}

// TestEndangeredFirst: what has one copy left is copied before everything else.
func TestEndangeredFirst(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		var last [][16]byte
		for i := range 3000 {
			if i%10 == 9 {
				last = append(last, w.put(1<<20, "n1/a", "n2/a", "n3/a"))
			} else {
				w.put(1<<20, "n1/a", "n3/a", "n4/a")
			}
		}
		w.node("n5", "default", "", 1)
		w.node("n6", "default", "", 1)
		w.remove("n2/a")
		w.remove("n3/a")
		h, _ := w.healer("n1", nil)
		w.well(time.Hour)
		// Those with one copy need two more each. The others may come between
		// only once all of them are in hand: within the batches under way.
		first := map[[16]byte]bool{}
		w.mu.Lock()
		for _, id := range w.copied[:600+8*64] {
			first[id] = true
		}
		w.mu.Unlock()
		for _, id := range last {
			if !first[id] {
				t.Fatalf("segment %x with one copy left came late", id)
			}
		}
		if s := w.status(h); s.Endangered != 300 || s.Total != 3000 {
			t.Errorf("%d endangered of %d, want 300 of 3000", s.Endangered, s.Total)
		}
	})
}

// TestDrain: a drive is emptied, with progress; one that can't be says why, and
// is once it can.
func TestDrain(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		h, _ := w.healer("n1", nil)
		w.fill(1000, 8<<20, "n1/a", "n2/a", "n3/a")
		w.drain("n3/a", true)
		sawETA := false
		w.until(time.Hour, "drained", func() bool {
			s := w.status2(h)
			if len(s.Draining) == 0 {
				return false
			}
			d := s.Draining[0]
			sawETA = sawETA || s.Phase == PhaseDraining && d.LeftSegments > 0 && d.LeftSegments < 1000 && d.ETA > 0
			return d.Counted && d.LeftSegments == 0
		})
		w.well(time.Second)
		s := w.status(h)
		if !sawETA || len(s.Draining) != 2 || s.Draining[0].Kind != "drive" || s.Draining[1].Kind != "node" || s.Draining[1].Name != "n3" {
			t.Errorf("draining %+v, an ETA was seen: %v", s.Draining, sawETA)
		}
		// Now three drives are left for three copies: the next has nowhere to go
		// but away.
		w.drain("n2/a", true)
		w.until(time.Hour, "drained to two copies", func() bool { return w.wants() == "" })
		w.drain("n1/a", true)
		w.until(time.Hour, "drained to one copy", func() bool { return w.wants() == "" })
		copies := w.n().copies
		w.drain("n4/a", true)
		w.until(time.Hour, "blocked", func() bool { return w.blocked(h, "pool") != "" })
		if why := w.blocked(h, "pool"); !strings.Contains(why, "no other drive is left") {
			t.Errorf("blocked because of %q", why)
		}
		if w.n().copies != copies {
			t.Errorf("%d copies were made that have nowhere to go", w.n().copies-copies)
		}
		w.reclaim()
		w.node("n5", "other", "", 2)
		w.well(time.Hour)
		if why := w.blocked(h, "pool"); why != "" {
			t.Errorf("still blocked: %s", why)
		}
	})
}

func (w *world) blocked(h *Healer, kind string) string {
	for _, d := range w.status2(h).Draining {
		if d.Kind == kind {
			return d.Blocked
		}
	}
	return ""
}

// TestDrainFull: no room elsewhere is said, with how much there is.
func TestDrainFull(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.drives["n4/a"].total = 1 << 20
		w.fill(10, 8<<20, "n1/a", "n2/a", "n3/a")
		w.drain("n3/a", true)
		h, _ := w.healer("n1", nil)
		w.until(time.Hour, "blocked", func() bool { return w.blocked(h, "drive") != "" })
		if why := w.blocked(h, "drive"); !strings.Contains(why, "room for 8388608 bytes") {
			t.Errorf("blocked because of %q", why)
		}
		w.mu.Lock()
		w.drives["n4/a"].total = 1 << 40
		w.mu.Unlock()
		w.well(2 * time.Hour)
	})
}

// TestScrub: everything is found that isn't as it should be, and made good in
// its place; a permanently bad object is reported once a round.
func TestScrub(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		var lost atomic.Int64
		w.scrub = control.ScrubState{Round: 1, Started: time.Now().UnixNano(), Ended: time.Now().UnixNano()}
		ids := w.fill(2200, 1<<16, "n1/a", "n2/a", "n3/a")
		for i, how := range []string{"missing", "size", "corrupted"} {
			for n := range 60 {
				w.spoil(fmt.Sprintf("n%d/a", n%3+1), ids[i*60+n], how)
			}
		}
		for _, d := range []string{"n1/a", "n2/a", "n3/a"} {
			w.spoil(d, ids[2000], "corrupted")
		}
		h, _ := w.healer("n1", func(o *Options) {
			o.Hooks.Unrecoverable = func(n int) { lost.Add(int64(n)) }
			o.LookEvery, o.PendingEvery = 2*time.Minute, 10*time.Minute
		})
		w.until(time.Minute, "led", func() bool { return w.status2(h).Leader != "" })
		if err := h.Start(t.Context(), StartRequest{Verify: true}); err != nil {
			t.Fatal(err)
		}
		w.well(time.Minute)
		w.until(time.Minute, "at the round's end", func() bool { s := w.status(h).Scrub; return !s.Ended.IsZero() && !s.Fast })
		s := w.status(h)
		if s.Scrub.Bad != 183 || s.Scrub.Segments != 2200 || s.Scrub.Bytes != 3*2200<<16 {
			t.Errorf("the scrub says %+v", s.Scrub)
		}
		if len(s.Unrecoverable) != 1 || s.Unrecoverable[0].Segment != ids[2000] || s.Unrecoverable[0].Bucket != "bucket" ||
			!strings.Contains(s.Unrecoverable[0].Why, "corrupted") || s.UnrecoverableCount != 1 {
			t.Errorf("unrecoverable: %+v", s.Unrecoverable)
		}
		if w.n().copies != 180 {
			t.Errorf("%d copies were made, want 180", w.n().copies)
		}
		for id, f := range w.drives["n4/a"].files {
			t.Errorf("segment %x was copied elsewhere instead of in its place (%q)", id, f)
		}
		if lost.Load() != 1 {
			t.Errorf("the lost segment was reported %d times in a round", lost.Load())
		}
		checks := w.n().checks
		time.Sleep(10 * 24 * time.Hour)
		if w.n().checks != checks || lost.Load() != 1 {
			t.Errorf("%d more checks and %d more reports within the period", w.n().checks-checks, lost.Load()-1)
		}
		time.Sleep(5 * 24 * time.Hour)
		if w.n().checks < checks+3*2200 || lost.Load() != 2 {
			t.Errorf("%d more checks and %d reports after the period", w.n().checks-checks, lost.Load())
		}
		// Its object goes, and with it the report.
		w.forget(ids[2000])
		if err := h.Start(t.Context(), StartRequest{Verify: true}); err != nil {
			t.Fatal(err)
		}
		w.until(time.Minute, "forgotten", func() bool { return w.status(h).UnrecoverableCount == 0 })
	})
}

// TestScrubRate: a round takes most of its period where there is much, and goes
// on where it was after the coordinator has changed.
func TestScrubRate(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.fill(2000, 64<<20, "n1/a", "n2/a", "n3/a")
		period := 24 * time.Hour
		options := func(o *Options) { o.ScrubPeriod, o.LookEvery, o.PendingEvery = period, time.Minute, 10*time.Minute }
		began := time.Now()
		h, stop := w.healer("n1", options)
		time.Sleep(period / 2)
		s := w.status(h).Scrub
		if share := float64(s.Segments) / 2000; share < 0.5 || share > 0.75 || s.ETA < period/5 || s.ETA > period/2 {
			t.Errorf("half of the period: %+v", s)
		}
		stop()
		h, _ = w.healer("n2", options)
		w.until(period, "at its end", func() bool { return w.status2(h).Scrub.Ended.After(began) })
		took := time.Since(began)
		if s = w.status(h).Scrub; s.Round != 1 || s.Segments < 2000 || s.Segments > 2400 {
			t.Errorf("the round was not gone on with: %+v", s)
		}
		if took < period*7/10 || took > period {
			t.Errorf("the round took %v of %v", took, period)
		}
	})
}

// TestRepairElsewhere: a bad copy on a drive that can't be written is made good
// on another one, and one that can't be copied ends as stuck, not in a loop.
func TestRepairElsewhere(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		ids := w.fill(3, 1<<20, "n1/a", "n2/a", "n3/a")
		w.spoil("n3/a", ids[0], "corrupted")
		w.drives["n3/a"].state = dataio.ReadOnly
		w.copyErr = func(drive string, id [16]byte) error {
			if id == ids[1] {
				return fault.New(fault.Internal, "payload", "the test says no")
			}
			return nil
		}
		h, _ := w.healer("n1", func(o *Options) { o.LookEvery, o.PendingEvery = 10*time.Second, 5*time.Second })
		w.until(time.Minute, "led", func() bool { return w.status2(h).Leader != "" })
		h.BadCopy(ids[0], "n3/a", "corrupted")
		w.until(time.Minute, "moved", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Equal(w.segs[ids[0]].drives, []string{"n1/a", "n2/a", "n4/a"})
		})
		w.short(ids[1])
		w.mu.Lock()
		w.segs[ids[1]].drives = []string{"n1/a", "n2/a"}
		w.mu.Unlock()
		w.until(time.Minute, "stuck", func() bool { return len(w.status(h).Stuck) > 0 })
		if s := w.status(h).Stuck[0]; !strings.Contains(s.Why, "the test says no") {
			t.Errorf("stuck: %+v", s)
		}
		copies := w.n().copies
		time.Sleep(24 * time.Hour)
		if n := w.n().copies - copies; n > 12*triesMax {
			t.Errorf("%d more tries in a day", n)
		}
	})
}

// TestFollower: without a way to the coordinator nothing is pretended.
func TestFollower(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		if _, err := New(Options{}); err == nil {
			t.Error("a healer of nothing was made")
		}
		h, _ := w.healer("n2", func(o *Options) { o.Leader = func() (string, bool) { return "nobody", false } })
		if _, err := h.Status(t.Context()); fault.KindOf(err) != fault.Waiting {
			t.Errorf("without a way to the leader: %v, want waiting", err)
		}
		if err := h.Start(t.Context(), StartRequest{}); fault.KindOf(err) != fault.Waiting {
			t.Errorf("without a way to the leader: %v, want waiting", err)
		}
		if err := h.Rebalance(t.Context(), true); fault.KindOf(err) != fault.Waiting {
			t.Errorf("without a way to the leader: %v, want waiting", err)
		}
	})
}

// TestSuccessor: what a coordinator was asked for, and was heard to be at, its
// successor goes on with; what was heard long ago it doesn't.
func TestSuccessor(t *testing.T) {
	for _, ago := range []time.Duration{time.Second, time.Hour} {
		virtual(t, func(t *testing.T, w *world) {
			w.fill(5000, 1<<20, "n1/a", "n2/a", "n3/a")
			w.scrub = control.ScrubState{Round: 5, After: "k004000", Started: time.Now().UnixNano(), Segments: 4000}
			var leads atomic.Bool
			h, _ := w.healer("n2", func(o *Options) { o.Leader = func() (string, bool) { return "n2", leads.Load() } })
			h.mu.Lock()
			h.heard = heard{at: time.Now().Add(-ago), rebalancing: true, verifying: true}
			h.mu.Unlock()
			leads.Store(true)
			w.until(time.Minute, "led", func() bool { return w.status2(h).Leader != "" })
			time.Sleep(5 * time.Second)
			s := w.status(h)
			if s.Scrub.Round != 5 || s.Scrub.Segments < 4000 {
				t.Errorf("the round was begun anew: %+v", s.Scrub)
			}
			goes := ago < time.Minute
			if s.Rebalance.Started.IsZero() == goes || (s.Scrub.Fast || !s.Scrub.Ended.IsZero()) != goes {
				t.Errorf("heard %v ago: rebalancing %+v, scrub %+v", ago, s.Rebalance, s.Scrub)
			}
		})
	}
}

// TestSweep: garbage rows of drives that are gone go, and no others.
func TestSweep(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.healer("n1", nil)
		ids := w.fill(10, 1<<20, "n1/a", "n2/a", "n3/a")
		time.Sleep(time.Minute)
		for _, id := range ids {
			w.forget(id)
		}
		w.remove("n3/a")
		time.Sleep(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.garbage["n1/a"]) != 10 || len(w.garbage["n2/a"]) != 10 || len(w.garbage["n3/a"]) != 0 {
			t.Errorf("garbage: %v", w.garbage)
		}
	})
}

// TestRebalance: a new, empty drive gets its share, and a new pool its own; once
// it is even nothing moves any more.
func TestRebalance(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.node("n5", "default", "", 1)
		for i := range 5 {
			w.drives[fmt.Sprintf("n%d/a", i+1)].total = 10 << 30
		}
		for i := range 600 {
			w.put(8<<20, fmt.Sprintf("n%d/a", i%4+1), fmt.Sprintf("n%d/a", (i+1)%4+1), fmt.Sprintf("n%d/a", (i+2)%4+1))
		}
		h, _ := w.healer("n1", nil)
		run := func() Rebalance {
			t.Helper()
			w.until(time.Minute, "led", func() bool { return w.status2(h).Leader != "" })
			asked := time.Now()
			if err := h.Rebalance(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			w.until(time.Hour, "even", func() bool { s := w.status(h).Rebalance; return !s.Running && !s.Started.Before(asked) })
			w.well(time.Minute)
			return w.status(h).Rebalance
		}
		if s := run(); s.Moved == 0 || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		if s := run(); s.Moved > 50 { // what came too early for the first
			t.Errorf("%d were moved where all is even", s.Moved)
		}
		w.reclaim()
		w.even(h, band+0.01, "n1/a", "n2/a", "n3/a", "n4/a", "n5/a")
		time.Sleep(freedFor + time.Minute)
		if s := run(); s.Moved > 10 {
			t.Errorf("%d were moved where all is even, and nothing is garbage", s.Moved)
		}
		for i := range 3 {
			name := fmt.Sprintf("p%d", i+1)
			w.node(name, "second", "", 1)
			w.mu.Lock()
			w.drives[name+"/a"].total = 10 << 30
			w.mu.Unlock()
		}
		time.Sleep(time.Minute)
		run()
		w.reclaim()
		w.even(h, 2*band, "n1/a", "n2/a", "n3/a", "n4/a", "n5/a", "p1/a", "p2/a", "p3/a")
		if err := h.Rebalance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	})
}

// even checks that drives are equally full, within so much of their mean.
func (w *world) even(h *Healer, within float64, drives ...string) {
	w.t.Helper()
	v := newView(w.Topology(), w.Health(), sight{}, 3, time.Hour, time.Now())
	b := newBalance(v, nil)
	mean := b.mean(v, func(*drive) bool { return true })
	for _, id := range drives {
		if f := b.fill(v.drives[id]); f < mean-within || f > mean+within {
			w.t.Errorf("%s is full to %.3f, the mean being %.3f", id, f, mean)
		}
	}
}

// TestHang: a drive that doesn't answer holds up neither the others nor the end
// of the run.
func TestHang(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.node("n5", "default", "", 1)
		w.drives["n4/a"].hang = true
		for range 500 {
			w.short(w.put(1<<20, "n1/a", "n2/a"))
		}
		_, stop := w.healer("n1", nil)
		w.well(30 * time.Minute)
		stop()
	})
}

// TestIndexAway: what fails because of the index is done when it is back.
func TestIndexAway(t *testing.T) {
	virtual(t, func(t *testing.T, w *world) {
		w.healer("n1", nil)
		w.fill(500, 1<<20, "n1/a", "n2/a", "n3/a")
		until := time.Now().Add(5 * time.Minute)
		w.mu.Lock()
		w.indexErr = func() error {
			if time.Now().Before(until) {
				return fault.New(fault.Unavailable, "index", "isn't there")
			}
			return nil
		}
		w.mu.Unlock()
		w.remove("n3/a")
		time.Sleep(5 * time.Minute)
		w.well(5 * time.Minute)
	})
}

var _ control.Index = (*world)(nil)
