package node

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// resourcesCall asks another node for its resources. Telemetry has ids 300–399.
var resourcesCall = grid.NewSingle[resourcesRequest, resourcesReply](300, "telemetry.resources")

var errNoSample = errors.New("no sample was taken yet")

// registerResources serves what other nodes ask about this one's resources.
func (m *mesh) registerResources() error {
	return resourcesCall.Register(m.grid, func(context.Context, *resourcesRequest) (*resourcesReply, error) {
		return &resourcesReply{Resources: m.collector.Resources()}, nil
	})
}

// selected is the nodes that a name stands for: itself, "local" this one, "" all.
func (m *mesh) selected(node string) ([]string, error) {
	names := m.names()
	switch {
	case node == "":
		return names, nil
	case node == "local":
		return []string{m.self}, nil
	case !slices.Contains(names, node):
		return nil, fault.New(fault.InvalidArgument, "node", "%q is no node of this mesh", node)
	}
	return []string{node}, nil
}

// Resources gives the resources of the node of that name, of this one
// ("local"), or of all (""). A node that does not answer is down, and says why.
func (m *mesh) Resources(ctx context.Context, node string) ([]*observability.Resources, error) {
	names, err := m.selected(node)
	if err != nil {
		return nil, err
	}
	all := make([]*observability.Resources, len(names))
	each(ctx, names, func(ctx context.Context, i int, name string) {
		if name == m.self {
			all[i] = m.collector.Resources()
			return
		}
		reply, err := resourcesCall.Call(ctx, m.conn(name), &resourcesRequest{})
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

// meshCounters gives the collector what the node has exchanged with the others.
func (n *Node) meshCounters() observability.MeshCounters {
	received, sent := n.objects.BulkTraffic()
	c := observability.MeshCounters{BulkReceived: uint64(received), BulkSent: uint64(sent)}
	names := map[string]string{} // by host
	for name, url := range n.urls() {
		names[gridHost(url)] = name
	}
	for _, s := range n.grid.Stats() {
		name := cmp.Or(names[s.Host], s.Host)
		if name == n.cfg.Name {
			continue // what it says to itself goes nowhere
		}
		c.Peers = append(c.Peers, observability.PeerCounters{
			Node: name, Up: s.State == grid.StateConnected, RTT: s.RTT,
			ReceivedBytes: s.BytesIn, SentBytes: s.BytesOut, ReceivedMessages: s.MessagesIn, SentMessages: s.MessagesOut,
			QueuedBytes: s.QueuedBytes, CallsOut: s.CallsOut, CallsIn: s.CallsIn, Sessions: s.Sessions,
		})
	}
	return c
}
