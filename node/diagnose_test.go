package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/observability"
)

// diagnosticsOf gives a client of a node's, and a context with the root key and a
// bound.
func diagnosticsOf(t *testing.T, r *running) (pb.DiagnosticsServiceClient, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+testKey.String()), time.Minute)
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
	})
	return pb.NewDiagnosticsServiceClient(conn), ctx
}

// TestWatchTheMesh asks one node for the calls and the logs of all: what happens at
// each of them is shown, of calls what fits; when a node is stopped that is said,
// and the others go on.
func TestWatchTheMesh(t *testing.T) {
	nodes := startMesh(t, t.TempDir(), 3)
	makeBucket(t, nodes[0], "watched")
	client, ctx := diagnosticsOf(t, nodes[0])

	calls, err := client.WatchCalls(ctx, &pb.WatchCallsRequest{Api: []string{"GetObject"}, Status: []string{"error"}})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *pb.WatchCallsResponse {
		t.Helper()
		m, err := calls.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	begun := map[string]bool{}
	for len(begun) < 3 {
		m := next()
		if m.Call != nil || m.GetError() != "" || begun[m.GetNode()] {
			t.Fatalf("before there were calls came %v", m)
		}
		begun[m.GetNode()] = true
	}
	for _, r := range nodes {
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/watched/"+r.cfg.Name), strings.NewReader("x")) // another API
		expect(t, http.StatusOK, http.MethodGet, r.url("/data/watched/"+r.cfg.Name), nil)                         // no error
		expect(t, http.StatusNotFound, http.MethodGet, r.url("/data/watched/no-"+r.cfg.Name), nil)
	}
	seen := map[string]string{}
	for len(seen) < 3 {
		if m := next(); m.Call != nil {
			seen[m.GetNode()] = fmt.Sprint(m.GetCall().GetApi(), " ", m.GetCall().GetStatus(), " ", m.GetCall().GetError(), " ", m.GetCall().GetBucket(), "/", m.GetCall().GetKey(), " by ", m.GetCall().GetUser())
		}
	}
	for _, r := range nodes {
		if want := "GetObject 404 object_not_found watched/no-" + r.cfg.Name + " by root"; seen[r.cfg.Name] != want {
			t.Errorf("of %s is shown %q, want %q", r.cfg.Name, seen[r.cfg.Name], want)
		}
	}

	logs, err := client.WatchLogs(ctx, &pb.WatchLogsRequest{Follow: true, Tail: -1, Level: pb.LogLevel_LOG_LEVEL_DEBUG})
	if err != nil {
		t.Fatal(err)
	}
	begun = map[string]bool{}
	told := map[string]bool{}
	for len(told) < 3 {
		m, err := logs.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.Line == nil && !begun[m.GetNode()] {
			begun[m.GetNode()] = true
			for _, r := range nodes {
				if r.cfg.Name == m.GetNode() {
					r.log.Debug("a test says something", "its", "word")
				}
			}
		}
		if m.GetLine().GetMessage() == "a test says something" {
			if a := m.GetLine().GetAttributes(); len(a) != 1 || a[0].GetName() != "its" || a[0].GetValue() != "word" || m.GetLine().GetLevel() != pb.LogLevel_LOG_LEVEL_DEBUG {
				t.Errorf("line %v", m)
			}
			told[m.GetNode()] = true
		}
	}

	nodes[2].stop(t)
	for m := next(); m.GetError() == ""; m = next() {
		if m.Call != nil {
			t.Errorf("unasked came %v", m)
		}
	}
	expect(t, http.StatusNotFound, http.MethodGet, nodes[1].url("/data/watched/afterwards"), nil)
	for m := next(); m.GetCall().GetKey() != "afterwards"; m = next() {
		if m.GetNode() != "c" {
			t.Errorf("unasked came %v", m)
		}
	}
}

// TestLastLines: without following it ends, and a node that isn't there is an error
// of that field.
func TestLastLines(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	client, ctx := diagnosticsOf(t, r)
	r.log.Warn("one")
	r.log.Info("two")
	r.log.Warn("three")
	stream, err := client.WatchLogs(ctx, &pb.WatchLogsRequest{Node: "local", Level: pb.LogLevel_LOG_LEVEL_WARN, Tail: 2})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		got = append(got, m.GetLine().GetMessage())
	}
	if !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("shown are %q", got)
	}
	stream, err = client.WatchLogs(ctx, &pb.WatchLogsRequest{Node: "nobody"})
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), `node: "nobody"`) {
		t.Errorf("a node that isn't there: %v", err)
	}
}

