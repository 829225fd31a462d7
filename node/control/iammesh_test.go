package control

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// carryOut carries out a command.
func carryOut(t *testing.T, x Index, c *Command) *Result {
	t.Helper()
	res, err := x.Propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// keyOf finds a key in what a node has, nil where there is none.
func keyOf(c *Control, id string) *iam.Key {
	rows := c.IAM()
	for i := range rows.Keys {
		if rows.Keys[i].ID == id {
			return &rows.Keys[i]
		}
	}
	return nil
}

// healthy are ages of copies in a healthy mesh, and how soon a revocation is
// everywhere.
const healthy = 5 * time.Second

// A key that is made, disabled and deleted at any node is so on all of them
// within five seconds, on the learner too, and at once where it was done. No
// node's copy gets older than that, while nothing happens and under load, and
// while leaders come and go it is fresh again soon.
func TestRevocationReachesAllNodes(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		m.settle("a b c, d", "a b c")
		pause(2 * freshEvery)
		within := func(what string, holds func(c *Control) bool) {
			t.Helper()
			began := time.Now()
			m.eventually(what, func() bool {
				return !slices.ContainsFunc(m.running(), func(c *Control) bool { return !holds(c) })
			})
			if took := time.Since(began); took > healthy {
				t.Errorf("%s after %v", what, took)
			}
		}
		carryOut(t, m.node(0), putUser("ann"))
		for i, c := range m.running() {
			id := fmt.Sprint("k", i)
			carryOut(t, c, putKey(id, "ann"))
			if keyOf(c, id) == nil {
				t.Errorf("node %s, where the key was made, doesn't have it", c.self)
			}
			within(id+" is known", func(c *Control) bool { return keyOf(c, id) != nil })
			carryOut(t, c, &Command{UpdateKey: &UpdateKey{ID: id, Disabled: true}})
			within(id+" is disabled", func(c *Control) bool { return keyOf(c, id).Disabled })
			carryOut(t, c, &Command{DeleteKey: &DeleteKey{ID: id}})
			within(id+" is gone", func(c *Control) bool { return keyOf(c, id) == nil })
		}
		check := func() {
			for _, c := range m.running() {
				if age := c.SystemAge(); age > healthy {
					t.Errorf("node %s has a copy that is %v old", c.self, age)
				}
			}
		}
		for range 200 {
			pause(100 * time.Millisecond)
			check()
		}
		// Also where nobody leads the data group: each group counts on its own.
		lost := m.index(m.leader(systemGroup))
		m.kill(lost)
		m.eventually("the copies are fresh again", func() bool {
			return !slices.ContainsFunc(m.running(), func(c *Control) bool { return c.SystemAge() > healthy })
		})
		for range 100 {
			pause(100 * time.Millisecond)
			check()
		}
	})
}

// A node that is cut off from the majority keeps what it has, and knows how old
// that is; afterwards it is up to date.
func TestCutOffNodeKeepsUsers(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		m.settle("a b c, d", "a b c")
		carryOut(t, m.node(0), putUser("ann"))
		carryOut(t, m.node(0), putKey("k", "ann"))
		m.agree()
		follower := m.follower(systemGroup)
		for _, cut := range []*Control{follower, m.node(3)} {
			carryOut(t, m.node(0), &Command{UpdateKey: &UpdateKey{ID: "k"}})
			m.agree()
			pause(2 * freshEvery)
			m.isolate(m.index(cut))
			began := time.Now()
			other := m.node((m.index(cut) + 1) % 3)
			carryOut(t, other, &Command{UpdateKey: &UpdateKey{ID: "k", Disabled: true}})
			for range 12 {
				pause(5 * time.Second)
				since := time.Since(began)
				if age := cut.SystemAge(); age < since-time.Second || age > since+healthy {
					t.Fatalf("%v after it was cut off node %s takes its copy for %v old", since, cut.self, age)
				}
				if key := keyOf(cut, "k"); key == nil || key.Disabled {
					t.Fatalf("it has %+v", key)
				}
				if age := other.SystemAge(); age > healthy {
					t.Errorf("node %s, which isn't cut off, has a copy of age %v", other.self, age)
				}
			}
			m.rejoin(m.index(cut))
			m.eventually("the node has caught up", func() bool { return cut.SystemAge() <= healthy })
			if !keyOf(cut, "k").Disabled {
				t.Error("its copy is fresh, and has a key that was disabled a minute ago")
			}
		}
	})
}

