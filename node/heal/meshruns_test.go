package heal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// TestMeshLoss: a node that is lost for good is made up for, whoever
// coordinates; what it had is copied to those that are left.
func TestMeshLoss(t *testing.T) {
	t.Parallel()
	m := newMesh(t, []int{1, 1, 1, 1}, nil)
	want := map[string][32]byte{}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		key := fmt.Sprintf("k%03d", i)
		want[key] = m.put(i%4, key, randomData(r, 20_000+r.IntN(20_000)))
	}
	want["large"] = m.put(0, "large", randomData(r, 5*meshSegment+17))
	m.nodes[3].stop(t)
	m.well()
	m.wantAll(1, want)
	m.elect(1)
	ctx := meshContext(t)
	if _, err := m.nodes[0].ctl.Propose(ctx, &control.Command{MarkDrive: &control.MarkDrive{Drive: m.nodes[3].drives[0].ID(), Remove: true}}); err != nil {
		t.Fatal(err)
	}
	m.well()
	m.until("the garbage of the lost drive is dropped", func() bool {
		a, err := m.nodes[0].ctl.Read(ctx, &control.Query{Garbage: &control.GarbageQuery{Drive: m.nodes[3].drives[0].ID(), Before: 1 << 62}})
		return err == nil && len(a.Garbage) == 0
	})
	s, err := m.nodes[2].heal.Status(ctx) // by way of node 1
	if err != nil || s.Leader != "n1" || len(s.Unrecoverable) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestMeshRot: whatever is done to one copy of each of many segments is found
// and made good; a copy that a read finds to be bad is made good without a scrub.
func TestMeshRot(t *testing.T) {
	t.Parallel()
	m := newMesh(t, []int{2, 2, 2}, nil)
	want := map[string][32]byte{}
	r := rand.New(rand.NewPCG(2, 2))
	for i := range 60 {
		key := fmt.Sprintf("k%03d", i)
		want[key] = m.put(i%3, key, randomData(r, 10_000+r.IntN(300_000)))
	}
	m.until("the first round is at its end", func() bool {
		s, err := m.nodes[0].heal.Status(meshContext(t))
		return err == nil && !s.Scrub.Ended.IsZero()
	})
	segs := m.segments()
	for _, seg := range segs {
		m.damage(r, seg.Drives[r.IntN(len(seg.Drives))], seg)
	}
	must(t, m.nodes[1].heal.Start(meshContext(t), StartRequest{Verify: true}))
	m.well()
	m.until("the round is at its end", func() bool {
		s, err := m.nodes[2].heal.Status(meshContext(t))
		return err == nil && s.Scrub.Round == 2 && !s.Scrub.Ended.IsZero()
	})
	s, err := m.nodes[2].heal.Status(meshContext(t))
	must(t, err)
	if s.Scrub.Bad != int64(len(segs)) || s.Scrub.Segments != int64(len(segs)) {
		t.Errorf("%d bad copies of %d segments were found, want %d", s.Scrub.Bad, s.Scrub.Segments, len(segs))
	}
	m.wantAll(0, want)

	seg := m.segments()[0]
	must(t, os.Remove(fileOf(m.drive(seg.Drives[0]), seg.ID)))
	m.until("a reader finds that it is gone, and it is there again", func() bool {
		for i := range m.nodes { // one of them has that copy first, and may have it open
			m.wantAll(i, map[string][32]byte{seg.Key: want[seg.Key]})
		}
		return m.wrong() == ""
	})
}

// TestMeshDrain: a pool and a drive are emptied, while the coordinator
// changes; what is left on them is removed, and they can go.
func TestMeshDrain(t *testing.T) {
	t.Parallel()
	m := newMesh(t, []int{1, 1, 1, 1, 1, 1}, []string{"a", "a", "a", "b", "b", "b"})
	want := map[string][32]byte{}
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 60 {
		key := fmt.Sprintf("k%03d", i)
		want[key] = m.put(i%6, key, randomData(r, 10_000+r.IntN(100_000)))
	}
	ctx := meshContext(t)
	mark := func(c control.Command) {
		t.Helper()
		_, err := m.nodes[0].ctl.Propose(ctx, &c)
		must(t, err)
	}
	// A whole pool, in whichever most of it is.
	pool := "a"
	if in := m.nodes[3].drives[0]; files(t, in) > 0 {
		pool = "b"
	}
	for i, n := range m.nodes {
		if (i >= 3) == (pool == "b") {
			mark(control.Command{MarkNode: &control.MarkNode{Node: n.name, Drain: true}})
		}
	}
	m.elect(2)
	m.until("it is on its way", func() bool {
		s, err := m.nodes[5].heal.Status(ctx)
		return err == nil && s.Leader == "n2"
	})
	m.elect(4)
	m.drained("pool", pool)
	m.well()
	m.wantAll(5, want)
	for i, n := range m.nodes {
		for _, d := range n.drives {
			if (i >= 3) == (pool == "b") {
				m.until("the files on "+d.ID()+" are gone", func() bool { return files(t, d) == 0 })
			}
		}
	}
	// And one drive of the other.
	n := m.nodes[0]
	if pool == "a" {
		n = m.nodes[3]
	}
	mark(control.Command{MarkDrive: &control.MarkDrive{Drive: n.drives[0].ID(), Drain: true}})
	m.drained("drive", n.drives[0].ID())
	m.until("its files are gone", func() bool { return files(t, n.drives[0]) == 0 })
	mark(control.Command{MarkDrive: &control.MarkDrive{Drive: n.drives[0].ID(), Remove: true}})
	m.well()
	m.wantAll(1, want)
}

