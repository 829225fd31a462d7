package node

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// CORSConfig says which web pages may use the HTTP listener from a browser, by
// the rules of Fetch. Its zero value: none.
//
// It is no protection: whoever has no key or link gets nothing either way. A page
// brings its own, which it sends in a field or in the URL. What a browser sends by
// itself, cookies and client certificates, counts for nothing here:
// Access-Control-Allow-Credentials is never answered.
type CORSConfig struct {
	// Origins are those of the pages, as browsers send them:
	// "https://app.example.com", without a port that is the scheme's own. "*"
	// alone is any.
	Origins []string
	Methods []string      // that a page may use; empty: all there are
	Expose  []string      // fields of answers that a page may see; empty: all
	MaxAge  time.Duration // for which a browser may keep the answer to a preflight; 0: 10 min
}

// corsMethods are those of /data and /v1.
const corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"

// corsMaxAge is for how long a browser need not ask again; none keeps it for
// longer than a day.
const corsMaxAge = 10 * time.Minute

func (c *CORSConfig) validate() error {
	for _, o := range c.Origins {
		if o == "*" && len(c.Origins) > 1 {
			return badConfig("CORS.Origins", "* is every origin: give it alone")
		}
		if o != "*" && !isOrigin(o) {
			return badConfig("CORS.Origins", "%q is no origin as browsers send it, like https://app.example.com or http://localhost:3000, without a path or the scheme's own port", o)
		}
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"CORS.Methods", c.Methods}, {"CORS.Expose", c.Expose}} {
		for _, v := range list.values {
			if !isToken(v) {
				return badConfig(list.field, "%q is no name of HTTP's", v)
			}
		}
	}
	if c.MaxAge < 0 {
		return badConfig("CORS.MaxAge", "%s is negative", c.MaxAge)
	}
	return nil
}

// isOrigin reports whether a browser may send s in the field Origin for a page
// that has an origin of its own.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || s != u.Scheme+"://"+u.Host ||
		strings.ToLower(s) != s || strings.HasSuffix(s, ":") || strings.Contains(s, "*") {
		return false
	}
	return u.Port() == "" || u.Port() != map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// isToken is RFC 9110, 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// cors answers what browsers ask before a page's request, and says on answers
// that the page may see them.
type cors struct {
	next                     http.Handler
	origins                  []string // nil: any
	methods, expose, seconds string
}

// handler puts CORS before a handler; where there are no origins, nothing.
func (c *CORSConfig) handler(next http.Handler) http.Handler {
	if len(c.Origins) == 0 {
		return next
	}
	h := c.rules()
	h.next = next
	return h
}

// rules are what is answered to browsers; nil where there are no origins.
func (c *CORSConfig) rules() *cors {
	if len(c.Origins) == 0 {
		return nil
	}
	h := &cors{origins: c.Origins, methods: corsMethods, expose: "*"}
	if c.Origins[0] == "*" {
		h.origins = nil
	}
	if len(c.Methods) > 0 {
		h.methods = strings.Join(c.Methods, ", ")
	}
	if len(c.Expose) > 0 {
		h.expose = strings.Join(c.Expose, ", ")
	}
	age := c.MaxAge
	orElse(&age, corsMaxAge)
	h.seconds = strconv.FormatInt(int64(age/time.Second), 10)
	return h
}

// ServeHTTP implements http.Handler.
func (c *cors) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/data/") && !strings.HasPrefix(path, "/v1/") {
		c.next.ServeHTTP(w, r)
		return
	}
	allowed := c.allow(w.Header(), r.Header["Origin"])
	if r.Method == http.MethodOptions && r.Header["Origin"] != nil && r.Header["Access-Control-Request-Method"] != nil {
		c.preflight(w, r, allowed)
		return
	}
	if allowed {
		c.show(w.Header())
	}
	c.next.ServeHTTP(w, r)
}

// show has a page that may see an answer see its fields.
func (c *cors) show(h http.Header) { h.Set("Access-Control-Expose-Headers", c.expose) }

// unasked says on an answer whose request is of no page what ServeHTTP says on it.
func (c *cors) unasked(h http.Header) {
	if c != nil && c.allow(h, nil) {
		c.show(h)
	}
}

// allow says on an answer whose pages may see it, and whether it is those of the
// request's origin. What depends on the origin is marked so for caches, also where
// there was none.
func (c *cors) allow(h http.Header, origin []string) bool {
	if c.origins == nil {
		h.Set("Access-Control-Allow-Origin", "*")
		return true
	}
	h.Add("Vary", "Origin")
	if len(origin) != 1 || !slices.Contains(c.origins, origin[0]) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin[0])
	return true
}

// preflight answers what a browser asks by itself before it lets a page make a
// request. It has no credential to show, and learns what the configuration says.
func (c *cors) preflight(w http.ResponseWriter, r *http.Request, allowed bool) {
	bound(w, r)
	observability.SetAPI(r.Context(), "Preflight")
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	if !allowed {
		fault.WriteProblem(w, fault.New(fault.PermissionDenied, "Origin", "is none of those whose pages may use this node (--cors-origin)"))
		return
	}
	h.Set("Access-Control-Allow-Methods", c.methods)
	// Any field: it is the credential that counts, and metadata has any name. The
	// wildcard leaves out Authorization (Fetch, 3.3.2).
	h.Set("Access-Control-Allow-Headers", "*, Authorization")
	h.Set("Access-Control-Max-Age", c.seconds)
	w.WriteHeader(http.StatusNoContent)
}
