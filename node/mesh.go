package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// statusCall is what the nodes ask each other about themselves: services have
// ids 400–499.
var statusCall = grid.NewSingle[statusRequest, statusReply](400, "cluster.status")

// peersMayCall says for each handler of the grid that a peer may call it, which
// is whoever has proven the mesh secret, or by a certificate to be a node. What
// isn't here isn't served: a node that has such a handler doesn't open.
func peersMayCall(id grid.HandlerID) bool {
	switch id {
	case 100, 101, 105, // the index: propose, read, relay
		102, 103, 104, // greetings, raft's messages, snapshots: from those that are about to join, too
		200, 201, 202, // payload: read, write, remove
		204, 205, 206, // drives' health, copies made, copies checked
		210, 211, 212, 213, // heal: status, start, rebalance, a bad copy's report
		300,           // resources
		310, 311, 312, // samples, probes, the time
		320, 321, // calls as they happen, logs
		400: // status
		return true
	}
	return false
}

// checkHandlers makes sure that each handler's callers were thought of.
func checkHandlers(m *grid.Manager) error {
	for _, h := range m.Handlers() {
		if !peersMayCall(h.ID) {
			return fmt.Errorf("handler %d (%s) of the grid has no permission", h.ID, h.Name)
		}
	}
	return nil
}

// askTimeout bounds what one silent node can cost a question to all of them.
const askTimeout = 2 * time.Second

// mesh answers for every node: for this one from memory, for the others by
// asking them all at once.
type mesh struct {
	self      string
	version   string
	urls      func() map[string]string // name to base URL of the peer listener, this node included
	grid      *grid.Manager
	control   *control.Control
	collector *observability.Collector
	drives    func() driveSets            // this node's
	health    func() []object.DriveHealth // of all drives, as of the last look
	storage   *storage
	log       *slog.Logger

	certificates func() []listenerCertificate // this node's

	watching watching
	probing  probing
}

// register serves the other nodes' questions.
func (m *mesh) register() error {
	for _, register := range []func() error{m.registerResources, m.registerWatch, m.registerProbes} {
		if err := register(); err != nil {
			return err
		}
	}
	return statusCall.Register(m.grid, func(ctx context.Context, _ *statusRequest) (*statusReply, error) {
		return m.status(ctx), nil
	})
}

// status describes this node.
func (m *mesh) status(ctx context.Context) *statusReply {
	reply := &statusReply{Version: m.version}
	if err := m.control.Ready(); err != nil {
		reply.NotReady = err.Error()
	}
	if s, err := m.control.Status(ctx); err == nil { // a node that stops has none
		reply.IndexFull, reply.IndexFree = s.Full, s.FreeBytes
		for i := range s.Groups {
			reply.Groups = append(reply.Groups, describeGroup(&s.Groups[i]))
		}
	}
	drives := m.drives()
	for _, d := range drives.open {
		s := driveStatus{ID: d.ID(), Path: d.Path(), State: uint8(d.State())}
		if u, err := d.Usage(); err == nil {
			s.Total, s.Used, s.Free = u.TotalBytes, u.UsedBytes, u.FreeBytes
		}
		reply.Drives = append(reply.Drives, s)
	}
	reply.Drives = append(reply.Drives, drives.closed...)
	reply.Certificates = m.certificateStatuses()
	return reply
}

// certificateStatuses are the certificates that this node's listeners show.
func (m *mesh) certificateStatuses() (all []certificateStatus) {
	for _, c := range m.certificates() {
		all = append(all, certificateStatus{
			Listener: c.listener, Names: c.Names, Issuer: c.Issuer, Fingerprint: c.Fingerprint,
			NotBefore: c.NotBefore.Unix(), NotAfter: c.NotAfter.Unix(),
		})
	}
	return all
}

func describeGroup(g *control.GroupStatus) groupStatus {
	out := groupStatus{Name: g.Name, Leader: g.Leader, Leads: g.Leads, Term: g.Term, Commit: g.Commit, Applied: g.Applied}
	for _, member := range g.Members {
		out.Members = append(out.Members, memberStatus{
			Node: member.Node, Role: member.Role, Match: member.Match, Lag: member.Lag, Known: member.Known,
		})
	}
	return out
}

// describeCertificate reckons what is left by this node's clock.
func describeCertificate(c *certificateStatus) api.CertificateInfo {
	notAfter := time.Unix(c.NotAfter, 0)
	return api.CertificateInfo{
		Listener: c.Listener, Names: c.Names, Issuer: c.Issuer, Fingerprint: c.Fingerprint,
		NotBefore: time.Unix(c.NotBefore, 0), NotAfter: notAfter, Left: time.Until(notAfter),
	}
}

// names lists every node, sorted.
func (m *mesh) names() []string { return sortedKeys(m.urls()) }

