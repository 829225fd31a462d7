package api

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// stubDiagnostics shows one of each, and notes what it was asked.
type stubDiagnostics struct{ asked []string }

func (d *stubDiagnostics) WatchCalls(_ context.Context, f CallFilter, send func(CallEvent) error) error {
	d.asked = append(d.asked, fmt.Sprintf("%+v", f))
	call := &observability.Call{
		API: "GetObject", Proto: "http", Method: "GET", Start: time.Unix(1, 0), TTFB: time.Millisecond, Duration: time.Second,
		Status: "404", Class: "4xx", Kind: "object_not_found", Sent: 7, Bucket: "photos", Key: "a\xff", User: "eve",
	}
	for _, e := range []CallEvent{{Node: "a"}, {Node: "a", Call: call, Dropped: 3}, {Node: "b", Err: "is away"}} {
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *stubDiagnostics) WatchLogs(_ context.Context, f LogFilter, send func(LogEvent) error) error {
	d.asked = append(d.asked, fmt.Sprintf("%+v", f))
	line := &observability.Line{Time: time.Unix(1, 0), Level: slog.LevelWarn + 1, Message: "odd", Attrs: []observability.LineAttr{{Name: "n", Value: "1"}}}
	return send(LogEvent{Node: "a", Line: line, Dropped: 2})
}

func TestDiagnostics(t *testing.T) {
	stub := &stubDiagnostics{}
	s := serve(t, func(o *Options) { o.Diagnostics = stub })
	client := pb.NewDiagnosticsServiceClient(s.conn)

	calls, err := client.WatchCalls(t.Context(), &pb.WatchCallsRequest{Node: "a", Api: []string{"GetObject"}, Status: []string{"4xx", "NotFound"}, MinDuration: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	hello, call, gone := must(calls.Recv()), must(calls.Recv()), must(calls.Recv())
	if hello.GetNode() != "a" || hello.Call != nil || gone.GetNode() != "b" || gone.GetError() != "is away" {
		t.Errorf("of the nodes is said %v and %v", hello, gone)
	}
	if c := call.GetCall(); call.GetDropped() != 3 || c.GetApi() != "GetObject" || c.GetStatus() != "404" || c.GetError() != "object_not_found" || c.GetKey() != "a\uFFFD" ||
		c.GetTtfb().AsDuration() != time.Millisecond || c.GetDuration().AsDuration() != time.Second || c.GetUser() != "eve" || c.GetStartedAt().GetSeconds() != 1 {
		t.Errorf("call %v", call)
	}

	lines, err := client.WatchLogs(t.Context(), &pb.WatchLogsRequest{Level: pb.LogLevel_LOG_LEVEL_DEBUG, Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	if l := must(lines.Recv()); l.GetDropped() != 2 || l.GetLine().GetLevel() != pb.LogLevel_LOG_LEVEL_WARN || l.GetLine().GetMessage() != "odd" || l.GetLine().GetAttributes()[0].GetValue() != "1" {
		t.Errorf("line %v", l)
	}
	want := []string{
		"{Node:a APIs:[GetObject] Statuses:[4xx NotFound] MinDuration:1s}",
		"{Node: Level:DEBUG Tail:0 Follow:true}",
	}
	if fmt.Sprint(stub.asked) != fmt.Sprint(want) {
		t.Errorf("asked was %q, want %q", stub.asked, want)
	}

	// The same as JSON, a line each.
	resp, err := http.Get(s.http.URL + "/v1/diagnostics/calls?status=4xx&minDuration=1.5s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var got []string
	for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
		got = append(got, strings.ReplaceAll(scan.Text(), " ", ""))
	}
	if resp.StatusCode != 200 || len(got) != 3 || !strings.HasPrefix(got[0], `{"result":{"node":"a"`) || !strings.Contains(got[1], `"status":"404"`) || !strings.Contains(got[2], `"error":"isaway"`) {
		t.Errorf("%s: %q", resp.Status, got)
	}
	if last := stub.asked[len(stub.asked)-1]; last != "{Node: APIs:[] Statuses:[4xx] MinDuration:1.5s}" {
		t.Errorf("asked was %q", last)
	}
}

// TestDiagnosticsRefuses: an error names the field.
func TestDiagnosticsRefuses(t *testing.T) {
	s := serve(t, func(o *Options) { o.Diagnostics = &stubDiagnostics{} })
	client := pb.NewDiagnosticsServiceClient(s.conn)
	for field, r := range map[string]*pb.WatchCallsRequest{
		"min_duration": {MinDuration: durationpb.New(-1)},
		"status":       {Status: []string{"404", "9xx"}},
		"api":          {Api: make([]string, filterMax+1)},
	} {
		stream := must(client.WatchCalls(t.Context(), r))
		if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, r := range map[string]*pb.WatchLogsRequest{"tail": {Tail: 1001}, "level": {Level: 9}} {
		stream := must(client.WatchLogs(t.Context(), r))
		if _, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	without := pb.NewDiagnosticsServiceClient(serve(t, nil).conn)
	if _, err := must(without.WatchCalls(t.Context(), &pb.WatchCallsRequest{})).Recv(); err == nil {
		t.Error("calls are shown by nobody")
	}
}

// TestUnknownAPI: a name that no call will have is an error that helps.
func TestUnknownAPI(t *testing.T) {
	s := serve(t, func(o *Options) { o.Diagnostics = &stubDiagnostics{} })
	client := pb.NewDiagnosticsServiceClient(s.conn)
	for name, near := range map[string]string{
		"GetObjects": "GetObject", "getobject": "GetObject", "Put": "Live", "WatchCall": "WatchCalls", "": "List", "Metrics": "GetMetrics",
		strings.Repeat("GetObject", 10_000): "GetObject",
	} {
		_, err := must(client.WatchCalls(t.Context(), &pb.WatchCallsRequest{Api: []string{"GetObject", name}})).Recv()
		checkStatus(t, name[:min(len(name), 20)], err, fault.InvalidArgument, "api")
		if err != nil && near != "Live" && len(name) < 20 && !strings.Contains(err.Error(), fmt.Sprintf("%q is no API; the nearest is %s.", name, near)) {
			t.Errorf("%q: %v, want %s", name, err, near)
		}
	}
	resp, body := s.call(t, "GET", "/v1/diagnostics/calls?api=GetObjekt", "")
	checkProblem(t, "by JSON", resp, body, fault.InvalidArgument, "api")
	for _, name := range Names() {
		if err := checkAPIs([]string{name}); err != nil {
			t.Error(err)
		}
	}
}

func TestCallFilter(t *testing.T) {
	call := &observability.Call{API: "GetObject", Status: "404", Class: "4xx", Kind: "object_not_found", Duration: time.Second}
	fine := &observability.Call{API: "GetObject", Status: "OK", Class: "2xx"}
	for _, c := range []struct {
		f    CallFilter
		call *observability.Call
		want bool
	}{
		{CallFilter{}, call, true},
		{CallFilter{APIs: []string{"PutObject", "GetObject"}}, call, true},
		{CallFilter{APIs: []string{"PutObject"}}, call, false},
		{CallFilter{Statuses: []string{"404"}}, call, true},
		{CallFilter{Statuses: []string{"5xx", "object_not_found"}}, call, true},
		{CallFilter{Statuses: []string{"error"}}, call, true},
		{CallFilter{Statuses: []string{"error"}}, fine, false},
		{CallFilter{Statuses: []string{"2xx"}}, fine, true},
		{CallFilter{MinDuration: time.Second}, call, true},
		{CallFilter{MinDuration: time.Second + 1}, call, false},
		{CallFilter{APIs: []string{"GetObject"}, Statuses: []string{"5xx"}}, call, false},
	} {
		if got := c.f.Fits(c.call); got != c.want {
			t.Errorf("%+v: %v of %+v", c.f, got, c.call)
		}
	}
	for name, want := range map[string]bool{
		"404": true, "99": false, "600": false, "2xx": true, "6xx": false, "xx": false, "NotFound": true, "Gone": false,
		fault.Overloaded.Reason(): true, "error": true, "": false, "OK": true,
	} {
		if isStatusName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
