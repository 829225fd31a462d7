package observability

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
)

// HTTP measures the requests that next serves. It belongs outermost, so that
// what the doors inside refuse is counted too; applied twice, the outer one
// counts.
//
// The ResponseWriter that next gets has ReadFrom, Flush and Hijack, and
// unwraps for http.ResponseController. ReadFrom hands the very same source to
// the inner writer, so net/http may use sendfile and splice.
//
// The first byte is stamped when a Write is called and has written something,
// and when a ReadFrom returns (reading the source is part of the wait, and
// the inner writer does both in one) or the inner writer's OnFirst tells that the
// rest waits: without it a long body should be sent in windows, the first a short
// one. A response without a body (HEAD, 204, 304, a handler
// that writes nothing) is stamped when its headers are flushed, at the latest
// when next returns. 1xx responses are neither.
//
// A request whose client is gone before there was a status is classed 4xx
// (as 499), one whose handler panicked before it 5xx.
func (r *Requests) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		if requestFrom(hr.Context()) != nil {
			next.ServeHTTP(w, hr)
			return
		}
		ctx, e := measuredOf(hr.Context(), hr.ProtoMajor)
		q := &e.request
		began := time.Now()
		if q.forgotten {
			began = q.start
		}
		r.beginAt(q, &r.http, began)
		q.method = httpMethod(hr.Method)
		if parent := r.callers.ofHTTP(ctx, hr.Header); parent != ctx {
			ctx, q.traced = parent, true
		}
		if r.tracer != nil {
			ctx = r.startSpan(ctx, q, attribute.String("http.request.method", q.method))
			q.traced = true
		}
		q.launch()

		rw := &e.writer
		*rw = responseWriter{inner: w, request: q, ctx: ctx, head: hr.Method == http.MethodHead}
		hasBody := hr.Body != nil && hr.Body != http.NoBody
		if hasBody || ctx != hr.Context() {
			hr = hr.WithContext(ctx) // net/http looks at its own, which stays as it is
		}
		if hasBody {
			hr.Body = &countedBody{ReadCloser: hr.Body, request: q}
		}
		defer rw.finish()
		next.ServeHTTP(rw, hr)
		rw.returned = true
	})
}

// countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser
	request *request
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.request.addReceived(int64(n))
	return n, err
}

// responseWriter sees status, first byte and size of a response. Like any
// ResponseWriter it is used by one goroutine at a time.
type responseWriter struct {
	inner   http.ResponseWriter
	request *request
	ctx     context.Context // the request's
	head    bool

	status   int           // final; 0: none yet
	headers  time.Duration // from the request's start until they were flushed; 0: not yet
	stamped  bool          // the first byte was recorded
	returned bool          // the handler returned, it did not panic
}

func (w *responseWriter) Header() http.Header { return w.inner.Header() }

// Unwrap is for http.ResponseController: deadlines, full duplex.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.inner }

func (w *responseWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begin(status)
	}
	w.inner.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	at := w.elapsed()
	n, err := w.inner.Write(p)
	w.wrote(int64(n), at)
	return n, err
}

func (w *responseWriter) WriteString(s string) (int, error) {
	w.begin(http.StatusOK)
	at := w.elapsed()
	n, err := io.WriteString(w.inner, s)
	w.wrote(int64(n), at)
	return n, err
}

func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	inner, ok := w.inner.(io.ReaderFrom)
	if !ok {
		buf := copyBuffers.Get().(*[copyBytes]byte) // HTTP/2
		defer copyBuffers.Put(buf)
		return io.CopyBuffer(writerOnly{w}, src, buf[:])
	}
	if !w.stamped {
		if f, ok := w.inner.(firstTeller); ok {
			f.OnFirst(w)
		}
	}
	n, err := inner.ReadFrom(src)
	w.wrote(n, w.elapsed())
	return n, err
}

// firstTeller is a ResponseWriter whose ReadFrom tells f that the first bytes have
// left, if it then has to wait for the client.
type firstTeller interface {
	OnFirst(f interface{ FirstSent() })
}

// FirstSent is told by a firstTeller.
func (w *responseWriter) FirstSent() { w.stamp(w.elapsed()) }

// writerOnly hides ReadFrom from io.CopyBuffer.
type writerOnly struct{ io.Writer }

// copyBytes is what io.Copy would allocate for each move.
const copyBytes = 32 << 10

// copyBuffers are for bodies that no ReadFrom takes.
var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

func (w *responseWriter) Flush() { _ = w.FlushError() } // http.Flusher has no error

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	err := http.NewResponseController(w.inner).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return err
	}
	w.begin(http.StatusOK)
	if w.headers == 0 {
		w.headers = w.elapsed()
	}
	if w.bodyless() {
		w.stamp(w.headers)
	}
	return err
}

// Hijack ends what can be seen of the request: it is classed 1xx and its
// first byte is now.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.inner).Hijack()
	if err == nil {
		w.begin(http.StatusSwitchingProtocols)
		w.stamp(w.elapsed())
	}
	return conn, rw, err
}

// begin notes the final status; only the first counts.
func (w *responseWriter) begin(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// wrote notes n bytes of body, of which the first left at the given time.
func (w *responseWriter) wrote(n int64, at time.Duration) {
	if n <= 0 || w.head || !statusHasBody(w.status) {
		return // net/http takes a HEAD's body and drops it
	}
	w.request.addSent(n)
	w.stamp(at)
}

func (w *responseWriter) stamp(at time.Duration) {
	if !w.stamped {
		w.stamped = true
		w.request.firstByte(w.ctx, at, w.class())
	}
}

func (w *responseWriter) elapsed() time.Duration { return time.Since(w.request.start) }

func (w *responseWriter) class() class {
	return min(max(class(w.status/100), classInformational), classServerError)
}

// bodyless says that nothing comes after the headers.
func (w *responseWriter) bodyless() bool {
	return w.head || !statusHasBody(w.status) || w.inner.Header().Get("Content-Length") == "0"
}

// statusHasBody is RFC 9110, section 6.4.1.
func statusHasBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// statusClientClosed is nginx's 499: the client went away.
const statusClientClosed = 499

// finish runs when the handler has returned or panics.
func (w *responseWriter) finish() {
	switch {
	case w.status != 0:
	case !w.returned:
		w.status = http.StatusInternalServerError
	case errors.Is(w.ctx.Err(), context.Canceled):
		w.status = statusClientClosed
	default:
		w.status = http.StatusOK // net/http sends it now
	}
	o := outcome{class: w.class(), status: w.status, kind: w.kind(), took: w.elapsed()}
	at := w.headers
	if at == 0 {
		at = o.took
	}
	w.stamp(at)
	w.request.end(w.ctx, o)
	w.request.land()
	if w.request.span != nil {
		w.request.endSpan(o, attribute.Int("http.response.status_code", w.status))
	}
	w.inner, w.ctx = ended{}, nil // the connection may be idle for long
}

// kind is that of the request's error: as its answer says, or its handler did
// that broke the answer off, or as the status does.
func (w *responseWriter) kind() string {
	failed := w.status >= http.StatusBadRequest
	if failed {
		if kind := w.inner.Header().Get(ErrorHeader); kind != "" {
			return kind
		}
	}
	switch {
	case w.request.kind != "":
		return w.request.kind
	case failed:
		return kindOfStatus(w.status)
	case !w.returned:
		return kindInternal
	}
	return ""
}
