package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/gridloom/gridloom/gen"
	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/observability"
)

// call makes one HTTP request. header is pairs of names and values.
func (s *served) call(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp, string(must(io.ReadAll(resp.Body)))
}

// checkProblem checks that an answer is the problem of a kind about a subject.
func checkProblem(t testing.TB, what string, resp *http.Response, body string, kind fault.Kind, subject string) {
	t.Helper()
	var p fault.Problem
	switch err := json.Unmarshal([]byte(body), &p); {
	case resp.StatusCode != kind.Status():
		t.Errorf("%s: %s %s, want %d", what, resp.Status, body, kind.Status())
	case err != nil || resp.Header.Get("Content-Type") != "application/problem+json":
		t.Errorf("%s: %s: %q is no problem", what, resp.Header.Get("Content-Type"), body)
	case p.Title != kind.Reason() || p.Subject != subject || p.Status != resp.StatusCode || p.Detail == "":
		t.Errorf("%s: %s, want one of kind %v about %q", what, body, kind, subject)
	}
}

func TestGatewayRefuses(t *testing.T) {
	s := serve(t, nil)
	const invalid = fault.InvalidArgument
	for _, c := range []struct {
		method, path, body string
		kind               fault.Kind
		subject            string
	}{
		{"POST", "/v1/buckets", `{"bucket":"photos","colour":"red"}`, invalid, "body"},
		{"POST", "/v1/buckets", `{"bucket":"photos"} {}`, invalid, "body"},
		{"POST", "/v1/buckets", `{"bucket":"photos"}x`, invalid, "body"},
		{"POST", "/v1/buckets", `{"bucket":"photos","bucket":"other"}`, invalid, "body"},
		{"POST", "/v1/buckets", `{"bucket":7}`, invalid, "body"},
		{"POST", "/v1/buckets", `["photos"]`, invalid, "body"},
		{"POST", "/v1/buckets", `bucket=photos`, invalid, "body"},
		{"POST", "/v1/buckets", "{\"bucket\":\"ph\xff\"}", invalid, "body"},
		{"POST", "/v1/buckets", ``, invalid, "bucket"},
		{"POST", "/v1/buckets", `{}`, invalid, "bucket"},
		{"POST", "/v1/buckets", `{"bucket":"UPPER"}`, invalid, "bucket"},
		{"POST", "/v1/buckets", `{"bucket":"` + strings.Repeat("a", maxBodyBytes) + `"}`, fault.TooLarge, "body"},
		{"POST", "/v1/buckets?bucket=photos", `{}`, invalid, "bucket"},
		{"POST", "/v1/buckets/photos/objects:delete", `{"keys":[]}`, invalid, "keys"},
		{"POST", "/v1/buckets/photos/objects:move", `{"key":"a","sourceKey":"a"}`, invalid, `object "photos/a"`},
		{"POST", "/v1/buckets/photos/objects:move", `{"key":"a","sourceKey":"b","sourceBucket":"-"}`, invalid, "source_bucket"},
		{"POST", "/v1/buckets/photos/objects:move", `{"key":"a","sourceKey":"b"}`, fault.BucketNotFound, `bucket "photos"`},
		{"GET", "/v1/buckets?colour=red", ``, invalid, "colour"},
		{"GET", "/v1/buckets?pageSize=many", ``, invalid, "query"},
		{"GET", "/v1/buckets?pageSize=1&page_size=2", ``, invalid, "query"},
		{"GET", "/v1/buckets?pageSize=1&pageSize=2", ``, invalid, "query"},
		{"GET", "/v1/buckets?pageSize=%zz", ``, invalid, "query"},
		{"GET", "/v1/buckets?pageSize=-1", ``, invalid, "page_size"},
		{"GET", "/v1/buckets?page_size=1001", ``, invalid, "page_size"},
		{"GET", "/v1/buckets?pageToken=x", ``, invalid, "page_token"},
		{"GET", "/v1/buckets", `{}`, invalid, "body"},
		{"GET", "/v1/buckets/photos?bucket=other", ``, invalid, "bucket"},
		{"GET", "/v1/buckets/photos/object?key=a&conditions=x", ``, invalid, "query"},
		{"GET", "/v1/buckets/photos/object?key=a&conditions.ifMatch[x]=y", ``, invalid, "conditions.ifMatch[x]"},
		{"GET", "/v1/buckets/photos/object?key=a&conditions.if_modified_since=then", ``, invalid, "query"},
		{"GET", "/v1/buckets/photos/object?key=..", ``, invalid, "key"},
		{"DELETE", "/v1/buckets/photos", `{"bucket":"other"}`, invalid, "body"},
		{"GET", "/v1/metrics/resource?subsystem=heat", ``, invalid, "subsystem"},
		{"GET", "/v1/metrics/resource?node=z", ``, invalid, "node"},
		{"GET", "/v1/buckets/photos", ``, fault.BucketNotFound, `bucket "photos"`},
	} {
		what := fmt.Sprintf("%s %s %.60s", c.method, c.path, c.body)
		resp, body := s.call(t, c.method, c.path, c.body)
		checkProblem(t, what, resp, body, c.kind, c.subject)
	}
}

