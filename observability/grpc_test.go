package observability

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// slowHealth is grpc's health service, stalling where the metadata says.
type slowHealth struct {
	*health.Server
	t *testing.T
}

func (s slowHealth) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if err := s.stall(ctx, "before"); err != nil {
		return nil, err
	}
	return s.Server.Check(ctx, r)
}

func (s slowHealth) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	ctx := stream.Context()
	for _, kind := range metadata.ValueFromIncomingContext(ctx, "kind") {
		SetError(ctx, kind)
	}
	if len(metadata.ValueFromIncomingContext(ctx, "headers")) > 0 {
		if err := stream.SendHeader(metadata.Pairs("early", "yes")); err != nil {
			s.t.Error(err)
		}
	}
	if err := s.stall(ctx, "before"); err != nil {
		return err
	}
	for range 3 {
		if len(metadata.ValueFromIncomingContext(ctx, "empty")) > 0 {
			break
		}
		if err := stream.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
			return err
		}
		if err := s.stall(ctx, "after"); err != nil {
			return err
		}
	}
	if r.Service == "broken" {
		return status.Error(codes.DataLoss, "broken")
	}
	return nil
}

func (s slowHealth) stall(ctx context.Context, when string) error {
	for _, v := range metadata.ValueFromIncomingContext(ctx, when) {
		d, err := time.ParseDuration(v)
		if err != nil {
			s.t.Error(err)
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// call runs one call against a real server with the health service, and
// returns when the server is gone.
func call(t *testing.T, p *probe, run func(ctx context.Context, conn *grpc.ClientConn)) {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(grpc.StatsHandler(p.StatsHandler()))
	grpc_health_v1.RegisterHealthServer(server, slowHealth{health.NewServer(), t})
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///node",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	run(t.Context(), conn)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	server.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	synctest.Wait()
}

func TestFirstMessage(t *testing.T) {
	const ms = time.Millisecond
	check := func(ctx context.Context, conn *grpc.ClientConn, service string) error {
		_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		return err
	}
	watch := func(ctx context.Context, conn *grpc.ClientConn, service string) error {
		stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		for err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for _, test := range []struct {
		name     string
		metadata []string
		cancel   time.Duration // 0: never
		run      func(context.Context, *grpc.ClientConn, string) error
		service  string
		code     codes.Code
		labels   string
		ttfb     time.Duration
		duration time.Duration
	}{
		{"unary", []string{"before", "50ms"}, 0, check, "", codes.OK, "Check grpc 2xx", 50 * ms, 50 * ms},
		{"unary, trailers only", []string{"before", "50ms"}, 0, check, "nobody", codes.NotFound, "Check grpc 4xx", 50 * ms, 50 * ms},
		{"stream", []string{"before", "50ms", "after", "100ms"}, 0, watch, "", codes.Unknown, "Watch grpc 2xx", 50 * ms, 350 * ms},
		{"stream, early headers", []string{"headers", "", "before", "50ms", "after", "100ms"}, 0, watch, "", codes.Unknown, "Watch grpc 2xx", 50 * ms, 350 * ms},
		{"stream without messages", []string{"empty", "", "headers", "", "before", "50ms"}, 0, watch, "", codes.Unknown, "Watch grpc 2xx", 50 * ms, 50 * ms},
		{"stream that fails", []string{"after", "100ms"}, 0, watch, "broken", codes.DataLoss, "Watch grpc 5xx", 0, 300 * ms},
		{"stream, trailers only", []string{"empty", "", "before", "50ms"}, 0, watch, "broken", codes.DataLoss, "Watch grpc 5xx", 50 * ms, 50 * ms},
		{"cancelled before the first message", []string{"before", "1h"}, 70 * ms, watch, "", codes.Canceled, "Watch grpc 4xx", 70 * ms, 70 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProbe(t)
				call(t, p, func(ctx context.Context, conn *grpc.ClientConn) {
					conn.Connect() // the dialling is not the server's time
					synctest.Wait()
					ctx = metadata.AppendToOutgoingContext(ctx, test.metadata...)
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					if test.cancel > 0 {
						time.AfterFunc(test.cancel, cancel)
					}
					if err := test.run(ctx, conn, test.service); status.Code(err) != test.code {
						t.Errorf("call: %v, want %v", err, test.code)
					}
				})
				p.want(t, "gridloom.request.ttfb", map[string]point{test.labels: {1, test.ttfb.Seconds()}})
				p.want(t, "gridloom.request.duration", map[string]point{test.labels: {1, test.duration.Seconds()}})
				p.want(t, "gridloom.request.in_flight", map[string]point{})
			})
		})
	}
}

func TestGRPCBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		call(t, p, func(ctx context.Context, conn *grpc.ClientConn) {
			// Request: 5 bytes of prefix, 2 of tag and length, 7 of name.
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "unknown"})
			if status.Code(err) != codes.NotFound {
				t.Error(err)
			}
			// Request and response: a prefix; the response's status is 2 bytes.
			if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
				t.Error(err)
			}
		})
		p.want(t, "gridloom.request.bytes", map[string]point{"Check grpc": {sum: 14 + 5}})
		p.want(t, "gridloom.response.bytes", map[string]point{"Check grpc": {sum: 7}})
	})
}

// TestUnknownMethods are counted once each, under one name, and are never in
// flight.
func TestUnknownMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbe(t)
		watch := p.Calls().Watch(func(*Call) bool { return true })
		defer watch.Close()
		call(t, p, func(ctx context.Context, conn *grpc.ClientConn) {
			for _, method := range []string{"/made.up.Service/Get", "/made.up.Service/\xff\xfe", "/grpc.health.v1.Health/Made"} {
				err := conn.Invoke(ctx, method, &grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{})
				if status.Code(err) != codes.Unimplemented {
					t.Errorf("%s: %v", method, err)
				}
			}
		})
		for range 3 {
			if c := <-watch.C(); c.Method != "_OTHER" {
				t.Errorf("shown is %+v", c)
			}
		}
		p.want(t, "gridloom.request.ttfb", map[string]point{"other grpc 5xx": {3, 0}})
		p.want(t, "gridloom.request.duration", map[string]point{"other grpc 5xx": {3, 0}})
		p.want(t, "gridloom.request.in_flight", map[string]point{})
	})
}

// TestGRPCSocket is one call over a real socket.
func TestGRPCSocket(t *testing.T) {
	p := newProbe(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.StatsHandler(p.StatsHandler()))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	server.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	got := p.points(t, "gridloom.request.ttfb")["Check grpc 2xx"]
	if got.count != 1 || got.sum <= 0 || got.sum > time.Since(before).Seconds() {
		t.Errorf("ttfb %+v within %v", got, time.Since(before))
	}
}

func TestClassOfCode(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated+1; code++ {
		want := classClientError
		switch code {
		case codes.OK:
			want = classSuccess
		case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss, codes.Unauthenticated + 1:
			want = classServerError
		}
		if got := classOfCode(code); got != want {
			t.Errorf("%v is %s, want %s", code, classNames[got], classNames[want])
		}
	}
}