// TestLossIsTold: who watches learns what was lost, also when nothing else comes.
func TestLossIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		from := make(chan *int)
		lost := uint64(0)
		var got []string
		begin := time.Now()
		err := pass(ctx, from, func() uint64 { return lost }, func(v *int, dropped int64) error {
			got = append(got, fmt.Sprint(v == nil, " ", dropped, " ", time.Since(begin)))
			switch len(got) {
			case 1:
				lost = 7
			case 2:
				time.AfterFunc(3*time.Second, cancel)
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) || !slices.Equal(got, []string{"true 0 0s", "true 7 0s"}) {
			t.Errorf("%v, %q", err, got)
		}
		if over := time.Since(begin); over != 3*time.Second {
			t.Errorf("it has ended after %v", over)
		}
	})
}

// TestGatherGoesOn: a node that can't be asked is told of once, and asked until it
// can.
func TestGatherGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, tries := time.Now(), 0
		var got []string
		enough := errors.New("enough")
		err := gather(t.Context(), func() []string { return []string{"a"} }, true, func(ctx context.Context, _ string, give func(string) error) error {
			if tries++; tries < 4 {
				return fault.New(fault.Waiting, "node a", "is away")
			}
			return give("back")
		}, func(name string, err error) string { return name + ": " + err.Error() }, func(s string) error {
			if got = append(got, s); s == "back" {
				return enough
			}
			return nil
		})
		if err != enough || !slices.Equal(got, []string{"a: node a: is away", "back"}) || time.Since(begin) != 3*askAgain {
			t.Errorf("%v after %v: %q", err, time.Since(begin), got)
		}
	})
}

// TestGatherFollowsTheMesh: a node that joins is asked as well, one that leaves no
// more, and those between them go on as they were.
func TestGatherFollowsTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		names := func() []string {
			if time.Since(begin) < namesEvery {
				return []string{"a", "b"}
			}
			return []string{"b", "c"}
		}
		var mu sync.Mutex
		log := map[string]int{}
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			log[fmt.Sprint(what, " at ", time.Since(begin).Round(time.Second))]++
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*namesEvery+time.Second)
		defer cancel()
		err := gather(ctx, names, true, func(ctx context.Context, name string, give func(string) error) error {
			note(name + " is asked")
			if err := give(name); err != nil {
				return err
			}
			<-ctx.Done()
			note(name + " is left")
			return ctx.Err()
		}, func(name string, err error) string { return name + " has failed: " + err.Error() }, func(s string) error {
			note(s)
			return nil
		})
		want := map[string]int{
			"a is asked at 0s": 1, "b is asked at 0s": 1, "a at 0s": 1, "b at 0s": 1,
			"a is left at 5s": 1, "c is asked at 5s": 1, "c at 5s": 1,
			"b is left at 11s": 1, "c is left at 11s": 1,
		}
		if !errors.Is(err, context.DeadlineExceeded) || !maps.Equal(log, want) {
			t.Errorf("%v: %v, want %v", err, log, want)
		}
	})
}

// TestEveryAPIIsKnown: whatever a request is measured as can be asked for by name.
func TestEveryAPIIsKnown(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.CORS.Origins = []string{"https://page.example"}
	r := runNode(t, cfg)
	r.await(t)
	makeBucket(t, r, "named")
	for _, c := range []struct{ method, path, header, value string }{
		{"GET", "/livez", "", ""}, {"GET", "/readyz", "", ""}, {"GET", "/metrics", "", ""}, {"GET", "/v2/metrics/resource", "", ""},
		{"GET", "/openapi.json", "", ""}, {"GET", "/debug/pprof/", "", ""}, {"GET", "/nothing", "", ""}, {"GET", "/v1/buckets", "", ""},
		{"PUT", "/data/named/k", "", ""}, {"GET", "/data/named/k", "", ""}, {"HEAD", "/data/named/k", "", ""}, {"DELETE", "/data/named/k", "", ""},
		{"GET", "/data/named/k", "Authorization", "Bearer nobody"}, {"PATCH", "/data/named/k", "", ""},
		{"OPTIONS", "/data/named/k", "Origin", "https://page.example"},
	} {
		headers := []string{c.header, c.value}
		if c.header == "" {
			headers = nil
		}
		if c.method == "OPTIONS" {
			headers = append(headers, "Access-Control-Request-Method", "PUT")
		}
		_, _ = call(t, c.method, r.url(c.path), nil, headers...)
	}
	known, seen := api.Names(), map[string]bool{}
	for _, m := range scraped(t, r, "/metrics")["gridloom_request_duration_seconds"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "api" {
				seen[l.GetValue()] = true
				if !slices.Contains(known, l.GetValue()) {
					t.Errorf("%s is no API that can be asked for", l.GetValue())
				}
			}
		}
	}
	for _, name := range []string{"Live", "Ready", "GetMetrics", "GetOpenAPI", "Profile", "Preflight", "Unauthenticated", "other", "PutObject", "GetResourceMetrics"} {
		if !seen[name] {
			t.Errorf("nothing was measured as %s", name)
		}
	}
}

