package observability

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
)

// clock is the client's own: it stands on the client's end of a connection, and
// notes when the first byte of a request goes out and the first of an answer's
// body comes in, or its head where it has no body. It reads the bytes itself and
// knows nothing of what is measured.
type clock struct {
	net.Conn
	split func(c *clock, now time.Time) // finds body and end in what has come

	mu         sync.Mutex
	sent       time.Time // the request's first byte
	head, body time.Time
	unseen     []byte
	inBody     bool
}

func (c *clock) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.sent.IsZero() {
		c.sent = time.Now()
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *clock) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unseen = append(c.unseen, p[:n]...)
	c.split(c, time.Now())
	return n, err
}

// ttfb is what the client has waited for the first byte.
func (c *clock) ttfb() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.body.IsZero() {
		return c.body.Sub(c.sent)
	}
	return c.head.Sub(c.sent)
}

// splitHTTP1 finds the end of the final head, and what follows it but for the
// frame of an empty chunked body.
func splitHTTP1(c *clock, now time.Time) {
	for !c.inBody {
		head, rest, whole := bytes.Cut(c.unseen, []byte("\r\n\r\n"))
		if !whole {
			return
		}
		c.unseen = rest
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 1")) {
			c.inBody, c.head = true, now
		}
	}
	if c.body.IsZero() && len(c.unseen) > 0 && !bytes.Equal(c.unseen, []byte("0\r\n\r\n")) {
		c.body = now
	}
}

// splitHTTP2 finds the first DATA frame with something in it, and the HEADERS
// that end a stream (RFC 9113, 4.1 and 6.1 to 6.2).
func splitHTTP2(c *clock, now time.Time) {
	for len(c.unseen) >= 9 {
		length := int(c.unseen[0])<<16 | int(c.unseen[1])<<8 | int(c.unseen[2])
		if len(c.unseen) < 9+length {
			return
		}
		switch kind, flags := c.unseen[3], c.unseen[4]; {
		case kind == 0 && length > 0 && c.body.IsZero():
			c.body = now
		case kind == 1 && flags&1 != 0 && c.head.IsZero():
			c.head = now
		}
		c.unseen = c.unseen[9+length:]
	}
}

// TestGRPCByTheClientsClock: what is measured is what a client waits for, to the
// nanosecond, as time passes in the handlers alone.
func TestGRPCByTheClientsClock(t *testing.T) {
	for name, test := range map[string]struct {
		metadata []string
		stream   bool
		service  string
		want     time.Duration
	}{
		"unary":                                 {[]string{"before", "200ms"}, false, "", 200 * time.Millisecond},
		"unary, trailers only":                  {[]string{"before", "200ms"}, false, "nobody", 200 * time.Millisecond},
		"stream that stalls before":             {[]string{"before", "200ms", "after", "10ms"}, true, "", 200 * time.Millisecond},
		"stream that stalls after":              {[]string{"before", "10ms", "after", "200ms"}, true, "", 10 * time.Millisecond},
		"stream with headers long before":       {[]string{"headers", "", "before", "200ms"}, true, "", 200 * time.Millisecond},
		"stream that fails before it has begun": {[]string{"empty", "", "before", "200ms"}, true, "broken", 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProbe(t)
				mine := &clock{split: splitHTTP2}
				l := bufconn.Listen(64 << 10)
				server := grpc.NewServer(grpc.StatsHandler(p.StatsHandler()))
				grpc_health_v1.RegisterHealthServer(server, slowHealth{health.NewServer(), t})
				served := make(chan error)
				go func() { served <- server.Serve(l) }()
				conn, err := grpc.NewClient("passthrough:///node",
					grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
						inner, err := l.DialContext(ctx)
						mine.Conn = inner
						return mine, err
					}))
				if err != nil {
					t.Fatal(err)
				}
				conn.Connect()
				synctest.Wait()
				time.Sleep(time.Second) // dialling is over, and counts for nothing
				mine.mu.Lock()
				mine.sent = time.Time{}
				mine.mu.Unlock()
				ctx := metadata.AppendToOutgoingContext(t.Context(), test.metadata...)
				request, client := &grpc_health_v1.HealthCheckRequest{Service: test.service}, grpc_health_v1.NewHealthClient(conn)
				if test.stream {
					stream, err := client.Watch(ctx, request)
					for err == nil {
						_, err = stream.Recv()
					}
				} else {
					_, _ = client.Check(ctx, request)
				}
				if got := mine.ttfb(); got != test.want {
					t.Errorf("the client has waited for %v, want %v", got, test.want)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				server.GracefulStop()
				if err := <-served; err != nil {
					t.Error(err)
				}
				p.wantOne(t, mine.ttfb())
			})
		})
	}
}

// wantOne wants one request to be measured, and its time to first byte to be this.
func (p *probe) wantOne(t *testing.T, ttfb time.Duration) {
	t.Helper()
	points := p.points(t, "gridloom.request.ttfb")
	for labels, point := range points {
		if point.count != 1 || point.sum != ttfb.Seconds() {
			t.Errorf("%s: %d requests of %v s are measured; the client has waited for %v", labels, point.count, point.sum, ttfb)
		}
	}
	if len(points) != 1 {
		t.Errorf("measured are %v, want one", points)
	}
}
