package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTable pins what each kind is outside, and its number, which crosses the
// wire: a line may be added at the end, and none changed.
func TestTable(t *testing.T) {
	want := `0 internal Internal 500
1 invalid_argument InvalidArgument 400
2 checksum_mismatch InvalidArgument 400
3 incomplete_body InvalidArgument 400
4 unauthenticated Unauthenticated 401
5 permission_denied PermissionDenied 403
6 bucket_not_found NotFound 404
7 object_not_found NotFound 404
8 already_exists AlreadyExists 409
9 bucket_not_empty FailedPrecondition 409
10 conflict Aborted 409
11 precondition_failed FailedPrecondition 412
12 not_modified FailedPrecondition 304
13 too_large InvalidArgument 413
14 range_invalid OutOfRange 416
15 wrong_mesh FailedPrecondition 421
16 quota_exceeded ResourceExhausted 429
17 overloaded ResourceExhausted 429
18 corrupted DataLoss 500
19 waiting Unavailable 503
20 unavailable Unavailable 503
21 deadline DeadlineExceeded 504
22 no_space ResourceExhausted 507
23 canceled Canceled 499
24 not_found NotFound 404
25 unimplemented Unimplemented 501
26 method_not_allowed Unimplemented 405
27 length_required InvalidArgument 411
`
	var got strings.Builder
	for k := range numKinds {
		fmt.Fprintf(&got, "%d %s %s %d\n", k, k.Reason(), k.Code(), k.Status())
		if back, ok := Parse(k.Reason()); !ok || back != k {
			t.Errorf("Parse(%q) is %d, %t", k.Reason(), back, ok)
		}
	}
	if got.String() != want {
		t.Errorf("the table is\n%swant\n%s", got.String(), want)
	}
}

func TestUnknownKindIsInternal(t *testing.T) {
	if k := Kind(60000); k.Reason() != "internal" || k.Code() != codes.Internal || k.Status() != 500 {
		t.Errorf("a kind of a newer peer is %s %s %d", k.Reason(), k.Code(), k.Status())
	}
}

func TestKindOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Kind
	}{
		{New(NoSpace, "drive", "full"), NoSpace},
		{fmt.Errorf("outer: %w", New(NoSpace, "drive", "full")), NoSpace},
		{Wrap(Corrupted, "x", io.ErrUnexpectedEOF), Corrupted},
		{Wrap(Corrupted, "x", New(NoSpace, "drive", "full")), NoSpace},
		{fmt.Errorf("outer: %w", context.DeadlineExceeded), Deadline},
		{context.Canceled, Canceled},
		{io.EOF, Internal},
	} {
		if got := KindOf(tc.err); got != tc.want {
			t.Errorf("KindOf(%v) is %s, want %s", tc.err, got, tc.want)
		}
	}
	if Wrap(Corrupted, "x", nil) != nil {
		t.Error("Wrap of no error is an error")
	}
	if err := Wrap(Corrupted, "x", io.EOF); !errors.Is(err, io.EOF) {
		t.Error("Wrap hides the cause")
	}
}

func TestProblem(t *testing.T) {
	for name, tc := range map[string]struct {
		err        error
		status     int
		detail     string
		retryAfter string
	}{
		"of a kind":  {New(ObjectNotFound, "object b/k", "does not exist"), 404, "object b/k: does not exist", ""},
		"waiting":    {New(Waiting, "node a", "not connected"), 503, "node a: not connected", "1"},
		"in a while": {&Error{Kind: Overloaded, Retry: 1500 * time.Millisecond}, 429, "overloaded", "2"},
		"of none":    {errors.New("open /secret/path: denied"), 500, "internal error; the node's log has the cause", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "9")
			w.Header().Set("ETag", `"x"`)
			WriteProblem(w, tc.err)
			length := strconv.Itoa(w.Body.Len())
			var p Problem
			if err := json.NewDecoder(w.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if w.Code != tc.status || p.Status != tc.status || p.Detail != tc.detail || w.Header().Get("Retry-After") != tc.retryAfter {
				t.Errorf("status %d, %+v, Retry-After %q", w.Code, p, w.Header().Get("Retry-After"))
			}
			if h := w.Header(); h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" || h.Get("Content-Length") != length {
				t.Errorf("header %v", h)
			}
		})
	}
}

func TestNotModifiedHasNoBody(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("ETag", `"x"`)
	WriteProblem(w, New(NotModified, "", ""))
	if w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("ETag") == "" {
		t.Errorf("status %d, %d bytes, header %v", w.Code, w.Body.Len(), w.Header())
	}
}

func TestRefuseMethod(t *testing.T) {
	w := httptest.NewRecorder()
	RefuseMethod(w, "PATCH", "GET", "HEAD")
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" || !strings.Contains(w.Body.String(), "PATCH") {
		t.Errorf("status %d, Allow %q: %s", w.Code, w.Header().Get("Allow"), w.Body)
	}
}
