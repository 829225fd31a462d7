package object

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/control"
)

// healthOf finds a drive in what a node knows.
func (n *testNode) healthOf(t *testing.T, drive string) DriveHealth {
	t.Helper()
	for _, h := range n.Health() {
		if h.ID == drive {
			return h
		}
	}
	t.Fatalf("%s knows nothing of drive %s", n.name, drive)
	return DriveHealth{}
}

// TestHealth: every node knows how each drive is: well, broken, full, away, and
// since when.
func TestHealth(t *testing.T) {
	var broken datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1, 1},
		place: func(node int) (string, string) { return "fast", []string{"x", "x", "y", ""}[node] },
		drive: func(node int) dataio.Options {
			switch node {
			case 1:
				return dataio.Options{Interceptor: &broken}
			case 2:
				return dataio.Options{ReserveBytes: 1 << 60}
			}
			return dataio.Options{}
		}})
	ctx := testContext(t)
	n := m.nodes[0]
	d := func(i int) string { return m.nodes[i].drives[0].ID() }
	if h := n.healthOf(t, d(3)); h.Reachable || h.State != dataio.Offline || time.Since(h.Since) > time.Minute {
		t.Errorf("never looked at: %+v", h)
	}
	broken.Add(datatest.Fault{Op: dataio.OpSync, Err: syscall.EIO})
	if _, err := m.nodes[1].writeOwn(ctx, m.nodes[1].drives[0], dataio.NewID(), []byte("x")); err == nil {
		t.Fatal("the sync didn't fail")
	}
	before := time.Now()
	for _, n := range m.nodes {
		n.lookAt(ctx, 0)
		for i, state := range []dataio.State{dataio.Online, dataio.Suspect, dataio.ReadOnly, dataio.Online} {
			h := n.healthOf(t, d(i))
			if h.State != state || !h.Reachable || h.Draining || h.Node != m.nodes[i].name || h.Pool != "fast" ||
				h.TotalBytes <= 0 || h.FreeBytes <= 0 || h.UsedBytes <= 0 || h.Since.IsZero() != (state == dataio.Online) {
				t.Errorf("%s says of n%d: %+v", n.name, i, h)
			}
			if !h.Since.IsZero() && h.Since.Before(before) {
				t.Errorf("%s says of n%d: since %v", n.name, i, h.Since)
			}
		}
	}
	if h := n.healthOf(t, d(2)); h.Zone != "y" {
		t.Errorf("%+v", h)
	}
	since := n.healthOf(t, d(1)).Since
	m.nodes[3].stop(t)
	for n.healthOf(t, d(3)).Reachable {
		n.lookAt(ctx, 0)
		must(t, pause(ctx))
	}
	h := n.healthOf(t, d(3))
	if h.State != dataio.Offline || h.Since.IsZero() || h.FreeBytes <= 0 {
		t.Errorf("away: %+v", h)
	}
	if again := n.healthOf(t, d(1)).Since; !again.Equal(since) {
		t.Errorf("the trouble began %v, and now it began %v", since, again)
	}
	if w, ok := n.PlaceCopy(control.SegmentCopies{ID: dataio.NewID(), SizeBytes: 1}, nil); !ok || w != d(0) {
		t.Errorf("a copy goes to %s, want the one that is well", w)
	}
}

// TestHealthLoop: Run looks again and again, and a node that is back is seen.
func TestHealthLoop(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1}, options: func(_ int, o *Options) { o.HealthEvery = 20 * time.Millisecond }})
	n, other := m.nodes[0], m.nodes[1]
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() { cancel(); must(t, <-ended) }()
	wait := func(reachable bool) {
		t.Helper()
		for ctx := testContext(t); n.healthOf(t, other.drives[0].ID()).Reachable != reachable; {
			if pause(ctx) != nil {
				t.Fatalf("%+v, want reachable %v", n.healthOf(t, other.drives[0].ID()), reachable)
			}
		}
	}
	wait(true)
	forget(t, other, n)
	wait(false)
	must(t, other.grid.AddHost(n.url))
	wait(true)
	if h := n.healthOf(t, other.drives[0].ID()); !h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
}

// TestHealthOfStalled: a drive that hangs costs the look at the others half a
// second, and is looked at once; what it said last stays known.
func TestHealthOfStalled(t *testing.T) {
	var faults datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1, 1}, drive: func(node int) dataio.Options {
		if node == 1 {
			return dataio.Options{Interceptor: &faults}
		}
		return dataio.Options{}
	}})
	ctx := testContext(t)
	n, owner := m.nodes[0], m.nodes[1]
	n.lookAt(ctx, 0)
	free := n.healthOf(t, owner.drives[0].ID()).FreeBytes
	s := newStall()
	t.Cleanup(s.release)
	faults.Add(datatest.Fault{Op: dataio.OpUsage, Times: -1, Wait: s.wait, Done: true})
	faults.Ops()
	start := time.Now()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { n.lookAt(ctx, 0) })
		all.Go(func() { owner.lookAt(ctx, 0) })
	}
	all.Wait()
	n.lookAt(ctx, 0)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	looks := 0
	for _, op := range faults.Ops() {
		if op.Kind == dataio.OpUsage {
			looks++
		}
	}
	if looks != 1 {
		t.Errorf("the drive was looked at %d times, want once", looks)
	}
	for _, n := range m.nodes {
		if h := n.healthOf(t, owner.drives[0].ID()); !h.Reachable || h.FreeBytes != free && n == m.nodes[0] {
			t.Errorf("%s: %+v, want %d bytes free", n.name, h, free)
		}
	}
}

// TestTroubleBeginsAnew: the time since when a drive isn't well is that of what
// it has now.
func TestTroubleBeginsAnew(t *testing.T) {
	l := &look{known: true}
	at := time.Unix(1000, 0)
	for i, c := range []struct {
		state  dataio.State
		missed int
		since  int // which step
	}{
		{dataio.Online, 0, -1}, {dataio.ReadOnly, 0, 1}, {dataio.Degraded, 0, 1}, {dataio.Offline, 0, 3},
		{dataio.Online, 0, -1}, {dataio.Suspect, 0, 5}, {dataio.Suspect, 9, 5}, {dataio.Online, 1, -1},
		{dataio.Online, missedLooks, 8}, {dataio.Degraded, 0, 9},
	} {
		l.report.State, l.missed = uint8(c.state), c.missed
		l.judge(at.Add(time.Duration(i) * time.Second))
		want := time.Time{}
		if c.since >= 0 {
			want = at.Add(time.Duration(c.since) * time.Second)
		}
		if !l.since.Equal(want) {
			t.Errorf("step %d: since %v, want %v", i, l.since, want)
		}
	}
}
