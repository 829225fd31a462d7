package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/door"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/observability"
)

// credentialHeaders are where a credential is looked for, in this order: the
// first is ours alone, so that a proxy which uses Authorization for itself
// does not take ours away.
var credentialHeaders = [...]string{"Gridloom-Authorization", "Authorization"}

// Times that bound a request that no door has taken: the reading of its answer,
// and what may still come of a body that nobody wants.
const (
	answerTimeout = time.Minute
	bodyTimeout   = 5 * time.Second
	lingerTimeout = 500 * time.Millisecond // as long as net/http's
)

// doorHTTP is what a principal and a record have come by.
const doorHTTP = "http"

// metaPrefix begins the headers of user metadata, the only ones with our
// prefix that may come from outside.
const metaPrefix = "Gridloom-Meta-"

// front is the HTTP listener's first handler: it strips what only a trusted hop
// may say, authenticates once, and routes on the escaped path. It is not a
// ServeMux, which would redirect "//", "." and ".." inside keys.
type front struct {
	auth    *iam.Gate
	audit   *audit.Log // nil keeps none
	callers limit.Callers
	ready   func(ctx context.Context) error // waits a while; nil is ready
	state   func() error                    // as of now; nil is ready

	door      http.Handler // /data/…
	gateway   http.Handler // /v1/…
	openAPI   http.Handler // /openapi.json
	metrics   http.Handler // /metrics, /v3/metrics…
	resources http.Handler // /v2/metrics/resource
	profiles  http.Handler // /debug/pprof/…
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bound(w, r)
	path := r.URL.EscapedPath()
	if name, ok := healthAPI(path); ok {
		observability.SetAPI(r.Context(), name)
		f.serveHealth(w, r, path)
		return
	}
	record := f.audit.Begin(doorHTTP, r.RemoteAddr, r.Method)
	ctx := audit.With(r.Context(), record)
	returned := false
	defer func() {
		if !returned { // it panics; what has broken off an answer has said why
			record.Fail(fault.Internal.Reason())
		}
		if reason := w.Header().Get(fault.ReasonHeader); reason != "" {
			record.Fail(reason)
		}
		record.API(observability.API(ctx))
		f.audit.End(record, r.Method == http.MethodGet || r.Method == http.MethodHead, observability.TraceID(ctx))
	}()
	f.serve(ctx, w, r, path)
	returned = true
}

// serve finds out who a request is from, and gives it to its door, with ctx.
func (f *front) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, path string) {
	p, query, err := f.identify(ctx, r, path)
	audit.From(ctx).Identity(p.User, p.ID, p.Via) // of who has made too many requests, too
	observability.SetUser(ctx, p.User)
	if err != nil {
		observability.SetAPI(ctx, refusedAPI(err))
		fault.WriteProblem(w, err)
		return
	}
	r = r.WithContext(iam.WithPrincipal(ctx, p))
	if query != r.URL.RawQuery { // without a link's own parameters
		u := *r.URL
		u.RawQuery = query
		r.URL = &u
	}
	h, wait := f.route(path)
	if h == nil {
		fault.WriteProblem(w, fault.New(fault.NotFound, path, "there is nothing here; the API is below /v1/ (see /openapi.json), bytes are below /data/"))
		return
	}
	if wait {
		if err := f.ready(r.Context()); err != nil {
			fault.WriteProblem(w, err)
			return
		}
		if !reads(r, path) { // its door sets a deadline before it writes, and there is nothing to read
			unbound(w, r)
		}
	}
	h.ServeHTTP(w, r)
}

// identify finds out who a request is from, and takes everything from it that
// says so, or that only a trusted hop may say. query is what is left of its own.
// With an error there is a principal where it is known whose the request is.
func (f *front) identify(ctx context.Context, r *http.Request, path string) (p iam.Principal, query string, err error) {
	query = r.URL.RawQuery
	credential := takeCredential(r.Header)
	var link *iam.Link
	if strings.HasPrefix(path, iam.LinkPrefix) {
		link, err = iam.ParseLink(r.Method, path, query, func(name string) []string { return r.Header.Values(name) })
		if err != nil {
			return p, "", api.IdentityFault(err)
		}
		if link != nil {
			query = link.Query
		}
	}
	stripHop(r.Header)
	err = f.callers.Admit(r.RemoteAddr, credential != "" || link != nil, func() (_ string, err error) {
		p, err = api.Identify(ctx, f.auth, iam.Request{
			Authorization: credential, Link: link, Certificate: api.CertificateNames(r.TLS),
			Addr: r.RemoteAddr, Door: doorHTTP, Now: time.Now(),
		})
		return p.Account(), err
	})
	return p, query, err
}

// refusedAPI is what a request counts as that nobody is known to have made, or
// that its caller has made too soon.
func refusedAPI(err error) string {
	if fault.KindOf(err) == fault.Unauthenticated {
		return "Unauthenticated"
	}
	return "Limited"
}

// bound gives a request what holds until a door takes it: nothing waits for a
// body that nobody wants (net/http reads it before it answers, unless the
// connection ends with the answer), and an answer that isn't read is given up.
func bound(w http.ResponseWriter, r *http.Request) {
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(answerTimeout))
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(now.Add(bodyTimeout))
		w.Header().Set("Connection", "close")
	}
}

// unbound lets a door have the body, for as long as it moves: deadlines are the
// door's from here on.
func unbound(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	_ = control.SetReadDeadline(time.Time{})
	if !last(r) {
		w.Header().Del("Connection")
	}
}

// route finds the handler of a path, and whether it needs a node that is up.
func (f *front) route(path string) (h http.Handler, wait bool) {
	switch {
	case strings.HasPrefix(path, door.Prefix):
		return f.door, true
	case strings.HasPrefix(path, "/v1/"):
		return f.gateway, true
	case path == "/v2/metrics/resource":
		return f.resources, false
	case isMetrics(path):
		return f.metrics, false
	case strings.HasPrefix(path, profilePrefix):
		return f.profiles, false
	case path == "/openapi.json":
		return f.openAPI, false
	}
	return nil, false
}

// reads says that a request is for bytes, and has none.
func reads(r *http.Request, path string) bool {
	return r.ContentLength == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.HasPrefix(path, door.Prefix)
}

func healthAPI(path string) (string, bool) {
	switch path {
	case "/livez":
		return "Live", true
	case "/readyz":
		return "Ready", true
	}
	return "", false
}

// serveHealth answers without a credential: /livez while the process serves,
// /readyz once the node can do its work, and till then with the reason.
func (f *front) serveHealth(w http.ResponseWriter, r *http.Request, path string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fault.RefuseMethod(w, r.Method, http.MethodGet, http.MethodHead)
		return
	}
	if path == "/readyz" {
		if err := f.state(); err != nil {
			fault.WriteProblem(w, err)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, "ok")
}

// takeCredential removes every credential from the header and returns the one
// that counts.
func takeCredential(h http.Header) string {
	credential := ""
	for _, name := range credentialHeaders {
		if credential == "" {
			credential = h.Get(name)
		}
		h.Del(name)
	}
	return credential
}

// stripHop removes the headers by which a trusted hop would speak for a client:
// from outside they are lies.
func stripHop(h http.Header) {
	for name := range h {
		switch {
		case hasPrefix(name, metaPrefix):
		case strings.EqualFold(name, "Forwarded"), hasPrefix(name, "X-Forwarded-"),
			hasPrefix(name, "Gridloom-"), hasPrefix(name, "Grpc-Metadata-"):
			delete(h, name)
		}
	}
}

// hasPrefix reports whether a header's name begins with prefix, in whatever case.
func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