func TestGatewayRoutes(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/", 404, ""},
		{"GET", "/v1/bucket", 404, ""},
		{"GET", "/v1/buckets/", 404, ""},
		{"GET", "/v1//buckets", 404, ""},
		{"GET", "/v1/buckets/../cluster", 404, ""},
		{"GET", "/v1/%63luster", 404, ""},
		{"GET", "/v1/buckets/photos%2Fobject", 404, ""},
		{"GET", "/v1/cluster:x", 404, ""},
		{"POST", "/v1/cluster/nodes/b", 404, ""},
		{"POST", "/v1/cluster/nodes/:drain", 404, ""},
		{"POST", "/v1/cluster/nodes/b/c:drain", 404, ""},
		{"POST", "/v1/cluster/nodes/b:drain:drain", 404, ""},
		{"GET", "/v1/cluster/nodes", 405, "POST"},
		{"GET", "/v1/cluster/nodes/b:leave", 405, "POST"},
		{"POST", "/v1/buckets/photos/objects:burn", 404, ""},
		{"GET", "/data/photos/a", 404, ""},
		{"PUT", "/v1/buckets", 405, "GET, HEAD, POST"},
		{"OPTIONS", "/v1/buckets", 405, "GET, HEAD, POST"},
		{"POST", "/v1/cluster", 405, "GET, HEAD"},
		{"GET", "/v1/buckets/photos/objects:delete", 405, "POST"},
		{"DELETE", "/v1/buckets/photos/objects:move", 405, "POST"},
		{"PATCH", "/v1/buckets/photos", 405, "DELETE, GET, HEAD"},
		{"GET", "/v1/cluster", 200, ""},
		{"HEAD", "/v1/cluster", 200, ""},
	} {
		resp, body := s.call(t, c.method, c.path, "")
		if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %s, Allow %q", c.method, c.path, resp.Status, resp.Header.Get("Allow"))
		}
		if c.status >= 400 && c.method != "HEAD" {
			var p fault.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != c.status {
				t.Errorf("%s %s: %q is no problem", c.method, c.path, body)
			}
		}
	}
}

// TestGatewayOverride: a POST is a POST.
func TestGatewayOverride(t *testing.T) {
	s := serve(t, nil)
	for _, header := range [][]string{
		{"Content-Type", "application/x-www-form-urlencoded"},
		{"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET"},
	} {
		if resp, _ := s.call(t, "POST", "/v1/cluster", "", header...); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST with %v: %s", header, resp.Status)
		}
	}
}

