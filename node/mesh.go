package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// What the nodes ask each other about themselves: telemetry ids 300–399,
// services 400–499.
var (
	resourcesCall = grid.NewSingle[resourcesRequest, resourcesReply](300, "telemetry.resources")
	statusCall    = grid.NewSingle[statusRequest, statusReply](400, "cluster.status")
)

// askTimeout bounds what one silent node can cost a question to all of them.
const askTimeout = 2 * time.Second

// mesh answers for every node: for this one from memory, for the others by
// asking them all at once.
type mesh struct {
	self      string
	version   string
	owner     string
	peers     map[string]string // name to base URL of the peer listener, this node included
	grid      *grid.Manager
	control   *control.Control
	collector *observability.Collector
	drives    func() []*dataio.Drive
	log       *slog.Logger
}

// register serves the other nodes' questions.
func (m *mesh) register() error {
	err := resourcesCall.Register(m.grid, func(context.Context, *resourcesRequest) (*resourcesReply, error) {
		return &resourcesReply{Resources: m.collector.Resources()}, nil
	})
	if err != nil {
		return err
	}
	return statusCall.Register(m.grid, func(context.Context, *statusRequest) (*statusReply, error) {
		return m.status(), nil
	})
}

// status describes this node.
func (m *mesh) status() *statusReply {
	reply := &statusReply{Version: m.version}
	for _, d := range m.drives() {
		s := driveStatus{ID: d.ID(), Path: d.Path(), State: uint8(d.State())}
		if u, err := d.Usage(); err == nil {
			s.Total, s.Used, s.Free = u.TotalBytes, u.UsedBytes, u.FreeBytes
		}
		reply.Drives = append(reply.Drives, s)
	}
	return reply
}

var errNoSample = errors.New("no sample was taken yet")

// names lists every node, sorted.
func (m *mesh) names() []string { return sortedKeys(m.peers) }

// each calls ask for every name at once, each within askTimeout.
func each(ctx context.Context, names []string, ask func(ctx context.Context, i int, name string)) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { ask(ctx, i, name) })
	}
	wg.Wait()
}

// Resources gives the resources of the node of that name, of this one
// ("local"), or of all (""). A node that does not answer is down, and says why.
func (m *mesh) Resources(ctx context.Context, node string) ([]*observability.Resources, error) {
	names := m.names()
	if node == "local" {
		node = m.self
	}
	if node != "" {
		if !slices.Contains(names, node) {
			return nil, fault.New(fault.InvalidArgument, "node", "%q is no node of this mesh", node)
		}
		names = []string{node}
	}
	all := make([]*observability.Resources, len(names))
	each(ctx, names, func(ctx context.Context, i int, name string) {
		if name == m.self {
			all[i] = m.collector.Resources()
			return
		}
		reply, err := resourcesCall.Call(ctx, m.grid.Connection(m.peers[name]), &resourcesRequest{})
		switch {
		case err != nil:
			all[i] = observability.Down(name, err)
		case reply.Resources == nil:
			all[i] = observability.Down(name, errNoSample)
		default:
			all[i] = reply.Resources
		}
	})
	return all, nil
}

// serveResources is /v2/metrics/resource.
func (m *mesh) serveResources(w http.ResponseWriter, r *http.Request) {
	observability.SetAPI(r.Context(), "GetResourceMetrics")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fault.RefuseMethod(w, r.Method, http.MethodGet, http.MethodHead)
		return
	}
	query := r.URL.Query()
	for name := range query {
		if name != "node" && name != "subsystem" {
			fault.WriteProblem(w, fault.New(fault.InvalidArgument, name, "is no parameter of this; node and subsystem are"))
			return
		}
	}
	subsystems := query["subsystem"]
	if err := observability.CheckSubsystems(subsystems); err != nil {
		fault.WriteProblem(w, fault.Wrap(fault.InvalidArgument, "subsystem", err))
		return
	}
	all, err := m.Resources(r.Context(), query.Get("node"))
	if err != nil {
		fault.WriteProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", observability.ContentType)
	if err := observability.WriteResources(w, subsystems, all); err != nil {
		m.log.Debug("a scraper left", "error", err)
	}
}

// Describe describes the mesh as this node sees it.
func (m *mesh) Describe(ctx context.Context) (*api.ClusterInfo, error) {
	names := m.names()
	info := &api.ClusterInfo{DeploymentID: m.control.Deployment(), Node: m.self, Nodes: make([]api.NodeInfo, len(names))}
	index := m.control.Ready()
	each(ctx, names, func(ctx context.Context, i int, name string) {
		n := api.NodeInfo{Name: name, PeerURL: m.peers[name], Index: name == m.owner}
		status, err := m.status(), error(nil)
		if name != m.self {
			status, err = statusCall.Call(ctx, m.grid.Connection(m.peers[name]), &statusRequest{})
		} else if index != nil {
			n.NotReady = index.Error()
		}
		if err != nil {
			n.NotReady = "it does not answer: " + err.Error()
			info.Nodes[i] = n
			return
		}
		n.Up, n.Version = true, status.Version
		for _, d := range status.Drives {
			n.Drives = append(n.Drives, api.DriveInfo{
				ID: d.ID, Path: d.Path, State: dataio.State(d.State).String(),
				TotalBytes: d.Total, UsedBytes: d.Used, FreeBytes: d.Free,
			})
		}
		info.Nodes[i] = n
	})
	m.compareClocks(info.Nodes)
	info.Groups = m.groups(index == nil)
	info.Warnings = api.Warnings(info)
	return info, nil
}

// groups describes the index: one group, which the owner keeps alone. How far
// it has come is not known here.
func (m *mesh) groups(reachable bool) []api.GroupInfo {
	g := api.GroupInfo{Name: "system", Members: []api.MemberInfo{{Node: m.owner, Role: api.RoleVoter}}}
	if reachable {
		g.Leader = m.owner
	}
	return []api.GroupInfo{g}
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
	for i := range nodes {
		nodes[i].ClockOffset, nodes[i].ClockKnown = clockOffset(nodes[i].Name, ahead)
	}
}

// clockOffset is by how much a node's clock is ahead of the median of all the
// others', as far as they are known.
func clockOffset(name string, ahead map[string]time.Duration) (offset time.Duration, known bool) {
	own, known := ahead[name]
	var others []time.Duration
	for other, d := range ahead {
		if other != name {
			others = append(others, d)
		}
	}
	if !known || len(others) == 0 {
		return 0, false
	}
	slices.Sort(others)
	half := len(others) / 2
	median := others[half]
	if len(others)%2 == 0 {
		median = others[half-1] + (median-others[half-1])/2
	}
	return own - median, true
}

// errFixed is the answer to every change of who belongs to the mesh.
func errFixed(name string) error {
	return fault.New(fault.Unimplemented, "node "+name, "can't be changed: this version keeps the nodes it was founded with, those of --peers")
}

// AdmitNode would let a node join.
func (m *mesh) AdmitNode(_ context.Context, name, _ string) error { return errFixed(name) }

// RemoveNode would take a node out of the mesh.
func (m *mesh) RemoveNode(_ context.Context, name string, _ bool) error { return errFixed(name) }

// ReplaceNode would let a node come back that has lost its data.
func (m *mesh) ReplaceNode(_ context.Context, name string) error { return errFixed(name) }

// DrainNode would take leadership and new payload from a node.
func (m *mesh) DrainNode(_ context.Context, name string, _ bool) error { return errFixed(name) }