// Users and keys are there after a restart, before anybody else is, and come
// with a snapshot; what the hook was told last is always what there is.
func TestUsersSurviveRestartsAndSnapshots(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		told := &hooked{last: map[string]*iam.Rows{}}
		change := func(o *Options) {
			o.logBytes = 64 << 10
			o.Hooks.IAM = told.hook(o.Self)
		}
		for i := range 3 {
			m.open(i, change)
		}
		ready(t, m.running()...)
		carryOut(t, m.node(0), putUser("ann"))
		carryOut(t, m.node(0), putKey("k", "ann"))
		m.agree()
		m.kill(2)
		for i := range 400 { // more than the log holds
			c := putKey(fmt.Sprint("many", i), "ann")
			c.PutKey.Key.Comment = fmt.Sprintf("%0200d", i)
			carryOut(t, m.node(0), c)
		}
		carryOut(t, m.node(0), &Command{DeleteKey: &DeleteKey{ID: "k"}})
		m.eventually("the log is cut", func() bool {
			s, err := m.leader(systemGroup).Status(t.Context())
			return err == nil && s.Groups[0].First > 100
		})
		fetched := m.fetched.Load()
		c := m.open(2, change)
		if keyOf(c, "k") == nil {
			t.Error("what it had when it was killed is gone")
		}
		if c.SystemAge() < time.Hour {
			t.Errorf("it takes that for %v old", c.SystemAge())
		}
		ready(t, c)
		m.agree()
		if m.fetched.Load() == fetched {
			t.Error("no snapshot was fetched")
		}
		for i := range 3 {
			m.stop(i)
		}
		for i := range 3 {
			if got := len(m.open(i, change).IAM().Keys); got != 400 {
				t.Errorf("node %d has %d keys after a restart", i, got)
			}
		}
		ready(t, m.running()...)
		carryOut(t, m.node(1), &Command{DeleteUser: &DeleteUser{Name: "ann"}})
		m.agree()
		synctest.Wait()
		for _, c := range m.running() {
			rows := c.IAM()
			if len(rows.Users)+len(rows.Keys) != 0 {
				t.Errorf("node %s has %d users and %d keys", c.self, len(rows.Users), len(rows.Keys))
			}
			if told.of(c.self) != rows {
				t.Errorf("node %s was told another state last", c.self)
			}
		}
	})
}

// hooked notes what hooks were told last.
type hooked struct {
	mu   sync.Mutex
	last map[string]*iam.Rows
}

func (h *hooked) hook(name string) func(*iam.Rows) {
	return func(rows *iam.Rows) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.last[name] = rows
	}
}

func (h *hooked) of(name string) *iam.Rows {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[name]
}

// What was acknowledged of users and keys, a revocation above all, is there
// after a loss of power on all nodes.
func TestUsersSurviveCrash(t *testing.T) {
	for seed := range uint64(4) {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			rng := rand.New(rand.NewPCG(seed, 3))
			var disks []*vfs.MemFS
			for i := range m.disks {
				disks = append(disks, vfs.NewCrashableMem())
				makeDir(t, disks[i], "data")
				m.disks[i] = disks[i]
			}
			inData := func(o *Options) { o.Dir = "data" }
			for i := range 3 {
				m.open(i, inData)
			}
			m.sameMesh()
			carryOut(t, m.node(0), putUser("ann"))
			gone, kept := map[string]bool{}, map[string]bool{}
			for i := range 20 + rng.IntN(20) {
				id := fmt.Sprint("k", i)
				carryOut(t, m.node(rng.IntN(3)), putKey(id, "ann"))
				if kept[id] = true; rng.IntN(2) == 0 {
					carryOut(t, m.node(rng.IntN(3)), &Command{DeleteKey: &DeleteKey{ID: id}})
					delete(kept, id)
					gone[id] = true
				}
			}
			for i := range disks {
				m.disks[i] = disks[i].CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
			for i := range disks {
				m.stop(i)
			}
			for i := range disks {
				m.open(i, inData)
			}
			m.sameMesh()
			for _, c := range m.running() {
				if _, err := c.Read(t.Context(), &Query{Users: &UsersQuery{}}); err != nil {
					t.Fatal(err)
				}
				for id := range gone {
					if keyOf(c, id) != nil {
						t.Errorf("seed %d: key %s is back at node %s", seed, id, c.self)
					}
				}
				for id := range kept {
					if keyOf(c, id) == nil {
						t.Errorf("seed %d: key %s is lost at node %s", seed, id, c.self)
					}
				}
			}
			m.agree()
		})
	}
}

// boxKept is how long boxes are kept here, so that no test takes hours.
const boxKept = 20 * time.Second

// secrets are what nodes take for the mesh's secrets.
type secrets struct {
	mu sync.Mutex
	of map[string][][]byte
}