// each calls ask for every name at once, each within askTimeout.
func each(ctx context.Context, names []string, ask func(ctx context.Context, i int, name string)) {
	eachWithin(ctx, askTimeout, names, ask)
}

func eachWithin(ctx context.Context, timeout time.Duration, names []string, ask func(ctx context.Context, i int, name string)) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { ask(ctx, i, name) })
	}
	wg.Wait()
}

// conn gives the connection with a node.
func (m *mesh) conn(name string) *grid.Connection { return m.grid.Connection(m.urls()[name]) }

// Describe describes the mesh as this node sees it, with what the leader of
// each group knows of its members.
func (m *mesh) Describe(ctx context.Context) (*api.ClusterInfo, error) {
	names, urls, topology := m.names(), m.urls(), m.control.Topology()
	health := map[string]object.DriveHealth{}
	for _, d := range m.health() {
		health[d.ID] = d
	}
	info := &api.ClusterInfo{DeploymentID: m.control.Deployment(), Node: m.self, Nodes: make([]api.NodeInfo, len(names))}
	replies := make([]*statusReply, len(names))
	each(ctx, names, func(ctx context.Context, i int, name string) {
		n := api.NodeInfo{Name: name, PeerURL: urls[name]}
		if t := topology.Node(name); t != nil {
			n.Draining, n.Leaving, n.Pool, n.Zone = t.Draining, t.Leaving, t.Pool, t.Zone
		}
		status, err := m.status(ctx), error(nil)
		if name != m.self {
			status, err = statusCall.Call(ctx, m.conn(name), &statusRequest{})
		}
		if err != nil {
			n.NotReady = "it does not answer: " + err.Error()
			n.Drives = describeDrives(topology, name, nil, health)
			info.Nodes[i] = n
			return
		}
		replies[i] = status
		n.Up, n.Version, n.NotReady = true, status.Version, status.NotReady
		n.IndexFull, n.IndexFree = status.IndexFull, status.IndexFree
		n.Drives = describeDrives(topology, name, status.Drives, health)
		for _, c := range status.Certificates {
			n.Certificates = append(n.Certificates, describeCertificate(&c))
		}
		info.Nodes[i] = n
	})
	m.compareClocks(info.Nodes)
	info.Groups = groups(replies, slices.Index(names, m.self))
	m.explain(ctx, info.Groups)
	for i := range info.Nodes {
		info.Nodes[i].Index = keepsIndex(info.Groups, info.Nodes[i].Name)
	}
	info.Warnings = api.Warnings(info)
	return info, nil
}

// explain fills in why the groups' members stay as they are, which this node
// knows of the leader that it hears.
func (m *mesh) explain(ctx context.Context, groups []api.GroupInfo) {
	s, err := m.control.Status(ctx)
	if err != nil {
		return // a node that stops has none
	}
	for i := range groups {
		for j := range s.Groups {
			if s.Groups[j].Name == groups[i].Name {
				groups[i].Waits = s.Groups[j].Waits
			}
		}
	}
}

// describeDrives describes a node's drives: those that it tells of, and those
// that the mesh knows of besides.
func describeDrives(t *control.Topology, node string, told []driveStatus, health map[string]object.DriveHealth) []api.DriveInfo {
	var all []api.DriveInfo
	add := func(d api.DriveInfo) {
		h := health[d.ID]
		d.Node = node
		if d.State != dataio.Online.String() { // which its node knows best
			d.UnwellSince = h.Since
		}
		if n := t.Node(node); n != nil {
			d.Pool, d.Zone = n.Pool, n.Zone
		}
		if of, draining := t.Drive(d.ID); of != nil && of.Name == node {
			d.Draining = draining
		}
		all = append(all, d)
	}
	for _, d := range told {
		add(api.DriveInfo{
			ID: d.ID, Path: d.Path, State: dataio.State(d.State).String(), Reachable: d.Error == "", Error: d.Error,
			TotalBytes: d.Total, UsedBytes: d.Used, FreeBytes: d.Free,
		})
	}
	n := t.Node(node)
	if n == nil {
		return all
	}
	for _, id := range n.Drives {
		if slices.ContainsFunc(told, func(d driveStatus) bool { return d.ID == id }) {
			continue
		}
		d := api.DriveInfo{ID: id} // its sizes as they were last seen
		if h, ok := health[id]; ok {
			d.TotalBytes, d.UsedBytes, d.FreeBytes = h.TotalBytes, h.UsedBytes, h.FreeBytes
			d.State = h.State.String()
		}
		add(d)
	}
	return all
}

// keepsIndex tells whether a node has a copy of the records.
func keepsIndex(groups []api.GroupInfo, node string) bool {
	return slices.ContainsFunc(groups, func(g api.GroupInfo) bool {
		return g.Name != "system" && slices.ContainsFunc(g.Members, func(m api.MemberInfo) bool { return m.Node == node })
	})
}

