package api

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// clusterService implements pb.ClusterServiceServer.
type clusterService struct {
	pb.UnimplementedClusterServiceServer
	cluster Cluster
}

func (s *clusterService) GetCluster(ctx context.Context, _ *pb.GetClusterRequest) (*pb.GetClusterResponse, error) {
	c, err := s.cluster.Describe(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetClusterResponse{DeploymentId: c.DeploymentID, Node: c.Node, Nodes: make([]*pb.Node, len(c.Nodes))}
	for i, n := range c.Nodes {
		node := &pb.Node{Name: n.Name, PeerUrl: n.PeerURL, State: nodeState(n.Up), Version: n.Version, Index: n.Index}
		for _, d := range n.Drives {
			node.Drives = append(node.Drives, &pb.Drive{
				Id: d.ID, Path: d.Path, State: driveState(d.State),
				TotalBytes: d.TotalBytes, UsedBytes: d.UsedBytes, FreeBytes: d.FreeBytes,
			})
		}
		resp.Nodes[i] = node
	}
	return resp, nil
}

func nodeState(up bool) pb.NodeState {
	if up {
		return pb.NodeState_NODE_STATE_UP
	}
	return pb.NodeState_NODE_STATE_DOWN
}

func driveState(s string) pb.DriveState {
	switch s {
	case "online":
		return pb.DriveState_DRIVE_STATE_ONLINE
	case "read_only":
		return pb.DriveState_DRIVE_STATE_READ_ONLY
	case "suspect":
		return pb.DriveState_DRIVE_STATE_SUSPECT
	case "offline":
		return pb.DriveState_DRIVE_STATE_OFFLINE
	}
	return pb.DriveState_DRIVE_STATE_UNSPECIFIED
}

// metricsService implements pb.MetricsServiceServer.
type metricsService struct {
	pb.UnimplementedMetricsServiceServer
	resources Resources
}

// The subsystems that GetResourceMetrics can be narrowed to.
const (
	subsystemDrive   = "drive"
	subsystemNetwork = "network"
	subsystemCPU     = "cpu"
	subsystemMemory  = "memory"
)

func (s *metricsService) GetResourceMetrics(ctx context.Context, r *pb.GetResourceMetricsRequest) (*pb.GetResourceMetricsResponse, error) {
	for _, name := range r.GetSubsystem() {
		switch name {
		case subsystemDrive, subsystemNetwork, subsystemCPU, subsystemMemory:
		default:
			return nil, fault.New(fault.InvalidArgument, "subsystem", "%q is none of %s, %s, %s, %s", name,
				subsystemDrive, subsystemNetwork, subsystemCPU, subsystemMemory)
		}
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

// protoResources gives the subsystems asked for; all of them where none is.
func protoResources(r *observability.Resources, subsystems []string) *pb.NodeResources {
	wanted := func(name string) bool { return len(subsystems) == 0 || slices.Contains(subsystems, name) }
	n := &pb.NodeResources{Node: r.Node, State: nodeState(r.Up), Error: r.Error}
	if r.SampledAtUnixNano != 0 {
		n.SampledAt = timestamppb.New(time.Unix(0, r.SampledAtUnixNano))
	}
	if !r.Up {
		return n
	}
	if wanted(subsystemDrive) {
		for i := range r.Drives {
			n.Drives = append(n.Drives, protoDriveResources(&r.Drives[i]))
		}
	}
	if wanted(subsystemNetwork) {
		for i := range r.Networks {
			n.Networks = append(n.Networks, protoNetworkResources(&r.Networks[i]))
		}
	}
	if wanted(subsystemCPU) {
		n.Cpu = protoCPU(&r.CPU)
	}
	if wanted(subsystemMemory) {
		n.Memory = protoMemory(&r.Memory)
	}
	return n
}

func protoDriveResources(d *observability.Drive) *pb.DriveResources {
	return &pb.DriveResources{
		Id: d.ID, Path: d.Path, State: driveState(d.State), Device: d.Device,
		TotalBytes: d.TotalBytes, UsedBytes: d.UsedBytes, FreeBytes: d.FreeBytes,
		TotalInodes: d.TotalInodes, UsedInodes: d.UsedInodes, FreeInodes: d.FreeInodes,
		ReadsPerSecond: d.ReadsPerSecond, WritesPerSecond: d.WritesPerSecond,
		ReadBytesPerSecond: d.ReadBytesPerSecond, WrittenBytesPerSecond: d.WrittenBytesPerSecond,
		AwaitSeconds: d.AwaitSeconds, UtilizationRatio: d.UtilizationRatio, Errors: d.Errors,
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

func protoCPU(c *observability.CPU) *pb.CpuResources {
	return &pb.CpuResources{
		Cores:     c.Cores,
		BusyRatio: protoGauge(c.BusyRatio), UserRatio: protoGauge(c.UserRatio), SystemRatio: protoGauge(c.SystemRatio),
		IdleRatio: protoGauge(c.IdleRatio), IowaitRatio: protoGauge(c.IowaitRatio), StealRatio: protoGauge(c.StealRatio),
		Load1: protoGauge(c.Load1), Load5: protoGauge(c.Load5), Load15: protoGauge(c.Load15),
	}
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
	return &pb.Gauge{Current: g.Current, Average: g.Average, Maximum: g.Maximum}
}