func secret(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func (s *secrets) set(node string, numbers ...byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string][][]byte{}
	}
	s.of[node] = nil
	for _, n := range numbers {
		s.of[node] = append(s.of[node], secret(n))
	}
}

func (s *secrets) option(o *Options) {
	name := o.Self
	o.boxKept = boxKept
	o.MeshSecrets = func() [][]byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.of[name]
	}
}

// opens gives what a mesh secret opens of a node's boxes.
func opens(c *Control, n byte) (iam.Master, error) {
	return iam.OpenMaster(c.IAM().Boxes, [][]byte{secret(n)})
}

// A mesh makes its master once. Mesh secrets are changed node by node, through
// all that is in between, and every node can open the master all the time; an
// old secret's box goes when nobody has had the secret for long.
func TestMasterAndItsBoxes(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		var s secrets
		all := []string{"a", "b", "c", "d"}
		for i, name := range all {
			s.set(name, 1)
			m.open(i, s.option)
		}
		ready(t, m.running()...)
		var master iam.Master
		m.eventually("every node has a master", func() bool {
			for _, c := range m.running() {
				var err error
				if master, err = opens(c, 1); err != nil {
					return false
				}
			}
			return true
		})
		same := func(n byte) {
			t.Helper()
			for _, c := range m.running() {
				if got, err := opens(c, n); err != nil || !got.Equal(master) {
					t.Fatalf("node %s, secret %d: %v", c.self, n, err)
				}
			}
		}
		same(1)
		// Whoever leads makes no other, and nobody else can.
		old := m.leader(systemGroup)
		m.restartWith(m.index(old), s.option)
		ready(t, m.running()...)
		pause(5 * time.Second)
		same(1)
		boxes := []iam.Box{iam.NewMaster().Seal(secret(1))}
		for _, c := range m.running() {
			_, err := c.Propose(t.Context(), &Command{SealMaster: &SealMaster{Boxes: boxes}})
			if fault.KindOf(err) != fault.InvalidArgument {
				t.Errorf("a command of somebody else's: %v", err)
			}
		}
		for _, numbers := range [][]byte{{1, 2}, {2, 1}} {
			for _, name := range all {
				s.set(name, numbers...)
				pause(time.Second)
				same(1)
			}
			pause(2 * stewardEvery)
			same(2)
		}
		for _, name := range all {
			s.set(name, 2)
			pause(boxKept / 2)
			same(1)
			pause(boxKept / 2)
			same(2)
		}
		m.eventually("the old secret has no box", func() bool {
			_, err := opens(m.leader(systemGroup), 1)
			return errors.Is(err, iam.ErrMaster)
		})
		same(2)
	})
}

// A box stays while a node is away, which may come back with nothing but its
// secret, and while one has no secret of another box; and a leader that can't open the
// master leaves it alone.
func TestBoxesOfNodesThatAreAway(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		var s secrets
		for i := range 3 {
			s.set(nodeName(i), 1)
			m.open(i, s.option)
		}
		ready(t, m.running()...)
		m.eventually("there is a master", func() bool { _, err := opens(m.node(0), 1); return err == nil })
		away := m.index(m.follower(systemGroup))
		m.kill(away)
		for i := range 3 {
			if i != away {
				s.set(nodeName(i), 2, 1)
			}
		}
		pause(10 * time.Second)
		for i := range 3 {
			if i != away {
				s.set(nodeName(i), 2)
			}
		}
		pause(3 * boxKept)
		if _, err := opens(m.leader(systemGroup), 1); err != nil {
			t.Fatalf("the box of a node that is away: %v", err)
		}
		ready(t, m.open(away, s.option)) // with 1 alone
		pause(3 * boxKept)
		if _, err := opens(m.node(away), 1); err != nil {
			t.Fatalf("the box of the only secret of a node: %v", err)
		}
		s.set(nodeName(away), 9)
		pause(3 * boxKept)
		if _, err := opens(m.node(away), 1); err != nil {
			t.Fatalf("a box that a node may need, which has no other: %v", err)
		}
		before := m.node(away).IAM().Boxes
		for i := range 3 {
			s.set(nodeName(i), 7)
		}
		pause(3 * boxKept)
		if after := m.node(away).IAM().Boxes; len(after) != len(before) {
			t.Errorf("nodes that can't open the master left %d boxes of %d", len(after), len(before))
		}
	})
}

// restartWith is restart with options.
func (m *mesh) restartWith(i int, change func(*Options)) *Control {
	m.t.Helper()
	m.stop(i)
	return m.open(i, change)
}