// TestGatewayForwardsNothing: what reaches a service is the principal that the
// HTTP listener made, and no metadata; what comes back is no metadata either.
func TestGatewayForwardsNothing(t *testing.T) {
	s := serve(t, nil)
	var seen context.Context
	s.api.gateway.mux = nil
	conn := newInProcess((&guard{permissions: permissions(), log: discard()}).local, nil)
	register(conn, &Options{Cluster: &clusterFunc{describe: func(ctx context.Context) (*ClusterInfo, error) {
		seen = ctx
		return &ClusterInfo{}, nil
	}}})
	gw, err := newGateway(conn, s.api.gateway.routes, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.api.gateway = gw
	resp, _ := s.call(t, "GET", "/v1/cluster", "",
		"Grpc-Metadata-Authorization", "Bearer x", "Authorization", "Bearer y", "X-Forwarded-For", "1.2.3.4",
		"Cookie", "a=b", "Grpc-Timeout", "bogus", "TE", "trailers")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s", resp.Status)
	}
	if p, ok := iam.FromContext(seen); !ok || p.ID != "root" || p.Door != "http" {
		t.Errorf("principal %+v", p)
	}
	if md, ok := metadata.FromIncomingContext(seen); ok {
		t.Errorf("incoming metadata %v", md)
	}
	if md, _ := metadata.FromOutgoingContext(seen); len(md) > 0 {
		t.Errorf("outgoing metadata %v", md)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "Grpc-") || name == "Trailer" || name == "Transfer-Encoding" {
			t.Errorf("answer has %s", name)
		}
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
}

// clusterFunc can be described.
type clusterFunc struct {
	Cluster
	describe func(context.Context) (*ClusterInfo, error)
}

func (f *clusterFunc) Describe(ctx context.Context) (*ClusterInfo, error) { return f.describe(ctx) }

func TestGatewayCluster(t *testing.T) {
	s := serve(t, nil)
	s.mesh.cluster = &ClusterInfo{DeploymentID: "d", Node: "a", Nodes: []NodeInfo{
		{Name: "a", PeerURL: "http://127.0.0.1:7402", Version: "v0", Up: true, Index: true, Pool: "p", Zone: "z",
			Drives: []DriveInfo{{ID: "1", Path: "/d", Node: "a", Pool: "p", Zone: "z", Reachable: true, State: "read_only", TotalBytes: 1 << 60, UsedBytes: 2, FreeBytes: 3}}},
		{Name: "b", Pool: "p", Draining: true, Leaving: true, NotReady: "it burns", ClockKnown: true, ClockOffset: -1500 * time.Millisecond},
	}, Groups: []GroupInfo{{Name: "system", Leader: "a", Term: 7, Commit: 12, Applied: 11, Members: []MemberInfo{
		{Node: "a", Role: RoleVoter, Match: 12, Known: true},
		{Node: "b", Role: RoleLearner, Match: 9, Lag: 3, Known: true},
		{Node: "c", Role: RoleLeaving},
		{Node: "d", Role: "guest"},
	}}, {Name: "data-1"}}, Warnings: []string{"mind the gap"}}
	_, body := s.call(t, "GET", "/v1/cluster", "")
	checkJSON(t, body, `{"deploymentId":"d","node":"a","nodes":[
		{"name":"a","peerUrl":"http://127.0.0.1:7402","state":"NODE_STATE_UP","version":"v0","index":true,
			"draining":false,"leaving":false,"notReady":"","pool":"p","zone":"z","drives":[
			{"id":"1","path":"/d","state":"DRIVE_STATE_READ_ONLY","totalBytes":"1152921504606846976","usedBytes":"2","freeBytes":"3",
				"node":"a","pool":"p","zone":"z","draining":false,"reachable":true,"error":""}]},
		{"name":"b","peerUrl":"","state":"NODE_STATE_DOWN","version":"","index":false,"drives":[],
			"draining":true,"leaving":true,"notReady":"it burns","pool":"p","zone":"","clockOffsetSeconds":-1.5}],
		"groups":[
			{"name":"system","leader":"a","term":"7","commitIndex":"12","appliedIndex":"11","members":[
				{"node":"a","role":"MEMBER_ROLE_VOTER","matchIndex":"12","lag":"0"},
				{"node":"b","role":"MEMBER_ROLE_LEARNER","matchIndex":"9","lag":"3"},
				{"node":"c","role":"MEMBER_ROLE_LEAVING"},
				{"node":"d","role":"MEMBER_ROLE_UNSPECIFIED"}]},
			{"name":"data-1","leader":"","term":"0","commitIndex":"0","appliedIndex":"0","members":[]}],
		"warnings":["mind the gap"]}`)
}

