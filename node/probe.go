package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/api"
)

// What a node asks others to find out: how they are, and what time it is there.
var (
	probeCall = grid.NewSingle[probeRequest, probeReply](311, "telemetry.probe")
	clockCall = grid.NewSingle[clockRequest, clockReply](312, "telemetry.clock")
)

const (
	// drivePatience is how long a drive may take over a probe until it counts
	// as one that doesn't answer.
	drivePatience = 3 * time.Second
	// probeTimeout bounds what one silent node can cost a diagnosis.
	probeTimeout = drivePatience + askTimeout
	// probeFresh is for how long a node's probe is not made again.
	probeFresh = 2 * time.Second
	// pings are how many round trips are made to each peer; the shortest counts.
	pings = 3
)

// probing has one probe made at a time, and keeps the last.
type probing struct {
	mu   sync.Mutex // guards what follows
	now  chan struct{}
	last *probeReply
	at   time.Time
}

// registerProbes serves what other nodes want to find out.
func (m *mesh) registerProbes() error {
	err := clockCall.Register(m.grid, func(context.Context, *clockRequest) (*clockReply, error) {
		return &clockReply{UnixNano: time.Now().UnixNano()}, nil
	}, func(h *grid.Handler) { h.Inline = true })
	if err != nil {
		return err
	}
	return probeCall.Register(m.grid, func(ctx context.Context, _ *probeRequest) (*probeReply, error) {
		return m.probing.probe(ctx, m.probe)
	})
}

// probe makes a probe, waits for the one under way, or gives the last if it is
// fresh.
func (p *probing) probe(ctx context.Context, probe func(context.Context) *probeReply) (*probeReply, error) {
	for {
		p.mu.Lock()
		if p.last != nil && time.Since(p.at) < probeFresh {
			defer p.mu.Unlock()
			return p.last, nil
		}
		now := p.now
		if now == nil {
			p.now = make(chan struct{})
		}
		p.mu.Unlock()
		if now == nil {
			return p.make(ctx, probe)
		}
		select {
		case <-now:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// make makes a probe, and lets those go on who wait for it, whatever comes of it.
func (p *probing) make(ctx context.Context, probe func(context.Context) *probeReply) (reply *probeReply, err error) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.now)
		p.now = nil
		if reply != nil {
			p.last, p.at = reply, time.Now()
		}
	}()
	made := probe(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err // who waits makes another
	}
	return made, nil
}

// probe looks at this node's drives and peers, all at once.
func (m *mesh) probe(ctx context.Context) *probeReply {
	reply := &probeReply{Version: m.version, Certificates: m.certificateStatuses()}
	if err := m.control.Ready(); err != nil {
		reply.NotReady = err.Error()
	}
	reply.IndexFull, reply.IndexFree = m.control.DiskFull()
	drives := m.drives()
	names := slices.DeleteFunc(m.names(), func(name string) bool { return name == m.self })
	reply.Drives, reply.Peers = make([]driveProbe, len(drives.open)), make([]peerProbe, len(names))
	var wg sync.WaitGroup
	for i, d := range drives.open {
		wg.Go(func() { reply.Drives[i] = probeDrive(ctx, d) })
	}
	each(ctx, names, func(ctx context.Context, i int, name string) { reply.Peers[i] = m.probePeer(ctx, name) })
	wg.Wait()
	for _, d := range drives.closed {
		reply.Drives = append(reply.Drives, driveProbe{ID: d.ID, Path: d.Path, State: d.State, Error: d.Error})
	}
	return reply
}

func probeDrive(ctx context.Context, d *dataio.Drive) driveProbe {
	state := d.State()
	p := driveProbe{ID: d.ID(), Path: d.Path(), State: uint8(state)}
	if state != dataio.Online && state != dataio.Degraded {
		return p // that says it all
	}
	ctx, cancel := context.WithTimeout(ctx, drivePatience)
	defer cancel()
	took, err := d.Probe(ctx)
	switch {
	case ctx.Err() != nil:
		p.Error = "no answer within " + drivePatience.String()
	case err != nil:
		p.Error = err.Error()
	default:
		p.Took = int64(took)
	}
	return p
}

// probePeer asks another node for the time, and takes its answer for that of the
// middle of the round trip.
func (m *mesh) probePeer(ctx context.Context, name string) peerProbe {
	p := peerProbe{Node: name}
	for i := range pings {
		asked := time.Now()
		reply, err := clockCall.Call(ctx, m.conn(name), &clockRequest{})
		if err != nil {
			return peerProbe{Node: name, Error: err.Error()}
		}
		rtt := time.Since(asked)
		if i == 0 || int64(rtt) < p.RTT {
			p.RTT, p.Offset = int64(rtt), reply.UnixNano-asked.Add(rtt/2).UnixNano()
		}
	}
	return p
}

// Diagnose has every node probe, and gathers what they found. One that doesn't
// answer is down, and says why.
func (m *mesh) Diagnose(ctx context.Context) (*api.Diagnosis, error) {
	names := m.names()
	d := &api.Diagnosis{Node: m.self, Nodes: make([]api.NodeDiagnosis, len(names))}
	eachWithin(ctx, probeTimeout, names, func(ctx context.Context, i int, name string) {
		var reply *probeReply
		var err error
		if name == m.self {
			reply, err = m.probing.probe(ctx, m.probe)
		} else {
			reply, err = probeCall.Call(ctx, m.conn(name), &probeRequest{})
		}
		if err != nil {
			d.Nodes[i] = api.NodeDiagnosis{Node: name, Error: err.Error()}
			return
		}
		d.Nodes[i] = describeProbe(name, reply)
	})
	m.diagnoseClocks(d)
	return d, ctx.Err()
}

// diagnoseClocks fills in by how much each clock is off, from what this node has
// measured.
func (m *mesh) diagnoseClocks(d *api.Diagnosis) {
	ahead := map[string]time.Duration{m.self: 0}
	for i := range d.Nodes {
		if d.Nodes[i].Node != m.self {
			continue
		}
		for _, p := range d.Nodes[i].Peers {
			if p.Error == "" {
				ahead[p.Node] = p.ClockOffset
			}
		}
	}
	offsets := clockOffsets(ahead)
	for i := range d.Nodes {
		d.Nodes[i].ClockOffset, d.Nodes[i].ClockKnown = offsets[d.Nodes[i].Node]
	}
}

func describeProbe(name string, r *probeReply) api.NodeDiagnosis {
	n := api.NodeDiagnosis{Node: name, Up: true, Version: r.Version, NotReady: r.NotReady, IndexFull: r.IndexFull, IndexFree: r.IndexFree}
	for _, d := range r.Drives {
		n.Drives = append(n.Drives, api.DriveProbe{
			ID: d.ID, Path: d.Path, State: dataio.State(d.State).String(), Took: time.Duration(d.Took), Error: d.Error,
		})
	}
	for _, p := range r.Peers {
		n.Peers = append(n.Peers, api.PeerProbe{Node: p.Node, RTT: time.Duration(p.RTT), ClockOffset: time.Duration(p.Offset), Error: p.Error})
	}
	for i := range r.Certificates {
		n.Certificates = append(n.Certificates, describeCertificate(&r.Certificates[i]))
	}
	return n
}