// TestProfiles: who may change the mesh gets profiles of the process, one at a
// time, and nobody else does.
func TestProfiles(t *testing.T) {
	p := &profiler{}
	root := iam.Principal{ID: iam.RootID, User: iam.RootID, Root: true, Via: iam.ViaRoot}
	ask := func(ctx context.Context, as *iam.Principal, method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		if as != nil {
			ctx = iam.WithPrincipal(ctx, *as)
		}
		p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, target, nil))
		return w
	}
	for _, c := range []struct {
		as             *iam.Principal
		method, target string
		status         int
		part           string
	}{
		{&root, "GET", "/debug/pprof/", 200, "goroutine"},
		{&root, "GET", "/debug/pprof/heap?gc=1", 200, "\x1f\x8b"},
		{&root, "GET", "/debug/pprof/goroutine?debug=2", 200, "TestProfiles"},
		{&root, "GET", "/debug/pprof/allocs", 200, "\x1f\x8b"},
		{&root, "GET", "/debug/pprof/block", 404, "block"},
		{&root, "GET", "/debug/pprof/cmdline", 404, "cmdline"},
		{&root, "GET", "/debug/pprof/../metrics", 404, "metrics"},
		{&root, "POST", "/debug/pprof/heap", 405, "POST"},
		{&root, "GET", "/debug/pprof/profile?seconds=0", 400, "seconds"},
		{&root, "GET", "/debug/pprof/profile?seconds=301", 400, "seconds"},
		{&root, "GET", "/debug/pprof/trace?seconds=1&seconds=2", 400, "seconds"},
		{&root, "GET", "/debug/pprof/heap?debug=1", 400, "debug"},
		{&iam.Principal{ID: "k", User: "eve"}, "GET", "/debug/pprof/", 403, "permission_denied"},
		{nil, "GET", "/debug/pprof/heap", 401, "unauthenticated"},
	} {
		w := ask(t.Context(), c.as, c.method, c.target)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.part) {
			t.Errorf("%s %s: %d, want %d with %q\n%.300s", c.method, c.target, w.Code, c.status, c.part, w.Body)
		}
	}

	for _, kind := range []string{"profile", "trace"} {
		ctx, cancel := context.WithCancel(t.Context())
		taken := make(chan *httptest.ResponseRecorder)
		go func() {
			w := ask(ctx, &root, "GET", "/debug/pprof/"+kind+"?seconds=300")
			for w.Code == http.StatusTooManyRequests { // beside one of those below
				w = ask(ctx, &root, "GET", "/debug/pprof/"+kind+"?seconds=300")
			}
			taken <- w
		}()
		for limit := time.Now().Add(20 * time.Second); ; {
			w := ask(t.Context(), &root, "GET", "/debug/pprof/threadcreate")
			if w.Code == http.StatusTooManyRequests {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("beside a %s there is another profile: %d", kind, w.Code)
			}
		}
		cancel() // its client is gone
		if w := <-taken; w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d with %d bytes", kind, w.Code, w.Body.Len())
		}
	}
}

// TestErrorHeader: the metrics find the kind of an error where it is written.
func TestErrorHeader(t *testing.T) {
	if observability.ErrorHeader != fault.ReasonHeader {
		t.Errorf("%s and %s", observability.ErrorHeader, fault.ReasonHeader)
	}
	r := startMesh(t, t.TempDir(), 1)[0]
	makeBucket(t, r, "errors")
	expect(t, http.StatusNotFound, http.MethodGet, r.url("/data/errors/none"), nil)
	expect(t, http.StatusNotFound, http.MethodGet, r.url("/v1/buckets/none"), nil)
	client, ctx := diagnosticsOf(t, r)
	stream, err := client.WatchLogs(ctx, &pb.WatchLogsRequest{Tail: 5000})
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil {
		t.Error("5000 lines are allowed")
	}
	wanted := []string{
		`gridloom_request_errors_total{api="GetObject",kind="object_not_found",node="a",proto="http"} 1`,
		`gridloom_request_errors_total{api="GetBucket",kind="bucket_not_found",node="a",proto="http"} 1`,
		`gridloom_request_errors_total{api="WatchLogs",kind="invalid_argument",node="a",proto="grpc"} 1`,
	}
	for limit := time.Now().Add(20 * time.Second); ; { // a call is counted when its handler has returned
		w := httptest.NewRecorder()
		r.telemetry.MetricsHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		left := slices.DeleteFunc(slices.Clone(wanted), func(line string) bool { return strings.Contains(w.Body.String(), line+"\n") })
		if len(left) == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("missing: %q", left)
		}
	}
}
