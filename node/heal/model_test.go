package heal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// TestRandom has everything happen to a mesh that can, at random, for some
// hours: drives that go, come back, fill, hang and lie, bits that flip,
// drains that begin and end, nodes that are added, objects that come and go, an
// index that is away, coordinators that change and overlap. The world looks at
// every change of the index for one that takes the last good copy away. When it
// is quiet again everything that can be saved must be as it should, what can't
// must be reported, and nothing may go on for ever.
func TestRandom(t *testing.T) {
	for i := range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) { randomRun(t, seed) })
		})
	}
}

// storm is a random run.
type storm struct {
	*world
	r       *rand.Rand
	healers []*Healer

	mu    sync.Mutex // guards what follows
	leads map[string]bool
	first string
}

func (s *storm) leader(self string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.leads[self]
}

// elect has another node coordinate, and sometimes two for a while.
func (s *storm) elect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = fmt.Sprintf("n%d", s.r.IntN(3)+1)
	if s.r.IntN(2) == 0 {
		s.leads = make(map[string]bool)
	}
	s.leads[s.first] = true
}

func (s *storm) settleLeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads = map[string]bool{s.first: true}
}

func randomRun(t *testing.T, seed uint64) {
	s := &storm{world: newWorld(t), r: rand.New(rand.NewPCG(seed, 6)), leads: make(map[string]bool)}
	for i := range 4 + s.r.IntN(3) {
		s.node(fmt.Sprintf("n%d", i+1), "default", []string{"", "z1", "z2"}[s.r.IntN(3)], 1+s.r.IntN(2))
	}
	if s.r.IntN(2) == 0 {
		for i := range 3 {
			s.node(fmt.Sprintf("p%d", i+1), "second", "", 1)
		}
	}
	s.elect()
	for i := range 3 {
		name := fmt.Sprintf("n%d", i+1)
		h, _ := s.healer(name, func(o *Options) {
			o.Leader = func() (string, bool) { return s.leader(name) }
			o.LookEvery, o.PendingEvery = 5*time.Second, 10*time.Second
		})
		s.healers = append(s.healers, h)
	}
	for range 120 {
		s.putRandom()
	}
	for range 40 {
		s.step()
		if s.r.IntN(3) > 0 {
			time.Sleep(time.Duration(s.r.IntN(30_000)) * time.Millisecond)
		} else {
			time.Sleep(time.Duration(s.r.IntN(40)) * time.Minute)
		}
	}
	s.calm()
	s.world.mu.Lock()
	n := len(s.segs)
	s.world.mu.Unlock()
	for _, h := range s.healers {
		if _, self := s.leader(h.o.Self); self {
			s.ends(h)
		}
	}
	t.Logf("%d objects, %d copies, %d checks, %d reads, %d proposals", n, s.n().copies, s.n().checks, s.n().reads, s.n().proposals)
}

// ends checks how it ends.
func (s *storm) ends(h *Healer) {
	t := s.t
	s.until(time.Minute, "led", func() bool { return s.status2(h).Leader != "" })
	time.Sleep(20 * time.Minute) // whoever is away is lost by now, garbage is gone
	s.reclaim()
	round := s.status(h).Scrub.Round
	if err := h.Start(t.Context(), StartRequest{Verify: true}); err != nil {
		t.Fatal(err)
	}
	s.until(time.Hour, "verified", func() bool { c := s.status(h).Scrub; return c.Round > round && !c.Running })
	s.reclaim()
	s.well(8 * time.Hour)
	s.world.mu.Lock()
	hopeless := 0
	for id, seg := range s.segs {
		if !slices.ContainsFunc(seg.drives, func(d string) bool { return s.goodLocked(d, id) }) {
			hopeless++
			if !seg.lost {
				t.Errorf("%s has no good copy, and nobody but healing can have taken it", seg.key)
			}
		}
	}
	s.world.mu.Unlock()
	if err := h.Start(t.Context(), StartRequest{Verify: true}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Minute)
	st := s.status(h)
	if int(st.UnrecoverableCount) != hopeless || len(st.Unrecoverable) != min(hopeless, listMax) {
		t.Errorf("%d segments are lost, %d are reported: %+v", hopeless, st.UnrecoverableCount, st.Unrecoverable)
	}
	for _, d := range st.Draining {
		if d.LeftSegments > 0 && d.Blocked == "" {
			t.Errorf("%s %s isn't empty, and nothing is said to stop it: %+v", d.Kind, d.Name, d)
		}
	}
	before := s.n()
	time.Sleep(2 * time.Hour)
	// What is lost is looked at again, less and less often.
	if s.n().copies-before.copies > 30*hopeless || s.n().checks-before.checks > 30*hopeless {
		t.Errorf("in two quiet hours %d copies and %d checks were made, with %d segments lost", s.n().copies-before.copies, s.n().checks-before.checks, hopeless)
	}
	if n := s.n().reads - before.reads; n > 2*360+2000 {
		t.Errorf("in two quiet hours the index was read %d times", n)
	}
	if n := s.n().proposals - before.proposals; n > 100 {
		t.Errorf("in two quiet hours %d commands were proposed", n)
	}
	for id := range s.garbageOfGone() {
		t.Errorf("the garbage of drive %s, which is gone, is still listed", id)
	}
}

