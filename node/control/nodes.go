package control

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

// What commands do to the topology.

// setNode writes a node's row and makes a new view of all.
func (m *machine) setNode(b *pebble.Batch, n *Node) (*outcome, error) {
	m.identity.Epoch++
	if err := errors.Join(put(b, nodeKey(n.Name), n), put(b, identityKey(), &m.identity)); err != nil {
		return nil, err
	}
	return &outcome{}, m.loadTopology(b)
}

func nodeSubject(name string) string { return "node " + name }

// node finds a node that a command names.
func (m *machine) node(name string) (Node, error) {
	n := m.topology.Node(name)
	if n == nil {
		return Node{}, fault.New(fault.NotFound, nodeSubject(name), "isn't part of the mesh")
	}
	return *n, nil
}

func (m *machine) admitNode(b *pebble.Batch, c *AdmitNode) (*outcome, error) {
	if m.topology.Node(c.Node) != nil {
		return nil, fault.New(fault.AlreadyExists, nodeSubject(c.Node), "is part of the mesh already")
	}
	if len(m.topology.Nodes) >= maxNodes {
		return nil, fault.New(fault.QuotaExceeded, nodeSubject(c.Node), "the mesh has %d nodes already", maxNodes)
	}
	for i := range m.topology.Nodes {
		if n := &m.topology.Nodes[i]; n.URL == c.URL {
			return nil, fault.New(fault.Conflict, nodeSubject(c.Node), "has the address of node %s, %s", n.Name, n.URL)
		}
	}
	return m.setNode(b, &Node{Name: c.Node, URL: c.URL})
}

func (m *machine) bindNode(b *pebble.Batch, c *BindNode) (*outcome, error) {
	n, err := m.node(c.Node)
	if err != nil {
		return nil, err
	}
	switch {
	case n.RaftID == c.RaftID:
		return &outcome{}, nil
	case n.RaftID != 0:
		return nil, errOtherID(c.Node)
	}
	n.RaftID, n.URL, n.Awaited = c.RaftID, c.URL, false
	n.Drives, n.DrainingDrives = nil, nil // those of a predecessor are gone with it
	return m.setNode(b, &n)
}

// errOtherID is the refusal of a node whose name belongs to another's data.
func errOtherID(name string) error {
	return fault.New(fault.Conflict, nodeSubject(name),
		"is part of the mesh with other data than it comes with now: its data directory was lost or changed. If that is so for good, let it begin anew by: gridloom node replace %s", name)
}

func (m *machine) markNode(b *pebble.Batch, c *MarkNode) (*outcome, error) {
	n, err := m.node(c.Node)
	if err != nil {
		return nil, err
	}
	if n.Leaving && !c.Leave {
		return nil, fault.New(fault.Conflict, nodeSubject(c.Node), "is leaving the mesh")
	}
	before := n
	switch {
	case c.Drain:
		n.Draining = true
	case c.Undo:
		n.Draining = false
	case c.Leave:
		if others := m.staying(c.Node); others == 0 {
			return nil, fault.New(fault.Conflict, nodeSubject(c.Node), "is the only one there is")
		}
		n.Leaving = true
	case c.Replace:
		n.RaftID, n.Awaited, n.Draining = 0, true, false
	}
	if n.RaftID == before.RaftID && n.Awaited == before.Awaited && n.Draining == before.Draining && n.Leaving == before.Leaving {
		return &outcome{}, nil
	}
	return m.setNode(b, &n)
}

func (m *machine) markDrive(b *pebble.Batch, c *MarkDrive) (*outcome, error) {
	found, _ := m.topology.Drive(c.Drive)
	if found == nil {
		return nil, fault.New(fault.NotFound, "drive "+c.Drive, "is on no node of the mesh")
	}
	n := *found
	at, drains := slices.BinarySearch(n.DrainingDrives, c.Drive)
	n.DrainingDrives = slices.Clone(n.DrainingDrives) // views share the topology
	switch {
	case c.Drain == drains && !c.Remove:
		return &outcome{}, nil
	case c.Drain:
		n.DrainingDrives = slices.Insert(n.DrainingDrives, at, c.Drive)
	case drains:
		n.DrainingDrives = nilIfEmpty(slices.Delete(n.DrainingDrives, at, at+1))
	}
	if c.Remove {
		n.Drives = nilIfEmpty(slices.DeleteFunc(slices.Clone(n.Drives), func(d string) bool { return d == c.Drive }))
	}
	return m.setNode(b, &n)
}

// staying counts the nodes that would be left without one: those that are
// there and not leaving.
func (m *machine) staying(without string) (count int) {
	for i := range m.topology.Nodes {
		if n := &m.topology.Nodes[i]; n.Name != without && !n.Leaving && n.RaftID != 0 {
			count++
		}
	}
	return count
}

func (m *machine) forgetNode(b *pebble.Batch, c *ForgetNode) (*outcome, error) {
	n := m.topology.Node(c.Node)
	if n == nil || !n.Leaving {
		return &outcome{}, nil
	}
	m.identity.Epoch++
	if err := errors.Join(remove(b, nodeKey(c.Node)), put(b, identityKey(), &m.identity)); err != nil {
		return nil, err
	}
	return &outcome{}, m.loadTopology(b)
}
