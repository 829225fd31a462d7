package node

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/iam"
)

func TestCORSValidate(t *testing.T) {
	for _, c := range []struct {
		CORSConfig
		field string // "": good
	}{
		{CORSConfig{}, ""},
		{CORSConfig{Origins: []string{"*"}}, ""},
		{CORSConfig{Origins: []string{"https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "tauri://localhost"}, Methods: []string{"GET"}, Expose: []string{"Etag", "*"}}, ""},
		{CORSConfig{Origins: []string{"*", "https://a"}}, "CORS.Origins"},
		{CORSConfig{Methods: []string{"GET HEAD"}}, "CORS.Methods"},
		{CORSConfig{Methods: []string{""}}, "CORS.Methods"},
		{CORSConfig{Expose: []string{"a\r\nb"}}, "CORS.Expose"},
		{CORSConfig{Expose: []string{"ä"}}, "CORS.Expose"},
		{CORSConfig{MaxAge: -1}, "CORS.MaxAge"},
	} {
		err := c.validate()
		var ce *ConfigError
		if (err == nil) != (c.field == "") || err != nil && (!errors.As(err, &ce) || ce.Field != c.field) {
			t.Errorf("%+v: %v", c.CORSConfig, err)
		}
	}
	for _, bad := range []string{
		"", "null", "app.example.com", "https://", "https://app.example.com/", "https://app.example.com/x", "https://app.example.com?x", "https://*.example.com",
		"https://a@b", "https://App.example.com", "https://app.example.com:443", "http://app.example.com:80", "https://app.example.com:", "https://a b", "https://a#b", "HTTPS://a", "//a",
	} {
		if err := (&CORSConfig{Origins: []string{bad}}).validate(); err == nil {
			t.Errorf("%q is taken for an origin", bad)
		}
	}
}

// TestCORSIsNothingWhereItIsOff: there is not even a handler for it.
func TestCORSIsNothingWhereItIsOff(t *testing.T) {
	next := http.NewServeMux()
	if got := (&CORSConfig{}).handler(next); !reflect.DeepEqual(got, http.Handler(next)) {
		t.Errorf("%T", got)
	}
}

func TestCORS(t *testing.T) {
	reached := 0
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached++
		w.Header().Add("Vary", "Gridloom-Authorization")
		w.WriteHeader(http.StatusTeapot)
	})
	const ours, others = "https://app.example.com", "https://evil.example"
	exact := CORSConfig{Origins: []string{ours, "http://localhost:3000"}, Methods: []string{"GET", "HEAD"}, Expose: []string{"Etag", "Content-Range"}, MaxAge: time.Hour}
	every := CORSConfig{Origins: []string{"*"}}
	for _, c := range []struct {
		what         string
		config       CORSConfig
		method, path string
		origin       []string
		ask          string // Access-Control-Request-Method
		status       int
		allow        string // Access-Control-Allow-Origin
	}{
		{"a page", exact, "GET", "/data/b/k", []string{ours}, "", 418, ours},
		{"another page", exact, "GET", "/v1/buckets", []string{"http://localhost:3000"}, "", 418, "http://localhost:3000"},
		{"no page", exact, "GET", "/data/b/k", nil, "", 418, ""},
		{"a foreign page", exact, "PUT", "/data/b/k", []string{others}, "", 418, ""},
		{"an origin that begins so", exact, "GET", "/data/b/k", []string{ours + ".evil.example"}, "", 418, ""},
		{"an origin that ends so", exact, "GET", "/data/b/k", []string{"https://x" + strings.TrimPrefix(ours, "https://")}, "", 418, ""},
		{"an origin in capitals", exact, "GET", "/data/b/k", []string{strings.ToUpper(ours)}, "", 418, ""},
		{"an empty origin", exact, "GET", "/data/b/k", []string{""}, "", 418, ""},
		{"a page without an origin", exact, "GET", "/data/b/k", []string{"null"}, "", 418, ""},
		{"two origins", exact, "GET", "/data/b/k", []string{ours, others}, "", 418, ""},
		{"a preflight", exact, "OPTIONS", "/data/b/k", []string{ours}, "PUT", 204, ours},
		{"a preflight of the API", exact, "OPTIONS", "/v1/buckets", []string{ours}, "PUT", 204, ours},
		{"a foreign preflight", exact, "OPTIONS", "/data/b/k", []string{others}, "PUT", 403, ""},
		{"a preflight of null", exact, "OPTIONS", "/data/b/k", []string{"null"}, "PUT", 403, ""},
		{"OPTIONS alone", exact, "OPTIONS", "/data/b/k", []string{ours}, "", 418, ours},
		{"OPTIONS of no page", exact, "OPTIONS", "/data/b/k", nil, "PUT", 418, ""},
		{"any page", every, "GET", "/data/b/k", []string{others}, "", 418, "*"},
		{"any page, no page", every, "GET", "/data/b/k", nil, "", 418, "*"},
		{"any preflight", every, "OPTIONS", "/data/b/k", []string{"null"}, "PUT", 204, "*"},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		for _, o := range c.origin {
			r.Header.Add("Origin", o)
		}
		if c.ask != "" {
			r.Header.Set("Access-Control-Request-Method", c.ask)
			r.Header.Set("Access-Control-Request-Headers", "authorization,gridloom-meta-x")
		}
		reached = 0
		w := httptest.NewRecorder()
		c.config.handler(next).ServeHTTP(w, r)
		h := w.Header()
		if w.Code != c.status || (reached > 0) != (c.status == 418) || h.Get("Access-Control-Allow-Origin") != c.allow {
			t.Errorf("%s: %d, reached %d times, %v", c.what, w.Code, reached, h)
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", c.what)
		}
		vary := strings.Join(h.Values("Vary"), ", ")
		if strings.Contains(vary, "Origin") != (c.config.Origins[0] != "*") {
			t.Errorf("%s: varies by %q", c.what, vary)
		}
		if c.status == 418 && !strings.Contains(vary, "Gridloom-Authorization") {
			t.Errorf("%s: varies by %q", c.what, vary)
		}
		switch {
		case c.status == 204 && c.allow == ours:
			if h.Get("Access-Control-Allow-Methods") != "GET, HEAD" || h.Get("Access-Control-Allow-Headers") != "*, Authorization" || h.Get("Access-Control-Max-Age") != "3600" {
				t.Errorf("%s: %v", c.what, h)
			}
		case c.status == 204:
			if h.Get("Access-Control-Allow-Methods") != corsMethods || h.Get("Access-Control-Max-Age") != "600" {
				t.Errorf("%s: %v", c.what, h)
			}
		case h.Get("Access-Control-Allow-Methods") != "":
			t.Errorf("%s: answered as a preflight: %v", c.what, h)
		}
		if exposed := h.Get("Access-Control-Expose-Headers"); (exposed != "") != (c.status == 418 && c.allow != "") {
			t.Errorf("%s: exposes %q", c.what, exposed)
		}
	}
	for _, path := range []string{"/metrics", "/livez", "/openapi.json", "/", "/data", "/v2/metrics/resource"} {
		r := httptest.NewRequest("OPTIONS", path, nil)
		r.Header.Set("Origin", ours)
		r.Header.Set("Access-Control-Request-Method", "GET")
		w := httptest.NewRecorder()
		exact.handler(next).ServeHTTP(w, r)
		if w.Code != 418 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
	}
}

// TestCORSOnTheWire: what a browser does for a page, against a node.
func TestCORSOnTheWire(t *testing.T) {
	const origin = "https://app.example.com"
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.CORS.Origins = []string{origin}
	r := runNode(t, cfg)
	r.await(t)
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), strings.NewReader("hello"))
	key := []string{"Authorization", "Bearer " + testKey.String()}
	link := "/data/photos/a" + shareLink(t, r, testKey, "GET", "photos", "a")
	for _, c := range []struct {
		method, target string
		header         []string
		status         int
		allowed        bool
	}{
		{"OPTIONS", "/data/photos/a", []string{"Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization"}, 204, true},
		{"OPTIONS", "/v1/buckets", []string{"Origin", origin, "Access-Control-Request-Method", "GET"}, 204, true},
		{"OPTIONS", "/data/photos/a", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "PUT"}, 403, false},
		{"OPTIONS", "/data/photos/a", append([]string{"Origin", origin}, key...), 405, true},
		{"OPTIONS", "/data/photos/a", []string{"Origin", origin}, 401, true},
		{"GET", "/data/photos/a", append([]string{"Origin", origin}, key...), 200, true},
		{"GET", "/data/photos/a", append([]string{"Origin", origin, "Range", "bytes=1-2"}, key...), 206, true},
		{"GET", "/data/photos/a", append([]string{"Origin", origin, "If-None-Match", "*"}, key...), 304, true},
		{"HEAD", "/data/photos/a", append([]string{"Origin", origin}, key...), 200, true},
		{"GET", "/data/photos/none", append([]string{"Origin", origin}, key...), 404, true},
		{"GET", "/v1/buckets", append([]string{"Origin", origin}, key...), 200, true},
		{"GET", link, []string{"Origin", origin}, 200, true},
		{"GET", "/data/photos/a", []string{"Origin", origin}, 401, true}, // that the page sees why
		{"GET", "/data/photos/a", append([]string{"Origin", "https://evil.example"}, key...), 200, false},
		{"GET", "/data/photos/a", key, 200, false},
	} {
		what := fmt.Sprintf("%s %.20s %q", c.method, c.target, c.header[:min(2, len(c.header))])
		resp, text := callRaw(t, r.Addrs().HTTP, c.method, c.target, "", c.header...)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s %s", what, resp.Status, text)
		}
		if got := resp.Header.Values("Access-Control-Allow-Origin"); c.allowed != slices.Equal(got, []string{origin}) || !c.allowed && len(got) > 0 {
			t.Errorf("%s: allows %q", what, got)
		}
		vary := strings.Join(resp.Header.Values("Vary"), ", ")
		if !strings.Contains(vary, "Origin") || resp.StatusCode < 400 && c.method != "OPTIONS" && strings.HasPrefix(c.target, "/data/") && !strings.Contains(vary, "Gridloom-Authorization") {
			t.Errorf("%s: varies by %q", what, vary)
		}
	}
	// Off, which is the default, there is nothing of it.
	off := runLimited(t, Limits{})
	resp, _ := callRaw(t, off.Addrs().HTTP, "OPTIONS", "/data/photos/a", "", "Origin", origin, "Access-Control-Request-Method", "PUT")
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("Vary") != "" {
		t.Errorf("off: %s, %v", resp.Status, resp.Header)
	}
}

