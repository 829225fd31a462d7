package api

import (
	"context"
	"io"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/limit"
)

// transport is the server's TLS, or its absence, with a watch on what comes out
// of it.
func transport(o *Options) credentials.TransportCredentials {
	under := insecure.NewCredentials()
	if o.TLS != nil {
		under = credentials.NewTLS(o.TLS)
	}
	return &watched{under, limit.FloodOptions{
		Frames: o.MaxFrames, Streams: 2 * int(o.MaxStreams), Untaken: o.Untaken, Refused: o.Refused,
	}}
}

type watched struct {
	credentials.TransportCredentials
	o limit.FloodOptions
}

// ServerHandshake implements credentials.TransportCredentials.
func (w *watched) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return limit.NewFlood(conn, w.o), info, nil
}

// Clone implements credentials.TransportCredentials.
func (w *watched) Clone() credentials.TransportCredentials {
	return &watched{w.TransportCredentials.Clone(), w.o}
}

// connStats tells the limits when the handlers of a connection begin and end.
type connStats struct{ conns *limit.Conns }

type floodKey struct{}

func (*connStats) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	if f, ok := limit.FloodOf(info.RemoteAddr); ok {
		return context.WithValue(ctx, floodKey{}, f)
	}
	return ctx
}

func (*connStats) HandleConn(context.Context, stats.ConnStats) {}

func (*connStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (s *connStats) HandleRPC(ctx context.Context, event stats.RPCStats) {
	f, ok := ctx.Value(floodKey{}).(*limit.Flood)
	if !ok {
		return
	}
	switch event.(type) {
	case *stats.Begin:
		f.Begin()
		if s.conns != nil {
			s.conns.Busy(f)
		}
	case *stats.End:
		f.End()
		if s.conns != nil {
			s.conns.Quiet(f)
		}
	}
}

// streams registers unary methods as streams of one message each way, which they
// are on the wire. grpc reads the message of a unary call before it asks the
// interceptor who calls, and waits for it as long as the client likes: like this
// a stranger is refused before the first byte, and nobody stalls.
type streams struct{ grpc.ServiceRegistrar }

// RegisterService implements grpc.ServiceRegistrar.
func (r streams) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = nil, slices.Clone(desc.Streams)
	for _, m := range desc.Methods {
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName:    m.MethodName,
			ClientStreams: true, // of what isn't a stream in any direction grpc asks the unary interceptor
			Handler: func(srv any, ss grpc.ServerStream) error {
				resp, err := m.Handler(srv, ss.Context(), func(m any) error { return receiveOne(ss, m) }, nil)
				if err != nil {
					return err
				}
				return ss.SendMsg(resp)
			},
		})
	}
	r.ServiceRegistrar.RegisterService(&d, impl)
}

// receiveOne receives the only message of a stream.
func receiveOne(ss grpc.ServerStream, m any) error {
	switch err := ss.RecvMsg(m); {
	case err == io.EOF:
		return fault.New(fault.InvalidArgument, "message", "is missing")
	case err != nil:
		return err
	}
	return receiveEnd(ss, "message")
}

// receiveEnd receives the end of a stream. subject names what should have been the
// last message.
func receiveEnd(ss grpc.ServerStream, subject string) error {
	switch err := ss.RecvMsg(new(emptypb.Empty)); {
	case err == nil:
		return fault.New(fault.InvalidArgument, subject, "is the last: another message came behind it")
	case err != io.EOF:
		return err
	}
	return nil
}