// checkJSON compares two JSON texts by what they mean.
func checkJSON(t testing.TB, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if gs, ws := must(json.Marshal(g)), must(json.Marshal(w)); string(gs) != string(ws) {
		t.Errorf("got  %s\nwant %s", gs, ws)
	}
}

func TestGatewayMetrics(t *testing.T) {
	s := serve(t, nil)
	s.mesh.resources = []*observability.Resources{
		{Node: "a", Up: true, SampledAtUnixNano: 1e9,
			Drives:   []observability.Drive{{ID: "1", State: "online", Errors: 4, Device: "sda"}},
			Networks: []observability.Network{{Interface: "eth0", SentBytes: observability.Gauge{Current: 1, Average: 2, Maximum: 3, AverageHour: 4, MaximumHour: 5}}},
			CPU:      observability.CPU{Cores: 2},
			Memory:   observability.Memory{Used: observability.Gauge{Current: 5}}},
		observability.Down("b", fmt.Errorf("no route")),
	}
	for query, want := range map[string][]string{
		"":                                  {"drives", "networks", "cpu", "memory"},
		"?subsystem=cpu":                    {"cpu"},
		"?subsystem=drive&subsystem=memory": {"drives", "memory"},
	} {
		resp, body := s.call(t, "GET", "/v1/metrics/resource"+query, "")
		var got struct{ Nodes []map[string]any }
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 || len(got.Nodes) != 2 {
			t.Fatalf("%s: %s %s", query, resp.Status, body)
		}
		a, b := got.Nodes[0], got.Nodes[1]
		for _, part := range []string{"drives", "networks", "cpu", "memory"} {
			list, isList := a[part].([]any)
			has := a[part] != nil && (!isList || len(list) > 0)
			if has != strings.Contains(strings.Join(want, " "), part) {
				t.Errorf("%q: %s is %v", query, part, a[part])
			}
		}
		if a["state"] != "NODE_STATE_UP" || a["sampledAt"] != "1970-01-01T00:00:01Z" {
			t.Errorf("up: %v", a)
		}
		if b["state"] != "NODE_STATE_DOWN" || b["error"] != "no route" || b["cpu"] != nil {
			t.Errorf("down: %v", b)
		}
	}
	_, body := s.call(t, "GET", "/v1/metrics/resource?node=local&subsystem=network", "")
	if !strings.Contains(strings.ReplaceAll(body, " ", ""), `"sentBytes":{"current":1,"average":2,"maximum":3,"average1h":4,"maximum1h":5}`) {
		t.Errorf("network: %s", body)
	}
}

func TestGatewayPanic(t *testing.T) {
	var log logBuffer
	s := serve(t, func(o *Options) { o.Logger = logTo(&log) })
	s.mesh.describe = func() error { panic("secret") }
	resp, body := s.call(t, "GET", "/v1/cluster", "")
	checkProblem(t, "panic", resp, body, fault.Internal, "")
	if strings.Contains(body, "secret") || !strings.Contains(log.String(), "secret") {
		t.Errorf("told %q, logged %q", body, log.String())
	}
}

// TestCountedOnce: a request is counted as what it calls, by the door it came
// through, and not again by the services.
func TestCountedOnce(t *testing.T) {
	telemetry, err := observability.New(t.Context(), observability.Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = telemetry.Shutdown(context.Background()) })
	s := serve(t, func(o *Options) { o.Requests = telemetry.Requests() })
	s.http = newServer(t, telemetry.Requests().HTTP(s.http.Config.Handler))
	if resp, _ := s.call(t, "GET", "/v1/cluster", ""); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	count := func(proto string) int {
		w := httptest.NewRecorder()
		telemetry.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		n := 0
		for line := range strings.Lines(w.Body.String()) {
			if strings.HasPrefix(line, "gridloom_request_duration_seconds_count{") && strings.Contains(line, `proto="`+proto+`"`) {
				if !strings.Contains(line, `api="GetCluster"`) {
					t.Errorf("counted as %s", line)
				}
				n += must(strconv.Atoi(strings.TrimSpace(line[strings.LastIndex(line, " "):])))
			}
		}
		return n
	}
	if h, g := count("http"), count("grpc"); h != 1 || g != 0 {
		t.Errorf("a call over HTTP is counted %d times as HTTP, %d as gRPC", h, g)
	}
	if _, err := pb.NewClusterServiceClient(s.conn).GetCluster(t.Context(), &pb.GetClusterRequest{}); err != nil {
		t.Fatal(err)
	}
	s.api.server.GracefulStop() // the count comes behind the answer
	if h, g := count("http"), count("grpc"); h != 1 || g != 1 {
		t.Errorf("after a call over gRPC: %d as HTTP, %d as gRPC", h, g)
	}
}

