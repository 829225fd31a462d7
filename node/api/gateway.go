package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// maxBodyBytes is the largest JSON request. The largest that there can be, 1,000
// keys of 1,024 bytes, just fits where JSON need not escape them.
const maxBodyBytes = 1 << 20

// gateway serves the calls as JSON, and streams that answer one message as a line
// of JSON for each of theirs. It finds the route, refuses what the
// call would not understand, and leaves the rest to grpc-gateway, which is
// given nothing of the request but its path, query and body.
type gateway struct {
	mux         *runtime.ServeMux
	routes      []route
	bodyTimeout time.Duration
}

func newGateway(conn *inProcess, routes []route, bodyTimeout time.Duration) (*gateway, error) {
	// What the call takes is its own business, what the client takes to read is
	// not. The messages of a stream are bound one by one, by its lineWriter.
	boundAnswer := func(_ context.Context, w http.ResponseWriter, _ proto.Message) error {
		if _, stream := w.(*lineWriter); stream {
			return nil
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bodyTimeout))
		return nil
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &strictJSON{runtime.JSONPb{
			// Without them an empty object would have no size and an empty list
			// no list.
			MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true},
		}}),
		runtime.WithIncomingHeaderMatcher(noHeader),
		runtime.WithOutgoingHeaderMatcher(noHeader),
		runtime.WithOutgoingTrailerMatcher(noHeader),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithForwardResponseOption(boundAnswer),
		runtime.WithErrorHandler(writeGatewayError),
		// What ends a stream that has begun is its last line, {"error":…}. Its
		// status is that of a success, so metrics and the audit log are told.
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status {
			err = measured(ctx, err)
			audit.From(ctx).Fail(fault.KindOf(err).Reason())
			return status.Convert(statusOf(err))
		}),
		runtime.WithRoutingErrorHandler(writeRoutingError),
	)
	ctx := context.Background() // grpc-gateway keeps it for nothing here
	return &gateway{mux, routes, bodyTimeout}, errors.Join(
		pb.RegisterBucketServiceHandlerClient(ctx, mux, pb.NewBucketServiceClient(conn)),
		pb.RegisterObjectServiceHandlerClient(ctx, mux, pb.NewObjectServiceClient(conn)),
		pb.RegisterClusterServiceHandlerClient(ctx, mux, pb.NewClusterServiceClient(conn)),
		pb.RegisterStorageServiceHandlerClient(ctx, mux, pb.NewStorageServiceClient(conn)),
		pb.RegisterMetricsServiceHandlerClient(ctx, mux, pb.NewMetricsServiceClient(conn)),
		pb.RegisterIAMServiceHandlerClient(ctx, mux, pb.NewIAMServiceClient(conn)),
		pb.RegisterDiagnosticsServiceHandlerClient(ctx, mux, pb.NewDiagnosticsServiceClient(conn)),
	)
}

func noHeader(string) (string, bool) { return "", false }

// ServeHTTP implements http.Handler.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// What is about one moment and one caller is nobody else's to keep.
	w.Header().Set("Cache-Control", "no-store")
	inner, stream, err := g.prepare(w, r)
	switch {
	case err != nil:
		fault.WriteProblem(w, err)
	case inner == nil:
	case stream:
		lines := &lineWriter{ResponseWriter: w, timeout: g.bodyTimeout}
		g.mux.ServeHTTP(lines, inner)
		lines.bind()          // net/http writes the end of the body
		if lines.err != nil { // of which grpc-gateway tells nobody
			reason := fault.Canceled.Reason()
			observability.SetError(r.Context(), reason)
			audit.From(r.Context()).Fail(reason)
		}
	default:
		g.mux.ServeHTTP(w, inner)
	}
}

// lineWriter bounds how long each line of a stream takes to leave, and not how
// long there is none: HTTP/2 resets a stream whose write deadline passes, though
// nothing is being written.
type lineWriter struct {
	http.ResponseWriter
	timeout time.Duration
	bound   bool  // since the first Write after a flush
	err     error // the first of writing
}

// Unwrap is for http.ResponseController.
func (w *lineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bind sets the deadline, where none is set. One that can't be set bounds nothing,
// as in the answers to calls.
func (w *lineWriter) bind() {
	if !w.bound {
		w.bound = true
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.timeout))
	}
}

