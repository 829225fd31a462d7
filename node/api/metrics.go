package api

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// Resources reports what the nodes use and how they are. Its errors are
// *fault.Error, the context's, or send's.
type Resources interface {
	// Resources gives the resources of one node, of this one ("local"), or of
	// all (""), in the order of their names. A node that is down is in it, and
	// says why.
	Resources(ctx context.Context, node string) ([]*observability.Resources, error)
	// Watch gives send each sample of the same nodes as it is taken, beginning
	// with the last, until ctx ends or send fails. It calls send from the
	// caller's goroutine, and skips what send is too slow for.
	Watch(ctx context.Context, node string, send func(observability.Watched) error) error
	// Diagnose has each node look at its drives, peers and clock.
	Diagnose(ctx context.Context) (*Diagnosis, error)
}

// metricsService implements pb.MetricsServiceServer.
type metricsService struct {
	pb.UnimplementedMetricsServiceServer
	resources Resources
}

func checkSubsystems(names []string) error {
	return fault.Wrap(fault.InvalidArgument, "subsystem", observability.CheckSubsystems(names))
}

func (s *metricsService) GetResourceMetrics(ctx context.Context, r *pb.GetResourceMetricsRequest) (*pb.GetResourceMetricsResponse, error) {
	if err := checkSubsystems(r.GetSubsystem()); err != nil {
		return nil, err
	}
	all, err := s.resources.Resources(ctx, r.GetNode())
	if err != nil {
		return nil, err
	}
	resp := &pb.GetResourceMetricsResponse{Nodes: make([]*pb.NodeResources, len(all))}
	for i, res := range all {
		resp.Nodes[i] = protoResources(res, r.GetSubsystem())
	}
	return resp, nil
}

func (s *metricsService) WatchMetrics(r *pb.WatchMetricsRequest, stream grpc.ServerStreamingServer[pb.WatchMetricsResponse]) error {
	if err := checkSubsystems(r.GetSubsystem()); err != nil {
		return err
	}
	return s.resources.Watch(stream.Context(), r.GetNode(), func(w observability.Watched) error {
		return stream.Send(&pb.WatchMetricsResponse{Node: protoResources(w.Resources, r.GetSubsystem()), Missed: w.Missed})
	})
}

// protoResources gives the subsystems asked for; all of them where none is.
func protoResources(r *observability.Resources, only []string) *pb.NodeResources {
	wanted := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
	n := &pb.NodeResources{Node: r.Node, State: nodeState(r.Up), Error: r.Error}
	if r.SampledAtUnixNano != 0 {
		n.SampledAt = timestamppb.New(time.Unix(0, r.SampledAtUnixNano))
	}
	if !r.Up {
		return n
	}
	if wanted("drive") {
		for i := range r.Drives {
			n.Drives = append(n.Drives, protoDriveResources(&r.Drives[i]))
		}
	}
	if wanted("network") {
		for i := range r.Networks {
			n.Networks = append(n.Networks, protoNetworkResources(&r.Networks[i]))
		}
		for i := range r.Mesh {
			m := &r.Mesh[i]
			n.Mesh = append(n.Mesh, &pb.MeshTraffic{Via: m.Via, ReceivedBytes: protoGauge(m.ReceivedBytes), SentBytes: protoGauge(m.SentBytes)})
		}
	}
	if wanted("cpu") {
		n.Cpu = protoCPU(&r.CPU, r.Cores)
	}
	if wanted("memory") {
		n.Memory = protoMemory(&r.Memory)
	}
	if wanted("api") {
		for i := range r.APIs {
			n.Apis = append(n.Apis, protoAPI(&r.APIs[i]))
		}
	}
	if wanted("peer") {
		for i := range r.Peers {
			n.Peers = append(n.Peers, protoPeer(&r.Peers[i]))
		}
	}
	return n
}