func (m *mesh) drained(kind, name string) {
	m.t.Helper()
	m.until(kind+" "+name+" is drained", func() bool {
		s, err := m.nodes[0].heal.Status(meshContext(m.t))
		if err != nil {
			return false
		}
		i := slices.IndexFunc(s.Draining, func(d DrainProgress) bool { return d.Kind == kind && d.Name == name })
		return i >= 0 && s.Draining[i].Counted && s.Draining[i].LeftSegments == 0
	})
}

// TestMeshRandom has puts, overwrites, deletes and copies go on while copies are
// damaged, drives drain and come back, the coordinator changes and orphans lie
// around, and compares with a map.
func TestMeshRandom(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	m := newMesh(t, []int{2, 1, 2, 1}, nil)
	want := map[string][32]byte{}
	ctx := meshContext(t)
	draining := ""
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		key := fmt.Sprintf("k%02d", r.IntN(60))
		switch n := r.IntN(100); {
		case n < 50:
			size := 9_000 + r.IntN(60_000)
			if r.IntN(10) == 0 {
				size = meshSegment + r.IntN(2*meshSegment)
			}
			want[key] = m.put(r.IntN(4), key, randomData(r, size))
		case n < 60:
			if err := m.nodes[r.IntN(4)].objects.Delete(ctx, "bucket", key, object.Conditions{}); fault.KindOf(err) != fault.ObjectNotFound {
				must(t, err)
			}
			delete(want, key)
		case n < 80:
			m.damageOne(r)
		case n < 86:
			undo := draining != ""
			if !undo {
				all := m.drives()
				draining = all[r.IntN(len(all))].ID()
			}
			_, err := m.nodes[0].ctl.Propose(ctx, &control.Command{MarkDrive: &control.MarkDrive{Drive: draining, Drain: !undo, Undo: undo}})
			must(t, err)
			if undo {
				draining = ""
			}
		case n < 92:
			m.elect(r.IntN(4))
		case n < 95:
			_ = m.nodes[r.IntN(4)].heal.Start(ctx, StartRequest{Verify: true}) // there may be nobody for the moment
		default:
			for k, sum := range want {
				m.wantAll(r.IntN(4), map[string][32]byte{k: sum})
				break
			}
		}
	}
	m.until("a verifying round begins", func() bool { return m.nodes[0].heal.Start(ctx, StartRequest{Verify: true}) == nil })
	m.well()
	for i := range 4 {
		m.wantAll(i, want)
	}
	s, err := m.nodes[0].heal.Status(ctx)
	must(t, err)
	if len(s.Unrecoverable) > 0 {
		t.Errorf("unrecoverable: %+v", s.Unrecoverable)
	}
}

// damageOne damages a copy of some segment that has two good ones besides.
func (m *mesh) damageOne(r *rand.Rand) {
	segs := m.segments()
	if len(segs) == 0 {
		return
	}
	seg := segs[r.IntN(len(segs))]
	var good []string
	for _, id := range seg.Drives {
		if verifyFile(m.drive(id), seg) == nil {
			good = append(good, id)
		}
	}
	if len(good) < 3 {
		return
	}
	path := fileOf(m.drive(good[0]), seg.ID)
	if r.IntN(2) == 0 {
		_ = os.Remove(path) // it may have been reclaimed meanwhile
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	b := []byte{0}
	at := r.Int64N(seg.SizeBytes)
	if _, err := f.ReadAt(b, at); err == nil {
		b[0] ^= 1 << r.IntN(8)
		_, err = f.WriteAt(b, at)
		must(m.t, err)
	}
}

// TestMeshForward: requests reach the coordinator from any node, and what comes
// of them is seen from any.
func TestMeshForward(t *testing.T) {
	t.Parallel()
	m := newMesh(t, []int{1, 1, 1}, nil)
	m.elect(1)
	ctx := meshContext(t)
	for _, n := range m.nodes {
		m.until("node "+n.name+" has heard", func() bool {
			s, err := n.heal.Status(ctx)
			return err == nil && s.Leader == "n1"
		})
	}
	must(t, m.nodes[2].heal.Rebalance(ctx, true))
	m.until("rebalanced", func() bool {
		s, err := m.nodes[0].heal.Status(ctx)
		return err == nil && !s.Rebalance.Started.IsZero() && !s.Rebalance.Running
	})
	must(t, m.nodes[0].heal.Rebalance(ctx, false))
	m.nodes[1].stop(t)
	if _, err := m.nodes[0].heal.Status(ctx); err == nil || !strings.Contains(err.Error(), "n1") {
		t.Errorf("the coordinator being gone: %v", err)
	}
	m.elect(2)
	if s, err := m.nodes[0].heal.Status(ctx); err != nil || s.Leader != "n2" {
		t.Errorf("%+v, %v", s, err)
	}
}
