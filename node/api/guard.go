package api

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/observability"
)

// credentialKeys are where the credential is looked for, in this order: the
// first is ours alone, for the sake of proxies that use the second themselves.
// An empty one doesn't count, as at the HTTP listener.
var credentialKeys = [...]string{"gridloom-authorization", "authorization"}

// guard stands before every method. For gRPC it authenticates, waits for the
// node, authorises, and turns errors into statuses; for calls from the gateway,
// which were authenticated at the HTTP listener, it authorises.
type guard struct {
	auth        *iam.Gate
	audit       *audit.Log // nil keeps none
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
	ctx, end := g.record(ctx, info.FullMethod)
	defer func() { err = statusOf(end(g.settle(ctx, info.FullMethod, recover(), err))) }()
	ctx, check, err := g.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	note(ctx, req)
	if err := check(ctx, req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// stream is the interceptor of the gRPC server. The permission is decided on
// the first message, when it is received, and again while the stream is open
// whenever users and keys change.
func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx, end := g.record(ss.Context(), info.FullMethod)
	defer func() { err = statusOf(end(g.settle(ctx, info.FullMethod, recover(), err))) }()
	ctx, check, err := g.enter(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	// A handler that waits for something else than its client has the context.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ending, endNow := context.WithCancelCause(context.Background())
	defer endNow(nil)
	cut := func(why error) {
		endNow(why)
		cancel(why)
	}
	unbind, err := g.bind(ctx, info.FullMethod, cut)
	if err != nil {
		return err
	}
	defer unbind()
	defer func() {
		if why := context.Cause(ending); err != nil && why != nil {
			err = why
		}
	}()
	stall := g.stall
	if g.permissions[info.FullMethod].open {
		stall = min(stall, g.strangers)
	}
	paced := pace(ss, stall, ending, info.IsClientStream && !info.IsServerStream)
	defer paced.release()
	guarded := &guardedStream{ServerStream: paced, ctx: ctx, check: check, passed: func(m any) (stop func()) {
		return g.follow(ctx, check, m, cut)
	}}
	defer guarded.leave()
	return next(srv, guarded)
}

// bind has a stream that would not end by itself end with the node, and with the
// time of its caller's credential, by cut, until unbind is called.
func (g *guard) bind(ctx context.Context, method string, cut func(error)) (unbind func(), err error) {
	if !g.permissions[method].endless {
		return func() {}, nil
	}
	if err := context.Cause(g.stopping); err != nil {
		return nil, err
	}
	stay := context.AfterFunc(g.stopping, func() { cut(context.Cause(g.stopping)) })
	p, ok := iam.FromContext(ctx)
	if !ok || p.ExpiresAt.IsZero() {
		return func() { stay() }, nil
	}
	expiry := time.AfterFunc(time.Until(p.ExpiresAt), func() {
		cut(fault.New(fault.Unauthenticated, "", "the credential's time is up"))
	})
	return func() { stay(); expiry.Stop() }, nil
}

// follow has an open stream end when its principal may no longer do what the
// first message asks for.
func (g *guard) follow(ctx context.Context, check func(context.Context, any) error, first any, cut func(error)) (stop func()) {
	p, ok := iam.FromContext(ctx)
	if !ok { // open to all
		return func() {}
	}
	return g.auth.Follow(p,
		func(now iam.Principal) error { return check(iam.WithPrincipal(ctx, now), first) },
		func(why error) { cut(IdentityFault(why)) })
}

// local is the interceptor of calls from the gateway: ctx has the principal.
func (g *guard) local(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = g.settle(ctx, info.FullMethod, recover(), err) }()
	check, err := g.permit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	note(ctx, req)
	if err := check(ctx, req); err != nil {
		return nil, err
	}
	// Its body may have taken its time since the caller was let in, and what it
	// asks for may, too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.follow(ctx, check, req, func(why error) { cancel(&ended{why}) })()
	if err = ctx.Err(); err == nil {
		resp, err = next(ctx, req)
	}
	var why *ended
	if err != nil && errors.As(context.Cause(ctx), &why) {
		return nil, why.error
	}
	return resp, err
}

// localStream is local for a stream that the gateway passes on: req is its only
// message, and serve the handler. Its end, and the client's, end serve's context.
func (g *guard) localStream(ctx context.Context, req any, method string, serve func(context.Context) error) (err error) {
	defer func() { err = g.settle(ctx, method, recover(), err) }()
	check, err := g.permit(ctx, method)
	if err != nil {
		return err
	}
	note(ctx, req)
	if err := check(ctx, req); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cut := func(why error) { cancel(&ended{why}) }
	unbind, err := g.bind(ctx, method, cut)
	if err != nil {
		return err
	}
	defer unbind()
	defer g.follow(ctx, check, req, cut)()
	if err = ctx.Err(); err == nil {
		err = serve(ctx)
	}
	var why *ended
	if err != nil && errors.As(context.Cause(ctx), &why) {
		return why.error
	}
	return err
}

// ended is why a call was ended that had been let in.
type ended struct{ error }

// enter lets a gRPC call in. The context has its principal, check decides on
// its first message.
func (g *guard) enter(ctx context.Context, method string) (_ context.Context, check func(ctx context.Context, m any) error, err error) {
	permission := g.permissions[method]
	if !permission.open {
		p, err := g.authenticate(ctx)
		audit.From(ctx).Identity(p.User, p.ID, p.Via) // of who has made too many calls, too
		observability.SetUser(ctx, p.User)
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

// authenticate finds out who calls. With an error there is a principal where it
// is known who it is.
func (g *guard) authenticate(ctx context.Context) (iam.Principal, error) {
	credential := ""
	for _, key := range credentialKeys {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 && values[0] != "" {
			credential = values[0]
			break
		}
	}
	r := iam.Request{Authorization: credential, Door: doorGRPC, Now: time.Now()}
	if p, ok := peer.FromContext(ctx); ok {
		r.Addr = p.Addr.String()
		if over, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			r.Certificate = CertificateNames(&over.State)
		}
	}
	var p iam.Principal
	err := g.callers.Admit(r.Addr, credential != "", func() (_ string, err error) {
		p, err = Identify(ctx, g.auth, r)
		return p.Account(), err
	})
	return p, err
}

// permit gives the check of a method's first message for the principal in a
// context. Without a permission or without a principal, there is nothing to
// check.
func (g *guard) permit(ctx context.Context, method string) (check func(ctx context.Context, m any) error, err error) {
	permission := g.permissions[method]
	if permission.open {
		return func(context.Context, any) error { return nil }, nil
	}
	if permission.check == nil {
		return nil, fault.New(fault.PermissionDenied, method, "nobody may call this")
	}
	if _, ok := iam.FromContext(ctx); !ok {
		return nil, fault.New(fault.Unauthenticated, "", "no credential was given")
	}
	return func(ctx context.Context, m any) error {
		p, _ := iam.FromContext(ctx)
		return fault.Wrap(fault.PermissionDenied, "", permission.check(p, m))
	}, nil
}

// settle turns a panic into an error, and logs what the caller isn't told.
func (g *guard) settle(ctx context.Context, method string, panicked any, err error) error {
	if panicked != nil {
		g.log.ErrorContext(ctx, "panic", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return fault.New(fault.Internal, "", "internal error; the node's log has the cause")
	}
	if err == nil || isStatus(err) {
		return err
	}
	switch fault.KindOf(err) {
	case fault.Internal, fault.Corrupted:
		g.log.ErrorContext(ctx, "call failed", "method", method, "error", err)
	}
	return err
}

// guardedStream checks the first message, and carries the principal.
type guardedStream struct {
	grpc.ServerStream
	ctx     context.Context
	check   func(ctx context.Context, m any) error // nil once it has passed
	passed  func(m any) (stop func())              // what follows the check
	stop    func()                                 // of that; nil before
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
		note(s.ctx, m)
		if s.refused = s.check(s.ctx, m); s.refused != nil {
			return s.refused
		}
		s.check = nil
		s.stop = s.passed(first(m))
		// It may have come long after its caller was let in: what has changed since
		// has ended the stream by now.
		s.refused = context.Cause(s.ctx)
	}
	return s.refused
}

// leave ends what the check has begun.
func (s *guardedStream) leave() {
	if s.stop != nil {
		s.stop()
	}
}

// first is what is kept of a stream's first message: messages of an upload are
// received into one and the same.
func first(m any) any {
	if put, ok := m.(*pb.PutObjectRequest); ok {
		return &pb.PutObjectRequest{Part: &pb.PutObjectRequest_Header{Header: put.GetHeader()}}
	}
	return m
}

// SendMsg refuses to answer what has not been checked.
func (s *guardedStream) SendMsg(m any) error {
	if s.check != nil {
		return fault.New(fault.PermissionDenied, "", "the request was not read")
	}
	return s.ServerStream.SendMsg(m)
}
