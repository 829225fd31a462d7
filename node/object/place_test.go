package object

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// TestRank: every order is a function of the id alone, shares are even, and a
// drive that goes away moves only what was its own.
func TestRank(t *testing.T) {
	const drives, ids = 9, 2250
	var all []target
	for i := range drives {
		all = append(all, target{drive: fmt.Sprintf("drive-%d", i)})
	}
	share := map[string]int{}
	for range ids {
		id := dataio.NewID()
		a := slices.Clone(all)
		rank(a, id)
		b := slices.Clone(all)
		slices.Reverse(b)
		rank(b, id)
		for i := range a {
			if a[i].drive != b[i].drive {
				t.Fatal("the order depends on where it began")
			}
		}
		share[a[0].drive]++
		gone := slices.DeleteFunc(slices.Clone(all), func(t target) bool { return t.drive == "drive-3" })
		rank(gone, id)
		first := a[0]
		if first.drive == "drive-3" {
			first = a[1]
		}
		if gone[0].drive != first.drive {
			t.Fatal("a drive that went away moved what wasn't on it")
		}
	}
	for drive, n := range share {
		// Six standard deviations of a fair draw.
		if n < 250-90 || n > 250+90 {
			t.Errorf("%s has %d of %d", drive, n, ids)
		}
	}
}

// TestPickerSpread: in random pools the copies are in as many zones, and on as
// many nodes, as can be; and a drive that works goes before one that doesn't.
func TestPickerSpread(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 500 {
		var found []target
		zones, nodes := map[string]bool{}, map[string]bool{}
		for n := range 1 + r.IntN(8) {
			node := control.Node{Name: fmt.Sprint("n", n)}
			if z := r.IntN(4); z > 0 {
				node.Zone = fmt.Sprint("z", z)
			}
			for d := range 1 + r.IntN(3) {
				found = append(found, target{node: node, drive: fmt.Sprint(n, "-", d)})
			}
			zones[(&target{node: node}).zone()], nodes[node.Name] = true, true
		}
		want := 1 + r.IntN(5)
		p := newPicker(found, dataio.NewID())
		gotZones, gotNodes, gotDrives := map[string]bool{}, map[string]bool{}, map[string]bool{}
		picked := 0
		for ; picked < want; picked++ {
			drive, ok := p.next(tierGood)
			if !ok {
				break
			}
			gotZones[drive.zone()], gotNodes[drive.node.Name], gotDrives[drive.drive] = true, true, true
		}
		if picked != min(want, len(found)) || len(gotDrives) != picked {
			t.Fatalf("%d drives of %d, want %d", len(gotDrives), len(found), want)
		}
		if len(gotZones) != min(picked, len(zones)) {
			t.Fatalf("%d copies in %d zones of %d", picked, len(gotZones), len(zones))
		}
		// Within the zones that were taken equally often; not more nodes can be
		// told in general, but never fewer than zones.
		if len(gotNodes) < len(gotZones) {
			t.Fatalf("%d nodes in %d zones", len(gotNodes), len(gotZones))
		}
		if len(zones) == len(nodes) && len(gotNodes) != min(picked, len(nodes)) {
			t.Fatalf("%d copies on %d nodes of %d", picked, len(gotNodes), len(nodes))
		}
	}
	p := newPicker([]target{{drive: "full", tier: tierFull}, {drive: "slow", tier: tierSlow}, {drive: "bad", tier: tierBad}, {drive: "good"}}, dataio.NewID())
	var order []string
	for _, worst := range []tier{tierGood, tierGood, tierSlow, tierBad, tierBad, tierBad} {
		drive, _ := p.next(worst)
		order = append(order, drive.drive)
	}
	if want := []string{"good", "", "slow", "full", "bad", ""}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
}