// TestLinkAnswerOnTheWire: what a link says about its answer, and that nobody
// else can.
func TestLinkAnswerOnTheWire(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Limits.Failures = 1_000_000
	r := runNode(t, cfg)
	r.await(t)
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), strings.NewReader("hello"),
		"Content-Type", "application/x-own", "Cache-Control", "max-age=1", "Content-Encoding", "br")
	fields := [][2]string{
		{"content-type", "text/html; charset=utf-8"}, {"content-disposition", `attachment; filename="ä.html"`}, {"content-encoding", "identity"},
		{"content-language", "de"}, {"cache-control", "private, max-age=60"}, {"expires", "Thu, 01 Dec 2033 16:00:00 GMT"},
	}
	now := time.Now()
	link, err := iam.SignLink(testKey, r.control.Deployment(), iam.LinkRequest{
		Method: "GET", Bucket: "photos", Key: "a", Expires: now.Add(time.Hour), Answer: fields}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, byteRange, noneMatch string
		status                       int
	}{{"GET", "", "", 200}, {"HEAD", "", "", 200}, {"GET", "bytes=1-2", "", 206}, {"GET", "bytes=0-0,2-2", "", 206}, {"GET", "", "*", 304}} {
		var header []string
		for _, h := range [][2]string{{"Range", c.byteRange}, {"If-None-Match", c.noneMatch}} {
			if h[1] != "" {
				header = append(header, h[0], h[1])
			}
		}
		resp, text := callRaw(t, r.Addrs().HTTP, c.method, link, "", header...)
		if resp.StatusCode != c.status {
			t.Errorf("%+v: %s", c, resp.Status)
		}
		for _, f := range fields {
			got, want := resp.Header.Values(f[0]), []string{f[1]}
			switch {
			case f[0] == "content-type" && strings.Contains(c.byteRange, ","):
				if !strings.Contains(text, "Content-Type: "+f[1]+"\r\n") || strings.Contains(text, "x-own") {
					t.Errorf("%+v: the parts are %q", c, text)
				}
				continue
			case c.status == 304 && f[0] != "cache-control" && f[0] != "expires":
				want = nil
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v: %s is %q", c, f[0], got)
			}
		}
		if c.status != 304 && (resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Content-Security-Policy") != "sandbox") {
			t.Errorf("%+v: may be run: %v", c, resp.Header)
		}
	}
	if resp, text := callRaw(t, r.Addrs().HTTP, "GET", strings.Replace(link, "de", "fr", 1), ""); resp.StatusCode != 401 {
		t.Errorf("altered: %s %s", resp.Status, text)
	}
	plain := "/data/photos/a" + shareLink(t, r, testKey, "GET", "photos", "a")
	for param, status := range map[string]int{
		"response-content-type=text/html": 401, "response-expires=a%0d%0aSet-Cookie:x=1": 401,
	} {
		if resp, text := callRaw(t, r.Addrs().HTTP, "GET", plain+"&"+param, ""); resp.StatusCode != status || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s added to a link: %s %s", param, resp.Status, text)
		}
		// Without a link there is no such parameter.
		if resp, text := callRaw(t, r.Addrs().HTTP, "GET", "/data/photos/a?"+param, "", "Authorization", "Bearer "+testKey.String()); resp.StatusCode != 400 || !strings.Contains(text, "is no parameter") {
			t.Errorf("%s with a key: %s %s", param, resp.Status, text)
		}
	}
}
