package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// Cluster describes the mesh and changes who belongs to it. What is asked of
// the last four is a valid name and, of AdmitNode, a valid base URL; whether
// there is such a node is theirs to say. Their errors are *fault.Error or the
// context's.
type Cluster interface {
	Describe(ctx context.Context) (*ClusterInfo, error)
	// AdmitNode lets a node join.
	AdmitNode(ctx context.Context, name, url string) error
	// RemoveNode takes a node out, by force also one that is down or has the last
	// copy of something.
	RemoveNode(ctx context.Context, name string, force bool) error
	// ReplaceNode lets a node come back under its name that has lost its data, by
	// force also where the last copy of something was among that.
	ReplaceNode(ctx context.Context, name string, force bool) error
	// DrainNode takes leadership and payload from a node, or ends that.
	DrainNode(ctx context.Context, name string, undo, force bool) error
}

// ClusterInfo is the mesh as one node sees it.
type ClusterInfo struct {
	DeploymentID string
	Node         string      // the one that answers
	Nodes        []NodeInfo  // in the order of their names
	Groups       []GroupInfo // "system" first
	Warnings     []string    // what an operator should know; see Warnings
}

// NodeInfo describes one node. Version and Drives are known while it is up.
type NodeInfo struct {
	Name     string
	PeerURL  string
	Version  string
	Up       bool
	Index    bool   // keeps the index
	Pool     string // that its drives are in
	Zone     string // "": it is one of its own
	Draining bool   // leads nothing, is given no new payload, and is being emptied
	Leaving  bool   // on its way out of the mesh
	NotReady string // why it can't do its work; "" where it can, or where that is not known
	Drives   []DriveInfo

	IndexFull bool  // the index's disk has no room for what grows
	IndexFree int64 // bytes that it has then

	Certificates []CertificateInfo // that its listeners show, while it is up

	// ClockOffset is by how much its clock is ahead of its peers' median,
	// where ClockKnown says that it is known.
	ClockOffset time.Duration
	ClockKnown  bool
}

// DriveInfo describes one drive.
type DriveInfo struct {
	ID, Path                         string
	Node, Pool, Zone                 string
	State                            string // online, degraded, read_only, suspect, offline; "" where it isn't known
	TotalBytes, UsedBytes, FreeBytes int64
	Draining                         bool      // being emptied, by itself or with its node
	Reachable                        bool      // heard of lately
	UnwellSince                      time.Time // zero: it is well, or that isn't known
	Error                            string    // why its node can't use it
}

// CertificateInfo describes a certificate that a listener shows.
type CertificateInfo struct {
	Listener            string   // "grpc", "http", "peer"
	Names               []string // DNS names and IP addresses
	Issuer              string
	Fingerprint         string // SHA-256, in hex
	NotBefore, NotAfter time.Time
	Left                time.Duration // till NotAfter, when it was asked
}

// GroupInfo is one group of the index. Of the numbers, 0 is one that the node
// doesn't know.
type GroupInfo struct {
	Name    string // "system", "data-1"
	Leader  string // name of a node; "" where there is none, or none is known
	Term    uint64
	Commit  uint64       // index of the last entry that is agreed
	Applied uint64       // index of the last entry that this node has applied
	Members []MemberInfo // in the order of the nodes' names
	Waits   string       // why these stay as they are though they should change; "" where they may
}

// The roles of a member.
const (
	RoleVoter   = "voter"
	RoleLearner = "learner"
	RoleLeaving = "leaving"
)

// MemberInfo is a node's part in a group.
type MemberInfo struct {
	Node  string
	Role  string // one of the roles
	Match uint64 // index of the last entry that it is known to have
	Lag   uint64 // entries behind the leader
	Known bool   // whether Match and Lag are known
}

// clusterService implements pb.ClusterServiceServer; what changes the mesh is in
// member.go.
type clusterService struct {
	pb.UnimplementedClusterServiceServer
	cluster Cluster
}

func (s *clusterService) GetCluster(ctx context.Context, _ *pb.GetClusterRequest) (*pb.GetClusterResponse, error) {
	c, err := s.cluster.Describe(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetClusterResponse{
		DeploymentId: c.DeploymentID, Node: c.Node, Nodes: make([]*pb.Node, len(c.Nodes)),
		Groups: make([]*pb.Group, len(c.Groups)), Warnings: c.Warnings,
	}
	for i := range c.Nodes {
		resp.Nodes[i] = protoNode(&c.Nodes[i])
	}
	for i := range c.Groups {
		resp.Groups[i] = protoGroup(&c.Groups[i])
	}
	return resp, nil
}

func (s *clusterService) GetCertificates(ctx context.Context, _ *pb.GetCertificatesRequest) (*pb.GetCertificatesResponse, error) {
	c, err := s.cluster.Describe(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetCertificatesResponse{Nodes: make([]*pb.NodeCertificates, len(c.Nodes))}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		of := &pb.NodeCertificates{Node: n.Name, State: nodeState(n.Up)}
		for _, cert := range n.Certificates {
			of.Certificates = append(of.Certificates, protoCertificate(&cert))
		}
		resp.Nodes[i] = of
	}
	return resp, nil
}

func protoCertificate(c *CertificateInfo) *pb.Certificate {
	return &pb.Certificate{
		Listener: c.Listener, Names: c.Names, Issuer: c.Issuer, Sha256: c.Fingerprint,
		NotBefore: timestamppb.New(c.NotBefore), NotAfter: timestamppb.New(c.NotAfter),
	}
}

func protoNode(n *NodeInfo) *pb.Node {
	node := &pb.Node{
		Name: n.Name, PeerUrl: n.PeerURL, State: nodeState(n.Up), Version: n.Version, Index: n.Index,
		Draining: n.Draining, Leaving: n.Leaving, NotReady: n.NotReady, Pool: n.Pool, Zone: n.Zone,
	}
	if n.ClockKnown {
		node.ClockOffsetSeconds = proto.Float64(n.ClockOffset.Seconds())
	}
	for i := range n.Drives {
		node.Drives = append(node.Drives, protoDrive(&n.Drives[i]))
	}
	return node
}

func protoGroup(g *GroupInfo) *pb.Group {
	group := &pb.Group{Name: g.Name, Leader: g.Leader, Term: g.Term, CommitIndex: g.Commit, AppliedIndex: g.Applied}
	for _, m := range g.Members {
		member := &pb.Member{Node: m.Node, Role: memberRole(m.Role)}
		if m.Known {
			member.MatchIndex, member.Lag = proto.Uint64(m.Match), proto.Uint64(m.Lag)
		}
		group.Members = append(group.Members, member)
	}
	return group
}

func memberRole(s string) pb.MemberRole {
	switch s {
	case RoleVoter:
		return pb.MemberRole_MEMBER_ROLE_VOTER
	case RoleLearner:
		return pb.MemberRole_MEMBER_ROLE_LEARNER
	case RoleLeaving:
		return pb.MemberRole_MEMBER_ROLE_LEAVING
	}
	return pb.MemberRole_MEMBER_ROLE_UNSPECIFIED
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
	case "degraded":
		return pb.DriveState_DRIVE_STATE_DEGRADED
	}
	return pb.DriveState_DRIVE_STATE_UNSPECIFIED
}
