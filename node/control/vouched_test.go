package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// lead hands both groups to a node.
func (m *mesh) lead(c *Control) {
	m.t.Helper()
	for _, g := range []replica.GroupID{systemGroup, dataGroup} {
		m.eventually("node "+c.self+" leads "+groupName(g), func() bool {
			leader := m.leader(g)
			if leader != c {
				_ = leader.engine.Load().Transfer(m.t.Context(), g, c.raftID)
				pause(time.Second)
			}
			return leader == c
		})
	}
}

// knowing has a node's configuration name these nodes alone, and its grid, too.
func (m *mesh) knowing(i int, all ...int) func(*Options) {
	for j := range m.disks {
		if j != i {
			_ = m.Node(i).RemoveHost(m.Name(j))
		}
	}
	for _, j := range all {
		if j != i {
			if err := m.Node(i).AddHost(m.Name(j)); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	return func(o *Options) { o.Peers = m.peers(all...) }
}

// A node may join by any member, whoever leads.
func TestJoiningByAnyMember(t *testing.T) {
	for leader := range 3 {
		virtualOf(t, 3, 4, func(t *testing.T, m *mesh) {
			m.openAll()
			id := m.sameMesh()
			b := createBucket(t, m.node(0), "b")
			m.lead(m.node(leader))
			if err := m.node(1).AdmitNode(t.Context(), "d", m.Name(3)); err != nil {
				t.Fatal(err)
			}
			d := m.open(3, m.knowing(3, 1, 3))
			ready(t, d)
			m.settle("a b c, d", "a b c")
			mustPut(t, d, b, "k", "e")
			if m.sameMesh() != id || m.leader(systemGroup) != m.node(leader) {
				t.Error("another mesh, or leader")
			}
		})
	}
}

// joined is a mesh of the founders a, b, c whose a has left, after d and e have
// joined. It is led by d, which no founder's configuration names.
func (m *mesh) joined() {
	m.t.Helper()
	m.openAll()
	for i := 3; i < 5; i++ {
		if err := m.node(0).AdmitNode(m.t.Context(), nodeName(i), m.Name(i)); err != nil {
			m.t.Fatal(err)
		}
		ready(m.t, m.open(i, nil))
	}
	m.settle("a b c d e", "a b c d e")
	a := m.node(0)
	m.remove(m.node(1), "a")
	m.left(a)
	m.stop(0)
	m.eventually("three vote", func() bool { return len(m.roles(systemGroup)) == len("b c d, e") })
}

// A node that has lost its data comes anew with the configuration that it had,
// though a leads no more and is gone.
func TestReplacedNodeKnowsOldNodes(t *testing.T) {
	virtualOf(t, 3, 5, func(t *testing.T, m *mesh) {
		m.joined()
		id := m.sameMesh()
		m.lead(m.node(3))
		m.kill(1)
		if err := m.node(3).ReplaceNode(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		m.disks[1] = vfs.NewMem()
		b := m.open(1, m.knowing(1, 0, 1, 2))
		ready(t, b)
		if m.sameMesh() != id {
			t.Error("another mesh")
		}
		m.agree()
	})
}

// A node that was bound and has got nothing yet gets it from whoever leads when
// it starts again.
func TestBoundNodeFindsANewLeader(t *testing.T) {
	virtualOf(t, 3, 5, func(t *testing.T, m *mesh) {
		m.joined()
		m.lead(m.node(2))
		m.kill(1)
		if err := m.node(2).ReplaceNode(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		m.disks[1] = vfs.NewMem()
		b := m.open(1, func(o *Options) {
			m.knowing(1, 0, 1, 2)(o)
			o.Fetch = nil // nothing comes
		})
		m.eventually("b is bound", func() bool { return m.node(3).Topology().Node("b").RaftID == b.raftID })
		m.kill(1)
		m.lead(m.node(3))
		if b := m.open(1, m.knowing(1, 0, 1, 2)); b.Topology().Epoch != 0 {
			t.Error("it had got something")
		} else {
			ready(t, b)
		}
		m.sameMesh()
	})
}

// What is believed about who else is in a mesh.
func TestWhoIsVouchedFor(t *testing.T) {
	virtualOf(t, 3, 5, func(t *testing.T, m *mesh) {
		d := m.open(3, m.knowing(3, 1, 3))
		others := []founder{
			{Name: "a", URL: m.Name(0), RaftID: 11},
			{Name: "b", URL: "http://elsewhere:80", RaftID: 12}, // where b is, the configuration says
			{Name: "c", URL: m.Name(1), RaftID: 13},             // and that there is b
			{Name: "d", URL: "http://elsewhere:80", RaftID: 14},
			{Name: "x", URL: m.Name(3), RaftID: 15}, // which is d itself
			{Name: "y", URL: "not a URL", RaftID: 16},
			{Name: "a", URL: m.Name(4), RaftID: 17}, // a second one
		}
		good := greeting{Name: "b", Deployment: "m", Admitted: true, Founders: others}
		for what, change := range map[string]func(*greeting){
			"blank":                            func(g *greeting) { g.Blank = true },
			"without a mesh's id":              func(g *greeting) { g.Deployment = "" },
			"of a mesh that doesn't expect it": func(g *greeting) { g.Admitted = false },
			"of a mesh that expects another of its name": func(g *greeting) { g.Bound = 5 },
		} {
			g := good
			change(&g)
			if d.believe("b", &g); d.vouched.Load() != nil {
				t.Errorf("a node %s was believed", what)
			}
		}
		for _, name := range []string{"a", "d"} {
			if d.believe(name, &good); d.vouched.Load() != nil {
				t.Errorf("node %s was believed, which d doesn't know, or is", name)
			}
		}
		d.believe("b", &good)
		if v := d.vouched.Load(); v == nil || len(v.nodes) != 1 || v.nodes[0] != others[0] || v.deployment != "m" {
			t.Errorf("believed: %+v", v)
		}
		if got := strings.Join(d.grid.Hosts(), " "); got != m.Name(0)+" "+m.Name(1) {
			t.Errorf("the grid's hosts are %s", got)
		}
		if d.url("a") != m.Name(0) || d.url("b") != m.Name(1) || d.url("d") != m.Name(3) || d.nameOf(11) != "a" {
			t.Errorf("a is at %s, b at %s, d at %s", d.url("a"), d.url("b"), d.url("d"))
		}
		// Who isn't named any more isn't let in any more.
		none := good
		none.Founders = nil
		d.believe("b", &none)
		if got := strings.Join(d.grid.Hosts(), " "); got != m.Name(1) || d.url("a") != "" {
			t.Errorf("the grid's hosts are %s, and a is at %q", got, d.url("a"))
		}
		// The first state that it gets must be that mesh's.
		if err := d.adopt("another"); fault.KindOf(err) != fault.WrongMesh {
			t.Errorf("it adopted another mesh: %v", err)
		}
	})
}

// Nodes of two meshes in one configuration: as soon as both are heard, neither is
// joined.
func TestPeersOfTwoMeshes(t *testing.T) {
	virtualOf(t, 1, 3, func(t *testing.T, m *mesh) {
		c := m.open(2, m.knowing(2, 0, 1, 2))
		heard := map[string]*greeting{"a": {Name: "a", Deployment: "m", Admitted: true}, "b": {Name: "b", Deployment: "n", Admitted: true}}
		if _, err := c.judge(heard); fault.KindOf(err) != fault.WrongMesh || c.vouched.Load() != nil {
			t.Errorf("of two meshes: %v", err)
		}
		heard["b"].Deployment, heard["b"].Epoch = "m", 2
		if _, err := c.judge(heard); !errors.Is(err, errAdmitted) || c.vouched.Load().by != "b" {
			t.Errorf("of one mesh: %v", err)
		}
	})
}

// A node binds its own name, and no other that is expected.
func TestBindingAnothersName(t *testing.T) {
	virtualOf(t, 1, 3, func(t *testing.T, m *mesh) {
		a := m.openAll()[0]
		for i := 1; i < 3; i++ {
			if err := a.AdmitNode(t.Context(), nodeName(i), m.Name(i)); err != nil {
				t.Fatal(err)
			}
		}
		b := m.open(1, nil)
		ready(t, b)
		m.open(2, func(o *Options) { o.Peers = m.peers(2) }) // its own mesh: it asks nobody
		cmd := complete(&Command{BindNode: &BindNode{Node: "c", URL: m.Name(1), RaftID: 7}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := relayCall.Call(ctx, b.conn("a"), cmd); fault.KindOf(FromWire(err)) != fault.PermissionDenied {
			t.Errorf("b binds c's name: %v", err)
		}
		if n := a.Topology().Node("c"); n.RaftID != 0 {
			t.Errorf("c is bound: %+v", n)
		}
	})
}
