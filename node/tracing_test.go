package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/observability"
)

// receiver is a real OTLP receiver, which keeps the spans.
type receiver struct {
	coltraces.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []seenSpan
}

// seenSpan is a span, and the node that it came from.
type seenSpan struct {
	*tracepb.Span
	node string
}

func (r *receiver) Export(_ context.Context, e *coltraces.ExportTraceServiceRequest) (*coltraces.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range e.ResourceSpans {
		node := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.instance.id" {
				node = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				r.spans = append(r.spans, seenSpan{span, node})
			}
		}
	}
	return &coltraces.ExportTraceServiceResponse{}, nil
}

type metricsSink struct {
	colmetrics.UnimplementedMetricsServiceServer
}

func (metricsSink) Export(context.Context, *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

// receive starts a receiver, and gives where it listens.
func receive(t *testing.T) (*receiver, observability.OTLP) {
	t.Helper()
	l, r := openListener(t), &receiver{}
	server := grpc.NewServer()
	coltraces.RegisterTraceServiceServer(server, r)
	colmetrics.RegisterMetricsServiceServer(server, metricsSink{})
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	p := observability.Push{Protocol: observability.GRPC, Endpoint: "http://" + l.Addr().String()}
	return r, observability.OTLP{Metrics: p, Traces: p}
}

// tree draws the spans of a trace that hang below a parent: of each its name, its
// node and its kind. Brothers are in the order of what is drawn.
func (r *receiver) tree(trace, parent string) string {
	var drawn []string
	for _, s := range r.spans {
		if hex.EncodeToString(s.TraceId) != trace || hex.EncodeToString(s.ParentSpanId) != parent {
			continue
		}
		text := fmt.Sprintf("%s at %s, %s", s.Name, s.node, strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")))
		if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			text += ", failed"
		}
		for line := range strings.Lines(r.tree(trace, hex.EncodeToString(s.SpanId))) {
			text += "\n\t" + strings.TrimSuffix(line, "\n")
		}
		drawn = append(drawn, text+"\n")
	}
	slices.Sort(drawn)
	return strings.Join(drawn, "")
}

// traceOf makes the header of a caller's trace, and gives its ids.
func traceOf(n int) (header, trace, parent string) {
	trace, parent = fmt.Sprintf("%032x", 0xabc000+n), fmt.Sprintf("%016x", 0xdef000+n)
	return "00-" + trace + "-" + parent + "-01", trace, parent
}

// TestATraceFollowsAPut sends puts and gets to a node that neither leads the index
// nor keeps a copy, with a trace of the client's, and looks at what a collector
// has received in the end: from the listener to every replica, and to the commit.
func TestATraceFollowsAPut(t *testing.T) {
	collector, endpoint := receive(t)
	cfgs := meshConfigs(t, t.TempDir(), 4)
	for i := range cfgs {
		cfgs[i].OTLP = endpoint
	}
	cfgs[3].Pool, cfgs[3].Drives = "small", cfgs[3].Drives[:1] // so that the other has more free
	nodes := startNodes(t, cfgs)
	at := nodes[3]
	makeBucket(t, nodes[0], "traced")
	awaitDrives(t, at, 7) // or it would know no better place than its own

	// A busy machine may have a put go on with two copies, or a call be tried
	// again: each kind is made a few times, and must look as it should once.
	const times = 3
	conn, err := grpc.NewClient(at.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	const inGrid, inBulk = 100 << 10, 1 << 20
	for i := range times {
		for kind, size := range []int{inGrid, inBulk} {
			header, _, _ := traceOf(10*kind + i)
			expect(t, http.StatusCreated, http.MethodPut, at.url(fmt.Sprintf("/data/traced/%d/%d", size, i)), bytes.NewReader(randomBytes(size)), "Traceparent", header)
			header, _, _ = traceOf(10*(kind+2) + i)
			expect(t, http.StatusOK, http.MethodGet, at.url(fmt.Sprintf("/data/traced/%d/%d", size, i)), nil, "Traceparent", header)
		}
		header, _, _ := traceOf(40 + i)
		putByGRPC(t, conn, header, fmt.Sprint("grpc", i), randomBytes(inGrid))
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	for _, n := range nodes {
		n.stop(t) // and with it what it has to send
	}

	collector.mu.Lock()
	defer collector.mu.Unlock()
	for kind, wanted := range []struct{ root, copied string }{
		{"PutObject", "\tobject.copy at d, internal\n\t\tgrid object.write at d, client\n\t\t\tgrid object.write at %s, server\n"},
		{"PutObject", "\tobject.copy at d, internal\n\t\tbulk.put at %s, server\n"},
		{"GetObject", "grid object.read at d, client\n"},
		{"GetObject", "\tobject.read at d, internal\n\t\tbulk.get at "},
		{"PutObject", "\tobject.copy at d, internal\n\t\tgrid object.write at d, client\n\t\t\tgrid object.write at %s, server\n"},
	} {
		var parts []string
		if wanted.root == "PutObject" {
			for _, copied := range []string{"a", "b", "c"} {
				parts = append(parts, fmt.Sprintf(wanted.copied, copied))
			}
		} else {
			parts = append(parts, wanted.copied)
		}
		var trees []string
		good := false
		for i := range times {
			_, trace, parent := traceOf(10*kind + i)
			tree := collector.tree(trace, parent)
			if !strings.HasPrefix(tree, wanted.root+" at d, server\n") || strings.Count(tree, " at ") != strings.Count(tree, "\n") || strings.Count("\n"+tree, "\n"+wanted.root) != 1 {
				t.Errorf("kind %d: the trace has not one root, at the node that was asked:\n%s", kind, tree)
			}
			trees = append(trees, tree)
			whole := !slices.ContainsFunc(parts, func(part string) bool { return strings.Count(tree, part) != 1 })
			if wanted.root == "PutObject" {
				whole = whole && committed(tree) && strings.Count(tree, "\tobject.copy") == 3
			}
			good = good || whole && !strings.Contains(tree, "failed")
		}
		if !good {
			t.Errorf("kind %d: none of the traces shows all of %q:\n%s", kind, parts, strings.Join(trees, "\n"))
		}
	}
}

// awaitDrives waits until a node has heard of the drives of all.
func awaitDrives(t *testing.T, r *running, drives int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); ; {
		heard := 0
		for _, d := range r.objects.Health() {
			if d.TotalBytes > 0 {
				heard++
			}
		}
		if heard == drives {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%s has heard of %d drives of %d", r.cfg.Name, heard, drives)
		case <-tick.C:
		}
	}
}

// committed tells that a tree shows a command on its way to the leader and into
// its log, at one of the nodes that keep the index.
func committed(tree string) bool {
	for _, leader := range []string{"a", "b", "c"} {
		if strings.Contains(tree, "\tcontrol.propose at d, internal\n\t\tgrid control.propose at d, client\n\t\t\tgrid control.propose at "+leader+", server\n\t\t\t\traft.commit at "+leader+", internal\n") {
			return true
		}
	}
	// Where the node that was asked has come to lead itself.
	return strings.Contains(tree, "\tcontrol.propose at d, internal\n\t\traft.commit at d, internal\n")
}

// putByGRPC puts an object in one chunk.
func putByGRPC(t *testing.T, conn *grpc.ClientConn, traceparent, key string, body []byte) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+testKey.String(), "traceparent", traceparent)
	stream, err := pb.NewObjectServiceClient(conn).PutObject(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*pb.PutObjectRequest{
		{Part: &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "traced", Key: key}}},
		{Part: &pb.PutObjectRequest_Chunk{Chunk: body}},
		{Part: &pb.PutObjectRequest_Trailer{Trailer: &pb.PutObjectTrailer{}}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
}

// TestUntracedCostsNothing: without a collector nothing is in the way of a call;
// with one, what isn't sampled allocates nothing.
func TestUntracedCostsNothing(t *testing.T) {
	off := &Node{log: slog.New(slog.DiscardHandler)}
	if hooks := off.gridHooks(); hooks.CallStart != nil || hooks.CallEnd != nil || hooks.ServeStart != nil || hooks.ServeEnd != nil {
		t.Error("the grid's calls are watched without a collector")
	}
	if off.spanHook() != nil {
		t.Error("the index is watched without a collector")
	}

	_, endpoint := receive(t)
	tel, err := observability.New(t.Context(), observability.Options{Node: "a", OTLP: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tel.Shutdown(context.Background()) }()
	on := &Node{log: off.log, spans: tel.Spans(), instruments: &instruments{}}
	hooks, span, object := on.gridHooks(), on.spanHook(), on.objectHooks()
	ctx, call := t.Context(), grid.CallInfo{Host: "http://b", Name: "object.write"}
	if n := testing.AllocsPerRun(100, func() {
		called := hooks.CallStart(ctx, call)
		served := hooks.ServeStart(called, call)
		inner, end := span(served, "raft.commit")
		inner, endCopy := object.Span(inner, "object.copy", "b")
		if called != ctx || inner != ctx || object.Traceparent(inner) != "" {
			t.Error("what isn't sampled has a span")
		}
		endCopy(nil)
		end(nil)
		hooks.ServeEnd(served, call, grid.CallResult{})
		hooks.CallEnd(called, call, grid.CallResult{})
	}); n != 0 {
		t.Errorf("a call that isn't sampled costs %g allocations", n)
	}
}

// TestScrubIsTraced: what a node does that nobody has asked for is a trace of its
// own, with the calls that it makes.
func TestScrubIsTraced(t *testing.T) {
	collector, endpoint := receive(t)
	endpoint.Traces.Delay = 50 * time.Millisecond
	cfgs := meshConfigs(t, t.TempDir(), 2)
	for i := range cfgs {
		cfgs[i].OTLP = endpoint
	}
	nodes := startNodes(t, cfgs)
	makeBucket(t, nodes[0], "scrubbed")
	expect(t, http.StatusCreated, http.MethodPut, nodes[0].url("/data/scrubbed/k"), bytes.NewReader(randomBytes(100<<10)))
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for limit := time.Now().Add(20 * time.Second); ; <-look.C {
		// A round that comes before the drives are known looks at none: it is asked for again.
		expect(t, http.StatusOK, http.MethodPost, nodes[0].url("/v1/heal:start"), strings.NewReader(`{"verify":true}`), "Content-Type", "application/json")
		collector.mu.Lock()
		found := slices.IndexFunc(collector.spans, func(s seenSpan) bool { return s.Name == "scrub.verify" })
		var span seenSpan
		if found >= 0 {
			span = collector.spans[found]
		}
		collector.mu.Unlock()
		if found < 0 && time.Now().Before(limit) {
			continue
		}
		if found < 0 {
			t.Fatalf("the scrub has no span: %s", expect(t, http.StatusOK, http.MethodGet, nodes[0].url("/v1/heal"), nil))
		}
		at := map[string]string{}
		for _, a := range span.Attributes {
			at[a.Key] = fmt.Sprint(a.Value.GetStringValue(), a.Value.GetIntValue())
		}
		if len(span.ParentSpanId) > 0 || len(at["gridloom.drive"]) < 8 || at["gridloom.segments"] == "0" || len(at) != 2 {
			t.Errorf("%v", span)
		}
		return
	}
}