// Write implements http.ResponseWriter.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.bind()
	n, err := w.ResponseWriter.Write(p)
	w.err = cmp.Or(w.err, err)
	return n, err
}

// FlushError is what http.ResponseController calls, at the end of each line.
func (w *lineWriter) FlushError() error {
	w.bind()
	control := http.NewResponseController(w.ResponseWriter)
	if err := control.Flush(); err != nil {
		w.err = cmp.Or(w.err, err)
		return err
	}
	w.bound = false
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

// prepare makes the request that grpc-gateway is given, and says whether its answer
// is a stream. Without one and without an error, the answer is written.
func (g *gateway) prepare(w http.ResponseWriter, r *http.Request) (_ *http.Request, stream bool, _ error) {
	// No path of the API needs escaping, so an escaped one is none of them; like
	// this there is one reading of it.
	path := r.URL.EscapedPath()
	route, allowed := findRoute(g.routes, r.Method, path)
	if route == nil || path != r.URL.Path {
		if len(allowed) > 0 {
			fault.RefuseMethod(w, r.Method, allowed...)
			return nil, false, nil
		}
		return nil, false, fault.New(fault.NotFound, path, "is no path of the API; /openapi.json lists them")
	}
	observability.SetAPI(r.Context(), route.api)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, false, fault.New(fault.InvalidArgument, "query", "%v", err)
	}
	for name := range query {
		switch _, ok := route.parameter(name); {
		case route.body:
			return nil, false, fault.New(fault.InvalidArgument, name, "is in the query; this call takes its parameters from the body")
		case !ok:
			return nil, false, fault.New(fault.InvalidArgument, name, "is no query parameter of %s", route.api)
		}
	}
	body, err := g.readBody(w, r, route.body)
	if err != nil {
		return nil, false, err
	}
	inner := &http.Request{
		Method: route.method, URL: r.URL, Host: r.Host, Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: http.Header{}, Body: http.NoBody,
	}
	if len(body) > 0 {
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return inner.WithContext(r.Context()), route.stream, nil
}

// readBody reads the body of a call that takes one, and makes sure that there
// is none for the others.
func (g *gateway) readBody(w http.ResponseWriter, r *http.Request, wanted bool) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(g.bodyTimeout)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		// What follows takes its own time, and net/http still listens.
		err = control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fault.New(fault.IncompleteBody, "body", "did not come within %v", g.bodyTimeout)
	case errors.As(err, &tooLarge):
		return nil, fault.New(fault.TooLarge, "body", "is over the limit of %d bytes", maxBodyBytes)
	default:
		return nil, fault.Wrap(fault.IncompleteBody, "body", err)
	}
	if !wanted && len(body) > 0 {
		return nil, fault.New(fault.InvalidArgument, "body", "is not taken by this call; its parameters are in the path and the query")
	}
	return body, err
}

// strictJSON is grpc-gateway's JSON, but that it refuses unknown fields and
// anything behind the message.
type strictJSON struct{ runtime.JSONPb }

// NewDecoder implements runtime.Marshaler.
func (j *strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(body)) == 0 {
			return io.EOF // an empty message, for grpc-gateway
		}
		m, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("%T is no message", v) // no route has a field for its body
		}
		return j.UnmarshalOptions.Unmarshal(body, m) // JSONPb's own stops behind the first value
	})
}

// writeGatewayError writes errors of the services, which have a kind, and those
// that grpc-gateway itself makes of what it can't read.
func writeGatewayError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if isStatus(err) {
		subject := "query"
		if r.Body != http.NoBody {
			subject = "body"
		}
		// protojson begins with "proto: ", with one of two kinds of space.
		text := strings.TrimLeft(strings.TrimPrefix(status.Convert(err).Message(), "proto:"), " \u00a0")
		err = fault.New(fault.InvalidArgument, subject, "%s", text)
	}
	fault.WriteProblem(w, err)
}

// writeRoutingError is for paths that are ours and not grpc-gateway's.
func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, _ int) {
	fault.WriteProblem(w, fault.New(fault.NotFound, r.URL.Path, "is no path of the API"))
}
