package api

import (
	"context"
	"net/url"
	"strings"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// Limits of what names a node. Sizes are in bytes.
const (
	nodeNameMaxBytes = 63
	peerURLMaxBytes  = 1024
)

// validateNodeName checks a node's name, by the rule that package node has for
// its configuration: 1 to 63 of a-z, 0-9 and hyphens, with no hyphen at either
// end.
func validateNodeName(name string) error { return validateName("name", name) }

// validateName checks the name of a node or a pool, which is the subject of the
// error.
func validateName(subject, name string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, subject, format, args...)
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > nodeNameMaxBytes:
		return bad("is %d bytes long; %d are allowed", len(name), nodeNameMaxBytes)
	}
	for i, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return bad("has something else than a-z, 0-9 and - at byte %d", i)
		}
	}
	if name[0] == '-' || name[len(name)-1] == '-' {
		return bad("begins or ends with -")
	}
	return nil
}

// validatePeerURL checks the base URL of a peer listener, by the rule that
// package node has for its peers; and there is nothing in it but the address.
func validatePeerURL(text string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, "peer_url", format, args...)
	}
	switch {
	case text == "":
		return bad("is empty")
	case len(text) > peerURLMaxBytes:
		return bad("is %d bytes long; %d are allowed", len(text), peerURLMaxBytes)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" {
		return bad("%q is not a base URL like http://10.0.0.1:7402", text)
	}
	if u.User != nil || strings.ContainsAny(text, "?#") {
		return bad("%q has more than an address; a base URL is like http://10.0.0.1:7402", text)
	}
	return nil
}

func (s *clusterService) JoinNode(ctx context.Context, r *pb.JoinNodeRequest) (*pb.JoinNodeResponse, error) {
	if err := validateNodeName(r.GetName()); err != nil {
		return nil, err
	}
	if err := validatePeerURL(r.GetPeerUrl()); err != nil {
		return nil, err
	}
	if err := s.cluster.AdmitNode(ctx, r.GetName(), r.GetPeerUrl()); err != nil {
		return nil, err
	}
	return &pb.JoinNodeResponse{}, nil
}

func (s *clusterService) LeaveNode(ctx context.Context, r *pb.LeaveNodeRequest) (*pb.LeaveNodeResponse, error) {
	if err := validateNodeName(r.GetName()); err != nil {
		return nil, err
	}
	if err := s.cluster.RemoveNode(ctx, r.GetName(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.LeaveNodeResponse{}, nil
}

func (s *clusterService) ReplaceNode(ctx context.Context, r *pb.ReplaceNodeRequest) (*pb.ReplaceNodeResponse, error) {
	if err := validateNodeName(r.GetName()); err != nil {
		return nil, err
	}
	if err := s.cluster.ReplaceNode(ctx, r.GetName(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.ReplaceNodeResponse{}, nil
}

func (s *clusterService) DrainNode(ctx context.Context, r *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	if err := validateNodeName(r.GetName()); err != nil {
		return nil, err
	}
	if err := s.cluster.DrainNode(ctx, r.GetName(), r.GetUndo(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.DrainNodeResponse{}, nil
}
