package door

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// Options configures the door. Objects is required; the zero value of
// everything below it is the default given in parentheses.
type Options struct {
	Objects *object.Service
	// Follow asks again whether a caller may do what has begun, whenever that may
	// have changed, until stop is called; where not, cut is told why. nil: nobody
	// asks.
	Follow func(p iam.Principal, recheck func(now iam.Principal) error, cut func(why error)) (stop func())
	// Still asks that once, for what is at hand. nil: nobody asks.
	Still   func(p iam.Principal, recheck func(now iam.Principal) error) (why error)
	Logger  *slog.Logger   // (discarded)
	Uploads *limit.Uploads // (no limit)

	MaxObjectBytes int64         // largest upload (object.ObjectMaxBytes)
	Stall          time.Duration // longest pause of an upload; grace of a download's window (30 s)
	MinRate        int64         // bytes a second below which a download is cut off (32 KiB)
}

// Door implements http.Handler.
type Door struct {
	objects        *object.Service
	follow         func(p iam.Principal, recheck func(now iam.Principal) error, cut func(why error)) (stop func())
	still          func(p iam.Principal, recheck func(now iam.Principal) error) (why error)
	log            *slog.Logger
	uploads        *limit.Uploads
	maxObjectBytes int64
	stall          time.Duration
	minRate        int64
}

// New makes the handler of /data/. It expects the principal in the request's
// context and refuses requests without one.
func New(o Options) *Door {
	d := &Door{objects: o.Objects, follow: o.Follow, still: o.Still, log: o.Logger, uploads: o.Uploads, maxObjectBytes: o.MaxObjectBytes, stall: o.Stall, minRate: o.MinRate}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.maxObjectBytes <= 0 {
		d.maxObjectBytes = object.ObjectMaxBytes
	}
	if d.stall <= 0 {
		d.stall = 30 * time.Second
	}
	if d.minRate <= 0 {
		d.minRate = 32 << 10
	}
	return d
}

// method is one HTTP method of the door: the API it is counted as, what it
// needs permission for, and what serves it. What serves a read sees to it itself
// that its principal still may (see watch and allowed): it knows which is cheaper.
type method struct {
	api    string
	action iam.Action
	serve  func(d *Door, w http.ResponseWriter, r *http.Request, t target) error
}

// GetAPI is what a GET counts as.
const GetAPI = "GetObject"

// allow lists the methods that methodOf knows.
const allow = "GET, HEAD, PUT, DELETE"

// methodOf returns an HTTP method's row. There is none without a permission.
func methodOf(name string) (method, bool) {
	switch name {
	case http.MethodGet:
		return method{GetAPI, iam.ObjectRead, (*Door).serveGet}, true
	case http.MethodHead:
		return method{"StatObject", iam.ObjectRead, (*Door).serveHead}, true
	case http.MethodPut:
		return method{"PutObject", iam.ObjectWrite, (*Door).servePut}, true
	case http.MethodDelete:
		return method{"DeleteObject", iam.ObjectDelete, (*Door).serveDelete}, true
	}
	return method{}, false
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, ok := methodOf(r.Method)
	if !ok {
		fault.RefuseMethod(w, r.Method, allow)
		return
	}
	observability.SetAPI(r.Context(), m.api)
	if r.ContentLength != 0 {
		// net/http reads what a handler leaves of a body, a little of it: that
		// too has an end. An upload renews it.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d.stall))
	}
	t, err := d.authorize(r, m.action)
	if err == nil {
		err = d.serve(w, r, m, t)
	}
	if err != nil {
		d.fail(w, r, err)
	}
}

// serve serves the request, and ends it once its principal may no longer do what
// it does.
func (d *Door) serve(w http.ResponseWriter, r *http.Request, m method, t target) error {
	if m.action == iam.ObjectRead {
		return m.serve(d, w, r, t)
	}
	p, _ := iam.FromContext(r.Context())
	return d.watch(r.Context(), w, p, m.action, t, func(ctx context.Context) error {
		if ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		return m.serve(d, w, r, t)
	})
}

