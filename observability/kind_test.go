package observability

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// errorsOf gives gridloom.request.errors from the text, by "api proto kind".
func errorsOf(t *testing.T, tel *Telemetry, name string) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	family := parseText(t, []byte(scrape(t, tel, "")))[name]
	for _, m := range family.GetMetric() {
		var labels []string
		for _, want := range []string{"bucket", "api", "proto", "kind"} {
			for _, l := range m.GetLabel() {
				if l.GetName() == want {
					labels = append(labels, l.GetValue())
				}
			}
		}
		got[strings.Join(labels, " ")] = m.GetCounter().GetValue()
	}
	return got
}

func wantErrors(t *testing.T, got map[string]float64, want ...string) {
	t.Helper()
	for _, w := range want {
		if got[w] != 1 {
			t.Errorf("%s is counted %g times, want once", w, got[w])
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted are %v, want %d kinds", got, len(want))
	}
}

// TestErrorsByKind over HTTP: by the answer's field, by what the handler says of
// an answer it breaks off, by the status, and none for what is no error.
func TestErrorsByKind(t *testing.T) {
	tel := newTelemetry(t, Options{Node: "n1"})
	serve := func(api string, handler func(ctx context.Context, w http.ResponseWriter)) {
		defer func() { _ = recover() }()
		tel.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			SetAPI(r.Context(), api)
			handler(r.Context(), w)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	}
	serve("ByField", func(_ context.Context, w http.ResponseWriter) {
		w.Header().Set(ErrorHeader, "bucket_not_found")
		w.WriteHeader(404)
	})
	serve("ByStatus", func(_ context.Context, w http.ResponseWriter) { w.WriteHeader(429) })
	serve("BrokenOff", func(ctx context.Context, w http.ResponseWriter) {
		_, _ = io.WriteString(w, "some")
		SetError(ctx, "corrupted")
		panic(http.ErrAbortHandler)
	})
	serve("BrokenOffSilently", func(_ context.Context, w http.ResponseWriter) {
		_, _ = io.WriteString(w, "some")
		panic(http.ErrAbortHandler)
	})
	serve("Panicked", func(context.Context, http.ResponseWriter) { panic("at the start") })
	serve("Fine", func(_ context.Context, w http.ResponseWriter) { _, _ = io.WriteString(w, "fine") })
	serve("NotModified", func(_ context.Context, w http.ResponseWriter) { w.WriteHeader(304) })
	wantErrors(t, errorsOf(t, tel, "gridloom_request_errors_total"),
		"ByField http bucket_not_found", "ByStatus http overloaded", "BrokenOff http corrupted",
		"BrokenOffSilently http internal", "Panicked http internal")
}

// TestGRPCErrorsByKind: as the handler says, and else as the code does.
func TestGRPCErrorsByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, Options{Node: "n1"})
		p := &probe{Requests: tel.Requests()}
		call(t, p, func(ctx context.Context, conn *grpc.ClientConn) {
			_, _ = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
			_, _ = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			_ = conn.Invoke(ctx, "/made.up.Service/Get", &grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{})
			named := metadata.AppendToOutgoingContext(ctx, "empty", "", "kind", "quota_exceeded")
			stream, err := grpc_health_v1.NewHealthClient(conn).Watch(named, &grpc_health_v1.HealthCheckRequest{Service: "broken"})
			for err == nil {
				_, err = stream.Recv()
			}
		})
		wantErrors(t, errorsOf(t, tel, "gridloom_request_errors_total"),
			"Check grpc not_found", "other grpc unimplemented", "Watch grpc quota_exceeded")
		_ = tel.Shutdown(t.Context())
	})
}

func TestKindsOfStatuses(t *testing.T) {
	for status, want := range map[int]string{
		400: "invalid_argument", 401: "unauthenticated", 403: "permission_denied", 404: "not_found", 405: "method_not_allowed",
		408: "deadline", 409: "conflict", 412: "precondition_failed", 413: "too_large", 416: "range_invalid", 418: "invalid_argument",
		421: "wrong_mesh", 429: "overloaded", 499: "canceled", 500: "internal", 501: "unimplemented", 503: "unavailable", 504: "deadline", 507: "no_space",
	} {
		if got := kindOfStatus(status); got != want {
			t.Errorf("%d is %s, want %s", status, got, want)
		}
	}
	for code, want := range map[codes.Code]string{
		codes.Canceled: "canceled", codes.Unknown: "internal", codes.Internal: "internal", codes.DataLoss: "corrupted",
		codes.ResourceExhausted: "overloaded", codes.Unavailable: "unavailable", codes.DeadlineExceeded: "deadline",
	} {
		if got := kindOfCode(code); got != want {
			t.Errorf("%v is %s, want %s", code, got, want)
		}
	}
}

// TestBucketView: only the buckets that are named are measured by themselves, and
// nothing else has the label.
func TestBucketView(t *testing.T) {
	ask := func(tel *Telemetry, bucket string, status int) {
		tel.Requests().HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			SetAPI(r.Context(), "GetObject")
			SetTarget(r.Context(), bucket, "secret-key")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "hello")
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	}
	silent := newTelemetry(t, Options{Node: "n1"})
	ask(silent, "photos", 200)
	if text := scrape(t, silent, ""); strings.Contains(text, "photos") || strings.Contains(text, "gridloom_bucket_") {
		t.Errorf("a bucket that nobody has named is in the metrics:\n%s", text)
	}

	tel := newTelemetry(t, Options{Node: "n1", Buckets: []string{"photos"}})
	for _, bucket := range []string{"photos", "films", ""} {
		ask(tel, bucket, 200)
	}
	ask(tel, "photos", 404)
	text := scrape(t, tel, "")
	for _, line := range []string{
		`gridloom_bucket_request_ttfb_seconds_count{api="GetObject",bucket="photos",class="2xx",node="n1",proto="http"} 1`,
		`gridloom_bucket_request_duration_seconds_count{api="GetObject",bucket="photos",class="4xx",node="n1",proto="http"} 1`,
		`gridloom_bucket_response_bytes_total{api="GetObject",bucket="photos",node="n1",proto="http"} 10`,
		`gridloom_request_ttfb_seconds_count{api="GetObject",class="2xx",node="n1",proto="http"} 3`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if strings.Contains(text, "films") || strings.Contains(text, "secret") {
		t.Errorf("more is named than was asked for:\n%s", text)
	}
	wantErrors(t, errorsOf(t, tel, "gridloom_bucket_request_errors_total"), "photos GetObject http not_found")

	if _, err := New(t.Context(), Options{Node: "n1", Buckets: make([]string, MaxBuckets+1)}); err == nil || !strings.Contains(err.Error(), "Buckets") {
		t.Errorf("too many buckets: %v", err)
	}
	if _, err := New(t.Context(), Options{Node: "n1", Buckets: []string{""}}); err == nil || !strings.Contains(err.Error(), "Buckets") {
		t.Errorf("a bucket without a name: %v", err)
	}
}
