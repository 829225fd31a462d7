package api

import (
	"context"
	"strings"

	"google.golang.org/grpc/peer"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// doorGRPC is what a principal and a record have come by.
const doorGRPC = "grpc"

// record begins a gRPC call's record for the audit log. end completes it with
// the call's error, and gives that back.
func (g *guard) record(ctx context.Context, method string) (_ context.Context, end func(error) error) {
	if g.audit == nil || g.permissions[method].open {
		return ctx, func(err error) error { return measured(ctx, err) }
	}
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	r := g.audit.Begin(doorGRPC, addr, "")
	r.API(apiOf(method))
	ctx = audit.With(ctx, r)
	return ctx, func(err error) error {
		if err != nil {
			r.Fail(fault.KindOf(err).Reason())
		}
		g.audit.End(r, readsOnly(method), observability.TraceID(ctx))
		return measured(ctx, err)
	}
}

// measured tells the metrics what kind of error a call ends with.
func measured(ctx context.Context, err error) error {
	if err != nil && !isStatus(err) {
		observability.SetError(ctx, fault.KindOf(err).Reason())
	}
	return err
}

// apiOf is a method's own name.
func apiOf(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

// readsOnly tells by a method's name whether it can change nothing.
func readsOnly(method string) bool {
	name := apiOf(method)
	for _, verb := range []string{"Get", "Stat", "List", "StreamObjects", "Watch", "WhoAmI", "ServerReflectionInfo"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// observe tells the metrics which bucket and object a request is about, if it is
// about one.
func observe(ctx context.Context, m any) {
	switch m := m.(type) {
	case *pb.PutObjectRequest:
		observability.SetTarget(ctx, m.GetHeader().GetBucket(), m.GetHeader().GetKey())
	case interface {
		GetBucket() string
		GetKey() string
	}:
		observability.SetTarget(ctx, m.GetBucket(), m.GetKey())
	case listed:
		observability.SetTarget(ctx, m.GetBucket(), m.GetPrefix())
	case interface{ GetBucket() string }:
		observability.SetTarget(ctx, m.GetBucket(), "")
	}
}

// note writes down what a request is about: the things that its message names.
func note(ctx context.Context, m any) {
	observe(ctx, m)
	r := audit.From(ctx)
	if r == nil {
		return
	}
	switch m := m.(type) {
	case *pb.PutObjectRequest:
		r.About(audit.Resource{Bucket: m.GetHeader().GetBucket(), Key: m.GetHeader().GetKey()})
	case *pb.DeleteObjectsRequest:
		for _, key := range m.GetKeys() {
			r.About(audit.Resource{Bucket: m.GetBucket(), Key: key})
		}
	case *pb.CopyObjectRequest:
		r.About(audit.Resource{Bucket: sourceBucket(m), Key: m.GetSourceKey()})
		r.About(audit.Resource{Bucket: m.GetBucket(), Key: m.GetKey()})
	case *pb.MoveObjectRequest:
		r.About(audit.Resource{Bucket: sourceBucket(m), Key: m.GetSourceKey()})
		r.About(audit.Resource{Bucket: m.GetBucket(), Key: m.GetKey()})
	case listed:
		r.About(audit.Resource{Bucket: m.GetBucket(), Key: m.GetPrefix()})
	case interface {
		GetBucket() string
		GetKey() string
	}:
		r.About(audit.Resource{Bucket: m.GetBucket(), Key: m.GetKey()})
	case interface{ GetBucket() string }:
		r.About(audit.Resource{Bucket: m.GetBucket()})
	case *pb.JoinNodeRequest, *pb.LeaveNodeRequest, *pb.ReplaceNodeRequest, *pb.DrainNodeRequest:
		r.About(audit.Resource{Other: "node " + m.(interface{ GetName() string }).GetName()})
	case *pb.DrainPoolRequest:
		r.About(audit.Resource{Other: "pool " + m.GetName()})
	case *pb.DrainDriveRequest, *pb.ReplaceDriveRequest:
		r.About(audit.Resource{Other: "drive " + m.(interface{ GetId() string }).GetId()})
	case *pb.CreateUserRequest, *pb.GetUserRequest, *pb.UpdateUserRequest, *pb.DeleteUserRequest:
		r.About(audit.Resource{Other: "user " + m.(interface{ GetName() string }).GetName()})
	case *pb.GetKeyRequest, *pb.UpdateKeyRequest, *pb.DeleteKeyRequest:
		r.About(audit.Resource{Other: "key " + m.(interface{ GetId() string }).GetId()})
	case interface{ GetUser() string }:
		if user := m.GetUser(); user != "" {
			r.About(audit.Resource{Other: "user " + user})
		}
	}
}