// watch does something for a principal, and ends it once the principal may no
// longer do that.
func (d *Door) watch(ctx context.Context, w http.ResponseWriter, p iam.Principal, action iam.Action, t target, do func(ctx context.Context) error) error {
	if d.follow == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := d.follow(p,
		func(now iam.Principal) error { return iam.Authorize(now, action, t.bucket, t.key) },
		func(why error) {
			cancel(&revoked{why})
			cut(w)
		})
	defer stop()
	err := context.Cause(ctx) // what has changed since the request was let in has ended it by now
	if err == nil {
		err = do(ctx)
	}
	var why *revoked
	if err == nil || !errors.As(context.Cause(ctx), &why) {
		return err
	}
	var broken *brokenBody
	if errors.As(err, &broken) {
		return &brokenBody{why}
	}
	return why
}

// allowed says whether a principal may still do what it was let in for, for an
// answer that is at hand: there is nothing to end in the middle.
func (d *Door) allowed(p iam.Principal, action iam.Action, t target) error {
	if d.still == nil {
		return nil
	}
	return d.still(p, func(now iam.Principal) error { return iam.Authorize(now, action, t.bucket, t.key) })
}

// revoked is why a request was ended that had been let in.
type revoked struct{ error }

func (e *revoked) Unwrap() error { return e.error }

// cut ends a read or write of the body that is under way.
func cut(w http.ResponseWriter) {
	control, past := http.NewResponseController(w), time.Unix(1, 0)
	_ = control.SetReadDeadline(past)
	_ = control.SetWriteDeadline(past)
}

// renew sets a deadline of the connection by set, unless the request has been
// cut: whoever comes second sees what the other did.
func renew(ctx context.Context, set func(time.Time) error, t time.Time) error {
	if err := set(t); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		_ = set(time.Unix(1, 0))
		return err
	}
	return nil
}

// authorize reads what the request is about and decides whether its principal
// may do it.
func (d *Door) authorize(r *http.Request, action iam.Action) (target, error) {
	p, ok := iam.FromContext(r.Context())
	if !ok {
		return target{}, fault.New(fault.Unauthenticated, "", "no credential was given")
	}
	t, err := parseTarget(r.URL)
	audit.From(r.Context()).About(audit.Resource{Bucket: t.bucket, Key: t.key})
	observability.SetTarget(r.Context(), t.bucket, t.key)
	if err != nil {
		return target{}, err
	}
	if t.maxAge, t.verify, err = parseQuery(r.URL, r.Method); err != nil {
		return target{}, err
	}
	return t, fault.Wrap(fault.PermissionDenied, "", iam.Authorize(p, action, t.bucket, t.key))
}

// fail answers with err or, where the answer has begun, breaks the connection,
// so that a part of a body is never taken for the whole.
func (d *Door) fail(w http.ResponseWriter, r *http.Request, err error) {
	var broken *brokenBody
	if errors.As(err, &broken) {
		audit.From(r.Context()).Fail(d.brokenOff(r.Context(), r.URL.Path, err))
		panic(http.ErrAbortHandler)
	}
	// net/http may first read what is left of the body, for as long as that may
	// take; the answer has its own time after that.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * d.stall))
	switch fault.KindOf(err) {
	case fault.Internal, fault.Corrupted:
		d.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	fault.WriteProblem(w, err)
}

// brokenOff tells of an answer that has begun and can't be ended, and gives the
// reason.
func (d *Door) brokenOff(ctx context.Context, path string, err error) (reason string) {
	kind, left := fault.KindOf(err), clientLeft(err)
	switch {
	case left:
		kind = fault.Canceled
	case kind == fault.Internal && errors.Is(err, os.ErrDeadlineExceeded):
		kind = fault.Deadline // it took too little of it
	}
	reason = kind.Reason()
	observability.SetError(ctx, reason)
	if ctx.Err() == nil && !left {
		d.log.WarnContext(ctx, "download broken off", "path", path, "error", err)
	}
	return reason
}

// What the systems say of a connection whose other end is gone: Windows has numbers
// of its own.
const (
	wsaConnAborted = syscall.Errno(10053)
	wsaConnReset   = syscall.Errno(10054)
)

// clientLeft says that an answer could not be written since its client has gone, as
// clients do that have seen enough of a film. What failed on the way to the client's
// connection has a kind of its own.
func clientLeft(err error) bool {
	var fe *fault.Error
	return !errors.As(err, &fe) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, wsaConnAborted) || errors.Is(err, wsaConnReset))
}