// FuzzRoutes: where a route is found here, grpc-gateway finds the same.
func FuzzRoutes(f *testing.F) {
	var called string
	conn := newInProcess(func(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		called = info.FullMethod
		return nil, fault.New(fault.Unimplemented, "", "")
	}, func(_ context.Context, _ any, method string, _ func(context.Context) error) error {
		called = method
		return fault.New(fault.Unimplemented, "", "")
	})
	register(conn, &Options{})
	var routes []route
	for _, desc := range services() {
		routes = append(routes, must(routesOf(desc))...)
	}
	g := must(newGateway(conn, routes, time.Minute))
	for _, r := range routes {
		f.Add(r.method, r.template)
		f.Add(r.method, strings.ReplaceAll(r.template, "{bucket}", "photos:delete"))
		f.Add(r.method, strings.ReplaceAll(r.template, "{name}", "b"))
		f.Add(r.method, strings.ReplaceAll(r.template, "{name}", "b:drain"))
	}
	f.Add("HEAD", "/v1/buckets/a:b/objects:delete")
	f.Add("GET", "/v1/buckets/:x")
	f.Add("GET", "/v1/buckets/a%2fobject")
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.RawQuery != "" {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}, Body: http.NoBody}
		called = ""
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		found, _ := findRoute(routes, method, u.EscapedPath())
		if found == nil && called != "" {
			t.Fatalf("%s %q has no route and called %s", method, path, called)
		}
		if found != nil && u.EscapedPath() == u.Path && called != found.fullMethod {
			t.Fatalf("%s %q is %s and called %q: %d %s", method, path, found.fullMethod, called, w.Code, w.Body)
		}
	})
}

// TestGatewayStalled: a body that does not come is not waited for.
func TestGatewayStalled(t *testing.T) {
	s := serve(t, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
	body, feed := io.Pipe()
	defer feed.Close()
	r := must(http.NewRequestWithContext(t.Context(), "POST", s.http.URL+"/v1/buckets", body))
	resp, err := s.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	checkProblem(t, "stalled", resp, string(must(io.ReadAll(resp.Body))), fault.IncompleteBody, "body")
}

func TestOpenAPI(t *testing.T) {
	h := OpenAPI()
	s := &served{http: newServer(t, h)}
	resp, body := s.call(t, "GET", "/openapi.json", "")
	if resp.StatusCode != 200 || body != gen.OpenAPI() || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s", resp.Status, resp.Header)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	var routes []route
	for _, desc := range services() {
		routes = append(routes, must(routesOf(desc))...)
	}
	described := 0
	for _, operations := range doc.Paths {
		described += len(operations)
	}
	for _, r := range routes {
		if doc.Paths[r.template][strings.ToLower(r.method)] == nil {
			t.Errorf("%s %s is not described", r.method, r.template)
		}
	}
	if described != len(routes) {
		t.Errorf("%d operations are described, %d are there", described, len(routes))
	}
	if resp, _ := s.call(t, "GET", "/openapi.json", "", "If-None-Match", resp.Header.Get("Etag")); resp.StatusCode != http.StatusNotModified {
		t.Errorf("with its ETag: %s", resp.Status)
	}
	if resp, _ := s.call(t, "POST", "/openapi.json", "{}"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}