// TestChoosePools: which pool takes new payload, and what it waits for.
func TestChoosePools(t *testing.T) {
	of := func(name string, want, best, slow, other, away int, free int64) *pool {
		p := &pool{name: name, want: want, need: want/2 + 1, best: best, good: best + slow, away: away, free: free}
		p.found = make([]target, best+slow+other)
		for range away {
			p.missing = append(p.missing, "node x is not connected")
		}
		return p
	}
	for name, c := range map[string]struct {
		pools   []*pool
		ready   string
		lacking string
	}{
		"none":                                {nil, "", "mesh"},
		"the one with more room":              {[]*pool{of("a", 3, 3, 0, 0, 0, 5), of("b", 3, 3, 0, 0, 0, 6)}, "ba", ""},
		"a majority is enough":                {[]*pool{of("a", 3, 2, 0, 0, 1, 5)}, "a", ""},
		"one that works before one with room": {[]*pool{of("a", 3, 1, 0, 0, 2, 9), of("b", 1, 1, 0, 0, 0, 1)}, "b", ""},
		"slow ones if there must be":          {[]*pool{of("a", 3, 1, 1, 0, 0, 9), of("b", 3, 2, 0, 0, 0, 1)}, "ba", ""},
		"waits for those that may come":       {[]*pool{of("a", 3, 1, 0, 0, 2, 9)}, "", "pool a"},
		"waits for the nearest":               {[]*pool{of("a", 3, 0, 0, 0, 3, 9), of("b", 3, 1, 0, 0, 2, 1)}, "", "pool b"},
		"asks the broken if nothing helps":    {[]*pool{of("a", 3, 0, 0, 3, 0, 9)}, "a", ""},
		"waits rather than that":              {[]*pool{of("a", 3, 0, 0, 3, 0, 9), of("b", 2, 1, 0, 0, 1, 0)}, "", "pool b"},
		"one full, one away, one well":        {[]*pool{of("a", 3, 1, 0, 1, 1, 9)}, "", "pool a"},
	} {
		ready, lacking, missing := choosePools(c.pools)
		got := ""
		for _, p := range ready {
			got += p.name
		}
		if got != c.ready || lacking != c.lacking || (missing != "") != (lacking != "") {
			t.Errorf("%s: %q, lacking %q: %q", name, got, lacking, missing)
		}
	}
}

// setFree has a node believe that the drives of pools have so much free, for as
// long as it doesn't look again.
func (n *testNode) setFree(t *testing.T, free map[string]int64) {
	t.Helper()
	n.lookAt(testContext(t), time.Hour)
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	for _, node := range n.ctl.Topology().Nodes {
		for _, id := range node.Drives {
			l := n.health.drives[id]
			if l == nil || !l.known {
				t.Fatalf("drive %s of %s was not looked at", id, node.Name)
			}
			l.report.Free = free[poolOf(&node)]
		}
	}
}

// poolsOf returns the pools that an object's copies are in.
func (m *testMesh) poolsOf(t *testing.T, bucket, key string) (pools []string) {
	t.Helper()
	for _, id := range m.drivesOf(t, bucket, key) {
		n, _ := m.nodes[0].ctl.Topology().Drive(id)
		pools = append(pools, poolOf(n))
	}
	slices.Sort(pools)
	return slices.Compact(pools)
}

// TestPools: new payload goes where most is free, all copies of a segment in
// one pool; a pool that is away is not waited for while another takes it, and
// is named when it is the only one.
func TestPools(t *testing.T) {
	m := newMesh(t, meshConfig{
		drives: []int{1, 1, 1, 1, 0},
		place:  func(node int) (string, string) { return []string{"a", "a", "b", "b", "c"}[node], "" },
		options: func(_ int, o *Options) {
			o.HealthEvery, o.WaitTimeout = time.Hour, 300*time.Millisecond
		},
	})
	m.bucket("pools")
	n := m.nodes[0]
	data := randomBytes(testSegment + 1)
	for i, most := range []string{"b", "a", "b"} {
		free := map[string]int64{"a": 10 << 20, "b": 10 << 20}
		free[most]++
		n.setFree(t, free)
		for j, d := range [][]byte{data, data[:GridMaxBytes]} {
			key := fmt.Sprint(i, j)
			n.put(t, "pools", key, d, i%2 == 0)
			if pools := m.poolsOf(t, "pools", key); !slices.Equal(pools, []string{most}) {
				t.Errorf("%s: in %v, want %s", key, pools, most)
			}
			m.wantCopies(t, "pools", key, d, 2)
		}
	}
	// A pool without room for the segment isn't the one with most room.
	n.setFree(t, map[string]int64{"a": testSegment, "b": testSegment / 2})
	n.put(t, "pools", "fits", data[:testSegment-1], true)
	if pools := m.poolsOf(t, "pools", "fits"); !slices.Equal(pools, []string{"a"}) {
		t.Errorf("in %v, want a", pools)
	}
	n.setFree(t, map[string]int64{"a": 10 << 20, "b": 100 << 20})
	m.nodes[2].stop(t)
	for connected(n.o.Conn("n2")) {
		must(t, pause(testContext(t)))
	}
	start := time.Now()
	n.put(t, "pools", "elsewhere", data, true)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a put that doesn't need the pool took %v", took)
	}
	if pools := m.poolsOf(t, "pools", "elsewhere"); !slices.Equal(pools, []string{"a"}) {
		t.Errorf("in %v, want a", pools)
	}
	m.nodes[1].stop(t)
	for connected(n.o.Conn("n1")) {
		must(t, pause(testContext(t)))
	}
	_, err := n.Put(testContext(t), PutRequest{Bucket: "pools", Key: "none", SizeBytes: int64(len(data))}, unread{t}, nil)
	if fault.KindOf(err) != fault.Waiting || !strings.Contains(err.Error(), "pool ") || !strings.Contains(err.Error(), "is not connected") {
		t.Errorf("%v, want a word on the pool and the node that is missing", err)
	}
}

