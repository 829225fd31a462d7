package main

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// scriptedMetrics answers each WatchMetrics with a sample a second, as many as
// the script says, and then ends it; after the script's end it can't be reached.
type scriptedMetrics struct {
	gridloomv1.MetricsServiceClient
	script []int
	refuse error // says so after that instead
	asked  int
}

func (m *scriptedMetrics) WatchMetrics(ctx context.Context, _ *gridloomv1.WatchMetricsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[gridloomv1.WatchMetricsResponse], error) {
	m.asked++
	if m.asked > len(m.script) && m.refuse != nil {
		return nil, m.refuse
	}
	if m.asked > len(m.script) {
		return nil, status.Error(codes.Unavailable, "gone")
	}
	return &scriptedStream{ctx: ctx, left: m.script[m.asked-1]}, nil
}

type scriptedStream struct {
	grpc.ClientStream
	ctx  context.Context
	left int
	sent int
}

func (s *scriptedStream) Recv() (*gridloomv1.WatchMetricsResponse, error) {
	if s.left--; s.left < 0 {
		return nil, io.EOF
	}
	if s.sent++; s.sent > 1 {
		select {
		case <-time.After(time.Second):
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
	}
	return &gridloomv1.WatchMetricsResponse{Node: &gridloomv1.NodeResources{
		Node: "a", State: gridloomv1.NodeState_NODE_STATE_UP,
		Cpu: &gridloomv1.CpuResources{BusyRatio: gauge(float64(s.sent) / 100)},
	}}, nil
}

// liveTop runs gridloom top on a script until ctx ends, and gives what it printed.
func liveTop(t *testing.T, ctx context.Context, m *scriptedMetrics) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	a := &app{stdout: &b, stdin: strings.NewReader("")}
	a.out = &printer{w: &b, before: func() {}}
	o := &topOptions{views: []string{"nodes"}, interval: time.Second}
	err = a.topLive(ctx, &client{metrics: m, endpoint: "n:1"}, o)
	return b.String(), err
}

// TestTopLive: what is no terminal gets a picture a second; a stream that ends, as
// when its node is started anew, is asked for again; the user's end is no error.
func TestTopLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+500*time.Millisecond)
		defer cancel()
		m := &scriptedMetrics{script: []int{4, 3, 100}}
		out, err := liveTop(t, ctx, m)
		if err != nil || m.asked != 3 {
			t.Fatalf("%v, asked %d times", err, m.asked)
		}
		if n := strings.Count(out, "gridloom top  "); n != 10 {
			t.Errorf("%d pictures in ten seconds", n)
		}
		if !strings.Contains(out, "1 node up, 0 down") {
			t.Errorf("no summary in %q", out)
		}
		var busy []string
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == "a" {
				busy = append(busy, f[2])
			}
		}
		// A sample and a refresh that are due at once come in either order.
		if busy = slices.Compact(busy); len(busy) < 5 {
			t.Errorf("it shows %q, want what each sample says", busy)
		}
	})
}

// TestTopGivesUp a mesh that hasn't answered for long, and at once one that
// refuses.
func TestTopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := liveTop(t, t.Context(), &scriptedMetrics{script: []int{1}})
		if took := time.Since(begin); status.Code(err) != codes.Unavailable || took < silentFor || took > silentFor+2*pollEvery {
			t.Errorf("%v after %v", err, took)
		}
		begin = time.Now()
		_, err = liveTop(t, t.Context(), &scriptedMetrics{refuse: status.Error(codes.PermissionDenied, "no")})
		if took := time.Since(begin); status.Code(err) != codes.PermissionDenied || took != 0 {
			t.Errorf("refused: %v after %v", err, took)
		}
	})
}
