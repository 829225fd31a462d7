package node

import (
	"context"
	"io"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/node/limit"
)

// Limits bound what clients and strangers may cost a node. The zero value of a
// field is the default given in parentheses; DefaultLimits has them all.
type Limits struct {
	// Of each listener. A connection that is too many takes the place of the one
	// that has been without a request for longest, or is closed.
	Connections           int           // (4096)
	ConnectionsPerAddress int           // but from loopback (1024)
	HeaderTimeout         time.Duration // for a request's header; for TLS's and HTTP/2's handshake (8 s)
	IdleTimeout           time.Duration // without a request (2 min)
	Streams               int           // requests at once on one HTTP/2 connection (256)
	Frames                int           // HTTP/2 frames a second that ask for nothing, on a gRPC connection (500)
	HeaderBytes           int           // header of an HTTP request (64 KiB)
	MetadataBytes         int           // metadata of a gRPC call (16 KiB)
	MessageBytes          int           // one received gRPC message (4 MiB)

	// Of the node's doors, gRPC and HTTP together.
	Uploads           int   // under way (512)
	UploadsPerKey     int   // of one identity (128)
	UploadBytes       int64 // received and not yet visible (512 GiB)
	UploadBytesPerKey int64 // of one identity (128 GiB)
	Requests          int   // a second of one identity, twice as many at once (20000)
	Failures          int   // failed authentications a minute from one address (20)
}

// DefaultLimits are those that the zero value stands for.
func DefaultLimits() Limits {
	var l Limits
	l.setDefaults()
	return l
}

func (l *Limits) setDefaults() {
	orElse(&l.Connections, 4096)
	orElse(&l.ConnectionsPerAddress, 1024)
	orElse(&l.HeaderTimeout, 8*time.Second)
	orElse(&l.IdleTimeout, 2*time.Minute)
	orElse(&l.Streams, 256)
	orElse(&l.Frames, 500)
	orElse(&l.HeaderBytes, 64<<10)
	orElse(&l.MetadataBytes, 16<<10)
	orElse(&l.MessageBytes, 4<<20)
	orElse(&l.Uploads, 512)
	orElse(&l.UploadsPerKey, 128)
	orElse(&l.UploadBytes, 512<<30)
	orElse(&l.UploadBytesPerKey, 128<<30)
	orElse(&l.Requests, 20_000)
	orElse(&l.Failures, 20)
}

func orElse[T int | int64 | time.Duration](field *T, standard T) {
	if *field == 0 {
		*field = standard
	}
}

func (l *Limits) validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"Connections", int64(l.Connections)}, {"ConnectionsPerAddress", int64(l.ConnectionsPerAddress)},
		{"HeaderTimeout", int64(l.HeaderTimeout)}, {"IdleTimeout", int64(l.IdleTimeout)},
		{"Streams", int64(l.Streams)}, {"Frames", int64(l.Frames)},
		{"HeaderBytes", int64(l.HeaderBytes)}, {"MetadataBytes", int64(l.MetadataBytes)}, {"MessageBytes", int64(l.MessageBytes)},
		{"Uploads", int64(l.Uploads)}, {"UploadsPerKey", int64(l.UploadsPerKey)},
		{"UploadBytes", l.UploadBytes}, {"UploadBytesPerKey", l.UploadBytesPerKey},
		{"Requests", int64(l.Requests)}, {"Failures", int64(l.Failures)},
	} {
		if f.value < 0 {
			return badConfig("Limits."+f.name, "%d is negative", f.value)
		}
	}
	if 0 < l.MessageBytes && l.MessageBytes < minMessageBytes {
		return badConfig("Limits.MessageBytes", "%d is less than the %d of our own clients' chunks", l.MessageBytes, minMessageBytes)
	}
	return nil
}

// minMessageBytes is what our own clients need.
const minMessageBytes = 1 << 20

// limited are the limits at work. The listeners have connections of their own.
type limited struct {
	Limits
	callers          limit.Callers
	uploads          *limit.Uploads
	grpc, http, peer *limit.Conns
	refused          func(listener string) func(limit string)
}

// newLimited makes them. What they refuse is counted.
func newLimited(l Limits, count metric.Int64Counter) *limited {
	l.setDefaults()
	refused := func(listener string) func(string) {
		return func(limit string) {
			count.Add(context.Background(), 1, metric.WithAttributes(
				attribute.String("listener", listener), attribute.String("limit", limit)))
		}
	}
	conns := func(listener string) *limit.Conns {
		return limit.NewConns(limit.ConnOptions{
			Max: l.Connections, MaxPerAddr: l.ConnectionsPerAddress, Refused: refused(listener),
		})
	}
	doors := refused("any") // the limit is of all of them together
	return &limited{
		Limits: l, refused: refused,
		callers: limit.Callers{Identities: limit.NewIdentities(l.Requests, doors), Failures: limit.NewFailures(l.Failures, doors)},
		uploads: limit.NewUploads(limit.UploadOptions{
			Max: l.Uploads, MaxPerIdentity: l.UploadsPerKey, Bytes: l.UploadBytes, BytesPerIdentity: l.UploadBytesPerKey, Refused: doors,
		}),
		grpc: conns("grpc"), http: conns("http"), peer: conns("peer"),
	}
}

// server makes an http.Server that keeps the limits, for connections of conns.
func (l *limited) server(h http.Handler, conns *limit.Conns) *http.Server {
	return &http.Server{
		Handler:           conns.Handler(trailers(lingering(strict(h)))),
		ReadHeaderTimeout: l.HeaderTimeout, // of the TLS handshake too
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.HeaderBytes,
		ConnState:         conns.ConnState,
		ConnContext:       conns.ConnContext,
		// strict answers OPTIONS *: net/http would without asking it.
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.Streams,
			SendPingTimeout:      time.Minute,
			PingTimeout:          20 * time.Second,
			WriteByteTimeout:     answerTimeout,
		},
	}
}

// lingering reads on for a moment where a request was answered before the end of
// its body and its connection ends with it: a socket that is closed with bytes
// unread is reset, and the reset may reach the client before it has seen the
// answer (RFC 9112, 9.6). net/http does as much, unless the request itself said
// "Connection: close" or is of HTTP/1.0.
func lingering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || !r.Close || r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		body := &endedBody{ReadCloser: r.Body}
		inner := r.WithContext(r.Context())
		inner.Body = body
		next.ServeHTTP(w, inner)
		if body.ended {
			return
		}
		control := http.NewResponseController(w)
		if control.Flush() == nil && control.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
}

// endedBody knows whether it has been read to its end.
type endedBody struct {
	io.ReadCloser
	ended bool
}

func (b *endedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// bounded is for handlers that want no body.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bound(w, r)
		next.ServeHTTP(w, r)
	})
}
