package node

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// seen is what reaches the handlers behind a front.
type seen struct {
	name      string
	header    http.Header
	principal iam.Principal
	path      string
}

func newTestFront(t *testing.T, last *seen, ready error) (*front, iam.Credential) {
	t.Helper()
	key := iam.Generate("root")
	auth := iam.NewGate(nil)
	if err := auth.SetRoots(key); err != nil {
		t.Fatal(err)
	}
	behind := func(name string) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, _ := iam.FromContext(r.Context())
			*last = seen{name, r.Header.Clone(), p, r.URL.EscapedPath()}
		})
	}
	return &front{
		auth:  auth,
		ready: func(context.Context) error { return ready }, state: func() error { return ready },
		door: behind("door"), gateway: behind("gateway"), openAPI: behind("openAPI"), metrics: behind("metrics"), resources: behind("resources"),
	}, key
}

func TestFrontRoutes(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, nil)
	for path, want := range map[string]string{
		"/data/b/k":                  "door",
		"/data/b/a%2Fb//../x":        "door", // never redirected: the door refuses it by name
		"/v1/buckets":                "gateway",
		"/metrics":                   "metrics",
		"/v2/metrics/resource?node=": "resources",
		"/openapi.json":              "openAPI",
		"/":                          "",
		"/data":                      "",
		"/metricsx":                  "",
		"/v3/metrics":                "metrics",
		"/v3/metrics/grid":           "metrics",
		"/v3/metricsx":               "",
	} {
		last = seen{}
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+key.String())
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if last.name != want {
			t.Errorf("%s went to %q, want %q", path, last.name, want)
		}
		if want == "" && w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
		if want != "" && last.path != strings.SplitN(path, "?", 2)[0] {
			t.Errorf("%s reached the handler as %s", path, last.path)
		}
	}
}

func TestFrontAuthenticates(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, nil)
	wrong := iam.Generate("root")
	for name, tc := range map[string]struct {
		header []string
		status int
	}{
		"none":                 {nil, 401},
		"wrong key":            {[]string{"Authorization", "Bearer " + wrong.String()}, 401},
		"not a key":            {[]string{"Authorization", "Bearer x"}, 401},
		"basic":                {[]string{"Authorization", "Basic eDp5"}, 401},
		"right":                {[]string{"Authorization", "Bearer " + key.String()}, 200},
		"ours":                 {[]string{"Gridloom-Authorization", "Bearer " + key.String()}, 200},
		"ours before theirs":   {[]string{"Gridloom-Authorization", "Bearer " + key.String(), "Authorization", "Bearer " + wrong.String()}, 200},
		"ours wrong, not both": {[]string{"Gridloom-Authorization", "Bearer " + wrong.String(), "Authorization", "Bearer " + key.String()}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			last = seen{}
			r := httptest.NewRequest(http.MethodGet, "/v1/buckets", nil)
			for i := 0; i+1 < len(tc.header); i += 2 {
				r.Header.Set(tc.header[i], tc.header[i+1])
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			if w.Code != tc.status {
				t.Errorf("status %d, want %d: %s", w.Code, tc.status, w.Body)
			}
			if reached := last.name != ""; reached != (tc.status == 200) {
				t.Errorf("reached a handler: %t", reached)
			}
			if tc.status == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("a 401 without WWW-Authenticate (RFC 9110, 15.5.2)")
			}
			if tc.status == 200 && (last.principal.ID != "root" || last.principal.Addr != r.RemoteAddr) {
				t.Errorf("principal %+v", last.principal)
			}
			if last.header.Get("Authorization") != "" || last.header.Get("Gridloom-Authorization") != "" {
				t.Error("a credential was forwarded")
			}
		})
	}
}

func TestFrontStripsWhatOnlyATrustedHopMaySay(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, nil)
	r := httptest.NewRequest(http.MethodGet, "/v1/buckets", nil)
	r.Header.Set("Authorization", "Bearer "+key.String())
	for _, name := range []string{"X-Forwarded-For", "x-forwarded-proto", "Forwarded", "Gridloom-Principal", "Grpc-Metadata-Authorization", "grpc-metadata-x"} {
		r.Header[name] = []string{"lie"}
	}
	r.Header.Set("Gridloom-Meta-Color", "red")
	r.Header.Set("Accept", "text/plain")
	f.ServeHTTP(httptest.NewRecorder(), r)
	for name, values := range last.header {
		if values[0] == "lie" {
			t.Errorf("%s went through", name)
		}
	}
	if last.header.Get("Gridloom-Meta-Color") != "red" || last.header.Get("Accept") != "text/plain" {
		t.Errorf("honest headers were stripped: %v", last.header)
	}
}

func TestFrontWhileWaiting(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, fault.New(fault.Waiting, "node b", "not ready: waiting for node a"))
	for path, want := range map[string]int{
		"/livez": 200, "/readyz": 503, "/v1/buckets": 503, "/data/b/k": 503, "/metrics": 200, "/v2/metrics/resource": 200,
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+key.String())
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
		if want == 503 && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "node a")) {
			t.Errorf("%s: no Retry-After, or not what is missing: %s", path, w.Body)
		}
	}
}

// TestFrontRecordsPanics: a handler that panics hasn't served the request.
func TestFrontRecordsPanics(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, nil)
	file := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Options{File: file, Level: audit.All})
	if err != nil {
		t.Fatal(err)
	}
	f.audit = log
	f.metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	f.door = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		audit.From(r.Context()).Fail("incomplete_body")
		panic(http.ErrAbortHandler)
	})
	for _, path := range []string{"/metrics", "/data/b/k", "/v1/buckets"} {
		func() {
			defer func() { _ = recover() }()
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Authorization", "Bearer "+key.String())
			f.ServeHTTP(httptest.NewRecorder(), r)
		}()
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(line, `"outcome":"`)
		outcome, _, _ := strings.Cut(rest, `"`)
		outcomes = append(outcomes, outcome)
	}
	if got := strings.Join(outcomes, " "); got != "internal incomplete_body ok" {
		t.Errorf("outcomes: %s", got)
	}
}

// TestFrontWaitsForNoBody sends the heads of requests whose bodies never come to
// a real listener: each is answered at once.
func TestFrontWaitsForNoBody(t *testing.T) {
	var last seen
	f, key := newTestFront(t, &last, nil)
	server := httptest.NewServer(f)
	defer server.Close()
	for path, want := range map[string]int{"/data/b/k": 401, "/livez": 405, "/nowhere": 401, "/metrics": 401} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s without its body: %v", path, err)
		} else if resp.StatusCode != want || !resp.Close {
			t.Errorf("%s without its body: %s, close %t", path, resp.Status, resp.Close)
		}
		_ = conn.Close()
	}
	// With a key and a door the connection stays.
	req, _ := http.NewRequest(http.MethodPut, server.URL+"/data/b/k", strings.NewReader("body"))
	req.Header.Set("Authorization", "Bearer "+key.String())
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.Close || last.name != "door" {
		t.Errorf("a wanted body: close %t, reached %q", resp.Close, last.name)
	}
	server.Client().CloseIdleConnections()
}