func protoAPI(a *observability.APICalls) *pb.ApiResources {
	return &pb.ApiResources{
		Api: a.Name, Proto: a.Proto, RequestsPerSecond: a.RequestsPerSecond,
		ClientErrorsPerSecond: a.ClientErrorsPerSecond, ServerErrorsPerSecond: a.ServerErrorsPerSecond,
		TtfbP50Seconds: a.TTFBP50Seconds, TtfbP99Seconds: a.TTFBP99Seconds,
	}
}

func protoPeer(p *observability.Peer) *pb.PeerResources {
	return &pb.PeerResources{
		Node: p.Node, Up: p.Up, RttSeconds: p.RTTSeconds,
		ReceivedBytesPerSecond: p.ReceivedBytesPerSecond, SentBytesPerSecond: p.SentBytesPerSecond,
		ReceivedMessagesPerSecond: p.ReceivedMessagesPerSecond, SentMessagesPerSecond: p.SentMessagesPerSecond,
		QueuedBytes: p.QueuedBytes, CallsOut: p.CallsOut, CallsIn: p.CallsIn, Sessions: p.Sessions,
	}
}

func protoDriveResources(d *observability.Drive) *pb.DriveResources {
	return &pb.DriveResources{
		Id: d.ID, Path: d.Path, State: driveState(d.State), Device: d.Device,
		TotalBytes: d.TotalBytes, UsedBytes: d.UsedBytes, FreeBytes: d.FreeBytes,
		TotalInodes: d.TotalInodes, UsedInodes: d.UsedInodes, FreeInodes: d.FreeInodes,
		ReadsPerSecond: d.ReadsPerSecond, WritesPerSecond: d.WritesPerSecond,
		ReadBytesPerSecond: d.ReadBytesPerSecond, WrittenBytesPerSecond: d.WrittenBytesPerSecond,
		AwaitSeconds: d.AwaitSeconds, UtilizationRatio: d.UtilizationRatio, Errors: d.Errors,
		Timeouts: d.Timeouts, Healthy: d.Healthy(),
	}
}

func protoNetworkResources(n *observability.Network) *pb.NetworkResources {
	return &pb.NetworkResources{
		Interface:     n.Interface,
		ReceivedBytes: protoGauge(n.ReceivedBytes), SentBytes: protoGauge(n.SentBytes),
		ReceivedPackets: protoGauge(n.ReceivedPackets), SentPackets: protoGauge(n.SentPackets),
		Errors: protoGauge(n.Errors), Drops: protoGauge(n.Drops),
	}
}

func protoCPU(c *observability.CPU, cores []observability.Core) *pb.CpuResources {
	out := &pb.CpuResources{
		Cores:     c.Cores,
		BusyRatio: protoGauge(c.BusyRatio), UserRatio: protoGauge(c.UserRatio), SystemRatio: protoGauge(c.SystemRatio),
		IdleRatio: protoGauge(c.IdleRatio), IowaitRatio: protoGauge(c.IowaitRatio), StealRatio: protoGauge(c.StealRatio),
		Load1: protoGauge(c.Load1), Load5: protoGauge(c.Load5), Load15: protoGauge(c.Load15),
	}
	for i := range cores {
		out.PerCore = append(out.PerCore, &pb.CoreResources{Core: cores[i].Core, BusyRatio: protoGauge(cores[i].BusyRatio)})
	}
	return out
}

func protoMemory(m *observability.Memory) *pb.MemoryResources {
	return &pb.MemoryResources{
		Total: protoGauge(m.Total), Used: protoGauge(m.Used), Free: protoGauge(m.Free), Available: protoGauge(m.Available),
		Buffers: protoGauge(m.Buffers), Cache: protoGauge(m.Cache),
		SwapTotal: protoGauge(m.SwapTotal), SwapUsed: protoGauge(m.SwapUsed),
		ProcessResident: protoGauge(m.ProcessResident), ProcessHeap: protoGauge(m.ProcessHeap),
	}
}

func protoGauge(g observability.Gauge) *pb.Gauge {
	return &pb.Gauge{
		Current: g.Current, Average: g.Average, Maximum: g.Maximum,
		Average_1H: g.AverageHour, Maximum_1H: g.MaximumHour,
	}
}
