package api

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
)

// credentialKeys are where the credential is looked for, in this order: the
// first is ours alone, for the sake of proxies that use the second themselves.
// An empty one doesn't count, as at the HTTP listener.
var credentialKeys = [...]string{"gridloom-authorization", "authorization"}

// guard stands before every method. For gRPC it authenticates, waits for the
// node, authorises, and turns errors into statuses; for calls from the gateway,
// which were authenticated at the HTTP listener, it authorises.
type guard struct {
	auth        *iam.Authenticator
	callers     limit.Callers
	ready       func(context.Context) error
	permissions map[string]permission
	stall       time.Duration   // see pacedStream
	strangers   time.Duration   // the same for whom nobody knows
	stopping    context.Context // ends when endless streams must
	log         *slog.Logger
}

// unary is the interceptor of the gRPC server. All methods come as streams
// (limit.go); it is there should one not.
func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = statusOf(g.settle(info.FullMethod, recover(), err)) }()
	ctx, check, err := g.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := check(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// stream is the interceptor of the gRPC server. The permission is decided on
// the first message, when it is received.
func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() { err = statusOf(g.settle(info.FullMethod, recover(), err)) }()
	ctx, check, err := g.enter(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ending := context.Background()
	if g.permissions[info.FullMethod].endless {
		ending = g.stopping
		if err := context.Cause(ending); err != nil {
			return err
		}
		// A handler that waits for something else than its client has the context.
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(ending, func() { cancel(context.Cause(ending)) })()
		defer func() {
			if why := context.Cause(ending); err != nil && why != nil {
				err = why
			}
		}()
	}
	stall := g.stall
	if g.permissions[info.FullMethod].open {
		stall = min(stall, g.strangers)
	}
	paced := pace(ss, stall, ending)
	defer paced.release()
	return next(srv, &guardedStream{ServerStream: paced, ctx: ctx, check: check})
}

// local is the interceptor of calls from the gateway: ctx has the principal.
func (g *guard) local(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = g.settle(info.FullMethod, recover(), err) }()
	check, err := g.permit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := check(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// enter lets a gRPC call in. The context has its principal, check decides on
// its first message.
func (g *guard) enter(ctx context.Context, method string) (_ context.Context, check func(m any) error, err error) {
	permission := g.permissions[method]
	if !permission.open {
		p, err := g.authenticate(ctx)
		if err != nil {
			return nil, nil, err
		}
		ctx = iam.WithPrincipal(ctx, p)
	}
	if !permission.early {
		if err := g.ready(ctx); err != nil {
			return nil, nil, err
		}
	}
	check, err = g.permit(ctx, method)
	return ctx, check, err
}

// authenticate finds out who calls.
func (g *guard) authenticate(ctx context.Context) (iam.Principal, error) {
	credential := ""
	for _, key := range credentialKeys {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 && values[0] != "" {
			credential = values[0]
			break
		}
	}
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	var p iam.Principal
	err := g.callers.Admit(addr, credential, func() (_ string, err error) {
		p, err = g.auth.Authenticate(credential, addr, "grpc")
		return p.ID, fault.Wrap(fault.Unauthenticated, "", err)
	})
	return p, err
}

// permit gives the check of a method's first message for the principal in ctx.
// Without a permission or without a principal, there is nothing to check.
func (g *guard) permit(ctx context.Context, method string) (check func(m any) error, err error) {
	permission := g.permissions[method]
	if permission.open {
		return func(any) error { return nil }, nil
	}
	if permission.check == nil {
		return nil, fault.New(fault.PermissionDenied, method, "nobody may call this")
	}
	p, ok := iam.FromContext(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "", "no credential was given")
	}
	return func(m any) error {
		return fault.Wrap(fault.PermissionDenied, "", permission.check(p, m))
	}, nil
}

// settle turns a panic into an error, and logs what the caller isn't told.
func (g *guard) settle(method string, panicked any, err error) error {
	if panicked != nil {
		g.log.Error("panic", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return fault.New(fault.Internal, "", "internal error; the node's log has the cause")
	}
	if err == nil || isStatus(err) {
		return err
	}
	switch fault.KindOf(err) {
	case fault.Internal, fault.Corrupted:
		g.log.Error("call failed", "method", method, "error", err)
	}
	return err
}

// guardedStream checks the first message, and carries the principal.
type guardedStream struct {
	grpc.ServerStream
	ctx     context.Context
	check   func(m any) error // nil once it has passed
	refused error
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(m any) error {
	if s.refused != nil {
		return s.refused
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if s.check != nil {
		if s.refused = s.check(m); s.refused != nil {
			return s.refused
		}
		s.check = nil
	}
	return nil
}

// SendMsg refuses to answer what has not been checked.
func (s *guardedStream) SendMsg(m any) error {
	if s.check != nil {
		return fault.New(fault.PermissionDenied, "", "the request was not read")
	}
	return s.ServerStream.SendMsg(m)
}