func (s *storm) garbageOfGone() map[string]bool {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	gone := make(map[string]bool)
	for id, of := range s.garbage {
		if n, _ := s.topo.Drive(id); n == nil && len(of) > 0 {
			gone[id] = true
		}
	}
	return gone
}

// putRandom puts an object as the put path does, sometimes short of a copy.
func (s *storm) putRandom() {
	s.world.mu.Lock()
	s.next++
	seg := control.SegmentCopies{SizeBytes: int64(1 + s.r.IntN(16<<20))}
	s.world.mu.Unlock()
	for range 3 {
		id, ok := s.PlaceCopy(seg, nil)
		if !ok {
			break
		}
		seg.Drives = append(seg.Drives, id)
	}
	if len(seg.Drives) == 0 {
		return
	}
	short := len(seg.Drives) > 1 && s.r.IntN(6) == 0
	if short {
		seg.Drives = seg.Drives[:len(seg.Drives)-1]
	}
	id := s.put(seg.SizeBytes, seg.Drives...)
	if short {
		s.short(id)
	}
}

func (s *storm) someDrive() string {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	ids := slices.Sorted(maps.Keys(s.drives))
	return ids[s.r.IntN(len(ids))]
}

func (s *storm) someSegment() (id [16]byte, drive string) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(s.segs), func(a, b [16]byte) int { return strings.Compare(string(a[:]), string(b[:])) })
	if len(keys) == 0 {
		return id, ""
	}
	id = keys[s.r.IntN(len(keys))]
	drives := slices.DeleteFunc(slices.Clone(s.segs[id].drives), func(d string) bool { return s.drives[d] == nil })
	if len(drives) == 0 {
		return id, ""
	}
	return id, drives[s.r.IntN(len(drives))]
}

// step has one thing happen.
func (s *storm) step() {
	r := s.r
	switch n := r.IntN(100); {
	case n < 12:
		s.away(s.someDrive(), r.IntN(3) > 0)
	case n < 15:
		if id := s.someDrive(); len(s.drives) > 4 {
			s.remove(id)
		}
	case n < 30:
		if id, drive := s.someSegment(); drive != "" {
			how := []string{"missing", "corrupted", "size", "unreadable"}[r.IntN(4)]
			s.spoil(drive, id, how)
			if r.IntN(2) == 0 {
				s.healers[r.IntN(3)].BadCopy(id, drive, how)
			}
		}
	case n < 38:
		s.drain(s.someDrive(), r.IntN(2) == 0)
	case n < 42:
		s.node(fmt.Sprintf("x%d", s.next), []string{"default", "second"}[r.IntN(2)], "", 1)
		s.world.mu.Lock()
		s.next++
		s.world.mu.Unlock()
	case n < 52:
		for range r.IntN(20) {
			s.putRandom()
		}
	case n < 57:
		if id, drive := s.someSegment(); drive != "" {
			s.forget(id)
		}
	case n < 65:
		s.reclaim()
	case n < 72:
		s.elect()
	case n < 76:
		s.settleLeader()
	case n < 82:
		s.changeDrive(func(d *fakeDrive) {
			d.state = []dataio.State{dataio.Online, dataio.Degraded, dataio.ReadOnly, dataio.Suspect}[r.IntN(4)]
			d.since = time.Now()
		})
	case n < 85:
		s.changeDrive(func(d *fakeDrive) { d.hang = r.IntN(3) == 0 })
	case n < 88:
		s.changeDrive(func(d *fakeDrive) { d.total = d.used + int64(r.IntN(1<<30)) })
	case n < 92:
		share, salt := uint8(r.IntN(100)), uint8(r.IntN(256))
		s.world.mu.Lock()
		s.copyErr = func(drive string, id [16]byte) error {
			if id[1]^salt < share {
				return fault.New(fault.Unavailable, drive, "the storm says no")
			}
			return nil
		}
		s.world.mu.Unlock()
	case n < 95:
		until := time.Now().Add(time.Duration(r.IntN(20)) * time.Minute)
		s.world.mu.Lock()
		s.indexErr = func() error {
			if time.Now().Before(until) {
				return fault.New(fault.Unavailable, "index", "the storm has it")
			}
			return nil
		}
		s.world.mu.Unlock()
	default:
		h := s.healers[r.IntN(3)]
		if t, err := h.current(); err == nil {
			if r.IntN(2) == 0 {
				t.start(StartRequest{Verify: r.IntN(2) == 0})
			} else {
				t.askRebalance(r.IntN(4) > 0)
			}
		}
	}
}

func (s *storm) changeDrive(f func(*fakeDrive)) {
	id := s.someDrive()
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	f(s.drives[id])
}

// calm ends all trouble but what is drained, gone or spoilt.
func (s *storm) calm() {
	s.world.mu.Lock()
	for _, d := range s.drives {
		d.away, d.hang, d.state, d.since, d.total = false, false, dataio.Online, time.Time{}, 1<<40
	}
	s.copyErr, s.indexErr = nil, nil
	s.world.mu.Unlock()
	s.settleLeader()
	// Something must be left to put copies on.
	for i := range 3 {
		s.node(fmt.Sprintf("y%d", i), "default", "", 1)
	}
}