// groups merges what the nodes say of the groups: the newest leader's word,
// where it is heard, and otherwise this node's, or another's.
func groups(replies []*statusReply, self int) []api.GroupInfo {
	best := map[string]groupStatus{}
	var order []string
	weigh := func(g groupStatus, own bool) uint64 {
		w := g.Term * 4
		if g.Leads {
			w += 2
		}
		if own {
			w++
		}
		return w
	}
	weight := map[string]uint64{}
	for i, r := range replies {
		if r == nil {
			continue
		}
		for _, g := range r.Groups {
			w := weigh(g, i == self)
			if old, ok := weight[g.Name]; !ok {
				order = append(order, g.Name)
			} else if old >= w {
				continue
			}
			best[g.Name], weight[g.Name] = g, w
		}
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(cmp.Compare(rankGroup(a), rankGroup(b)), cmp.Compare(a, b)) })
	out := make([]api.GroupInfo, 0, len(order))
	for _, name := range order {
		g := best[name]
		info := api.GroupInfo{Name: g.Name, Leader: g.Leader, Term: g.Term, Commit: g.Commit, Applied: g.Applied}
		for _, m := range g.Members {
			info.Members = append(info.Members, api.MemberInfo{Node: m.Node, Role: m.Role, Match: m.Match, Lag: m.Lag, Known: m.Known})
		}
		slices.SortFunc(info.Members, func(a, b api.MemberInfo) int { return cmp.Compare(a.Node, b.Node) })
		out = append(out, info)
	}
	return out
}

// rankGroup puts the system group first.
func rankGroup(name string) int {
	if name == "system" {
		return 0
	}
	return 1
}

// compareClocks fills in by how much each clock is off, from what the
// handshakes of this node's connections have shown.
func (m *mesh) compareClocks(nodes []api.NodeInfo) {
	ahead := map[string]time.Duration{} // of this node's, by name
	for i := range nodes {
		n := &nodes[i]
		switch {
		case n.Name == m.self:
			ahead[n.Name] = 0
		case n.Up:
			ahead[n.Name] = m.grid.Connection(n.PeerURL).Stats().ClockOffset
		}
	}
	offsets := clockOffsets(ahead)
	for i := range nodes {
		nodes[i].ClockOffset, nodes[i].ClockKnown = offsets[nodes[i].Name]
	}
}

// clockOffsets is by how much each clock is ahead of the median of all that are
// known, of which ahead has by how much each is ahead of this node's. Of two each is
// compared with the other; where there is one alone nothing is known.
func clockOffsets(ahead map[string]time.Duration) map[string]time.Duration {
	clocks := slices.Collect(maps.Values(ahead))
	median, agreed := control.MedianClock(clocks)
	offsets := make(map[string]time.Duration, len(ahead))
	for name, own := range ahead {
		switch {
		case agreed:
			offsets[name] = own - median
		case len(clocks) == 2:
			offsets[name] = own - (clocks[0] + clocks[1] - own)
		}
	}
	return offsets
}

// AdmitNode lets a node join.
func (m *mesh) AdmitNode(ctx context.Context, name, url string) error {
	return m.control.AdmitNode(ctx, name, url)
}

// drivesOfNode chooses a node's drives.
func drivesOfNode(name string) func(*object.DriveHealth) bool {
	return func(d *object.DriveHealth) bool { return d.Node == name }
}

// RemoveNode takes a node out of the mesh.
func (m *mesh) RemoveNode(ctx context.Context, name string, force bool) error {
	if !force && m.control.Topology().Node(name) != nil {
		if err := m.storage.checkRemoval(ctx, "node "+name, drivesOfNode(name)); err != nil {
			return err
		}
	}
	// What has copies elsewhere is made again there: that it has payload at all
	// is no reason to refuse.
	return m.control.RemoveNode(ctx, name, true)
}

// ReplaceNode lets a node come back that has lost its data.
func (m *mesh) ReplaceNode(ctx context.Context, name string, force bool) error {
	if !force && m.control.Topology().Node(name) != nil {
		if err := m.storage.checkLastCopies(ctx, "node "+name, m.health(), drivesOfNode(name)); err != nil {
			return err
		}
	}
	return m.control.ReplaceNode(ctx, name)
}

// DrainNode takes leadership and payload from a node.
func (m *mesh) DrainNode(ctx context.Context, name string, undo, force bool) error {
	if !undo && !force && m.control.Topology().Node(name) != nil {
		if err := m.storage.checkDrain(ctx, "node "+name, drivesOfNode(name)); err != nil {
			return err
		}
	}
	return m.control.DrainNode(ctx, name, undo)
}