// TestDrainingTakesNothing: a draining drive or node gets no new payload, and
// isn't counted.
func TestDrainingTakesNothing(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{2, 1, 1, 1}})
	m.bucket("drain")
	ctx := testContext(t)
	n := m.nodes[0]
	drained := []string{m.nodes[0].drives[1].ID(), m.nodes[2].drives[0].ID()}
	_, err := n.ctl.Propose(ctx, &control.Command{MarkDrive: &control.MarkDrive{Drive: drained[0], Drain: true}})
	must(t, err)
	_, err = n.ctl.Propose(ctx, &control.Command{MarkNode: &control.MarkNode{Node: "n2", Drain: true}})
	must(t, err)
	for n.usable() != 3 {
		must(t, pause(ctx))
	}
	n.lookAt(ctx, 0)
	draining := 0
	for _, h := range n.Health() {
		if h.Draining != slices.Contains(drained, h.ID) {
			t.Errorf("%+v", h)
		}
		if h.Draining {
			draining++
		}
	}
	if draining != 2 {
		t.Errorf("%d drives drain, want 2", draining)
	}
	for i := range 10 {
		key, data := fmt.Sprint(i), randomBytes(InlineMaxBytes+1+i*100_000)
		n.put(t, "drain", key, data, true)
		m.wantCopies(t, "drain", key, data, 3, m.driveByID(drained[0]), m.driveByID(drained[1]))
	}
}

// TestPlaceCopy: one more copy goes away from the others, and stays in their
// pool as long as that takes payload.
func TestPlaceCopy(t *testing.T) {
	m := newMesh(t, meshConfig{
		drives: []int{1, 1, 1, 1, 1, 1},
		place: func(node int) (string, string) {
			return []string{"a", "a", "a", "a", "b", "b"}[node], []string{"x", "x", "y", "z", "x", "y"}[node]
		},
		options: func(_ int, o *Options) { o.HealthEvery = time.Hour },
	})
	ctx := testContext(t)
	n := m.nodes[0]
	n.setFree(t, map[string]int64{"a": 1 << 20, "b": 100 << 20})
	d := func(i int) string { return m.nodes[i].drives[0].ID() }
	place := func(what string, size int64, on []int, bad []int, want ...int) {
		t.Helper()
		seg := control.SegmentCopies{ID: dataio.NewID(), SizeBytes: size}
		for _, i := range on {
			seg.Drives = append(seg.Drives, d(i))
		}
		gone := map[string]bool{}
		for _, i := range bad {
			gone[d(i)] = true
		}
		for range 20 {
			seg.ID = dataio.NewID()
			got, ok := n.PlaceCopy(seg, gone)
			if ok != (len(want) > 0) || ok && !slices.ContainsFunc(want, func(i int) bool { return d(i) == got }) {
				t.Fatalf("%s: on %s (%v), want one of nodes %v", what, got, ok, want)
			}
		}
	}
	place("a zone that has none", 1000, []int{0, 2}, nil, 3)
	place("a bad copy's zone", 1000, []int{0, 2, 3}, []int{3}, 1)
	place("never where a bad one is", 1000, []int{0, 3}, []int{3}, 2)
	place("the second in a zone, if there must be", 1000, []int{0, 2, 3}, nil, 1)
	place("nowhere", 1000, []int{0, 1, 2, 3}, nil)
	place("nowhere with room in its pool", 2<<20, []int{0, 2}, nil)
	place("the other pool, without a copy", 1000, []int{4}, nil, 5)
	place("with most room, where all are bad", 1000, []int{0, 2}, []int{0, 2}, 4, 5)
	for i := range 4 {
		_, err := n.ctl.Propose(ctx, &control.Command{MarkDrive: &control.MarkDrive{Drive: d(i), Drain: true}})
		must(t, err)
	}
	for n.usable() != 2 {
		must(t, pause(ctx))
	}
	place("a drained pool's, elsewhere", 1000, []int{0, 2}, nil, 4, 5)
	place("and beside the copy there", 1000, []int{0, 2, 4}, []int{0, 2}, 5)
}
