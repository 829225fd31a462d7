package door

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
)

// defaultContentType is what bytes are that nobody has described.
const defaultContentType = "application/octet-stream"

// serveHead describes an object. Range has no meaning for HEAD (RFC 9110, 14.2).
func (d *Door) serveHead(w http.ResponseWriter, r *http.Request, t target) error {
	ctx := r.Context()
	conditions, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	info, err := d.objects.Stat(ctx, t.bucket, t.key, conditions, t.maxAge)
	p, _ := iam.FromContext(ctx) // authorize has seen it
	if why := d.allowed(p, iam.ObjectRead, t); why != nil {
		return why
	}
	if err != nil {
		return refusedRead(w.Header(), err, customOf(r))
	}
	h := w.Header()
	describe(h, info, info.SizeBytes)
	customOf(r).describe(h, info, false)
	w.WriteHeader(http.StatusOK)
	return nil
}

// serveGet sends an object or ranges of it. Nothing is written before its
// first bytes are at hand, so that up to there an error has its own status.
func (d *Door) serveGet(w http.ResponseWriter, r *http.Request, t target) error {
	ctx := r.Context()
	conditions, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	reader, err := d.objects.Open(ctx, t.bucket, t.key, conditions, t.maxAge)
	p, _ := iam.FromContext(ctx) // authorize has seen it
	if err != nil || reader.AtHand() {
		if why := d.allowed(p, iam.ObjectRead, t); why != nil {
			return why
		}
	}
	if err != nil {
		return refusedRead(w.Header(), err, customOf(r))
	}
	defer reader.Close()
	reader.Verify = t.verify
	info := reader.Info
	var ranges []byteRange
	if fields := r.Header["Range"]; len(fields) == 1 && rangeStands(r.Header, info) {
		if ranges, err = parseRanges(fields[0], info.SizeBytes); err != nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", info.SizeBytes))
			return err
		}
	}
	b := &body{door: d, w: w, control: http.NewResponseController(w), conn: connOf(ctx), info: info, custom: customOf(r), status: http.StatusPartialContent}
	if r.ContentLength != 0 {
		b.unread = d.stall
	}
	if reader.AtHand() {
		return b.answer(ctx, reader, ranges)
	}
	return d.watch(ctx, w, p, iam.ObjectRead, t, func(ctx context.Context) error { return b.answer(ctx, reader, ranges) })
}

// answer sends what was asked for: all of it where there are no ranges.
func (b *body) answer(ctx context.Context, reader *object.Reader, ranges []byteRange) (err error) {
	switch size := b.info.SizeBytes; len(ranges) {
	case 0:
		b.status, b.length = http.StatusOK, size
		err = b.send(ctx, reader, byteRange{0, size})
	case 1:
		b.length, b.contentRange = ranges[0].n, ranges[0].contentRange(size)
		err = b.send(ctx, reader, ranges[0])
	default:
		err = b.sendParts(ctx, reader, ranges)
	}
	if freed := b.release(); err == nil {
		err = freed
	}
	if err != nil && b.begun {
		return &brokenBody{err}
	}
	return err
}

// identify sets the fields that say which version of an object it is about.
func identify(h http.Header, info *object.Info) {
	h.Set("Etag", `"`+info.ETag+`"`)
	h.Set("Last-Modified", info.ModifiedAt.UTC().Format(http.TimeFormat))
}

// cacheable sets the fields that tell caches what to do with an answer.
func cacheable(h http.Header, info *object.Info) {
	set(h, "Cache-Control", info.Headers.CacheControl)
	// Shared caches know what to make of Authorization, not of our own field.
	h.Add("Vary", "Gridloom-Authorization")
}

// describe sets the fields that GET and HEAD share, and the length. Nearly every
// answer has them: their values are made in one piece of memory.
func describe(h http.Header, info *object.Info, length int64) {
	f := fields{h: h, values: make([]string, 0, 16)}
	var room [256]byte
	text := append(append(append(room[:0], '"'), info.ETag...), '"')
	etag := len(text)
	text = info.ModifiedAt.UTC().AppendFormat(text, http.TimeFormat)
	modified := len(text)
	text = appendDigest(text, info.SHA256)
	digest := len(text)
	text = strconv.AppendInt(text, length, 10)
	all := string(text)
	f.set("Etag", all[:etag])
	f.set("Last-Modified", all[etag:modified])
	f.set("Repr-Digest", all[modified:digest])
	f.set("Content-Length", all[digest:])
	f.set("Cache-Control", info.Headers.CacheControl)
	if len(h["Vary"]) == 0 {
		f.set("Vary", "Gridloom-Authorization") // see cacheable
	} else {
		h.Add("Vary", "Gridloom-Authorization")
	}
	f.set("Content-Disposition", info.Headers.ContentDisposition)
	f.set("Content-Encoding", info.Headers.ContentEncoding)
	f.set("Content-Language", info.Headers.ContentLanguage)
	f.set("Content-Type", contentType(info))
	f.set("Accept-Ranges", "bytes")
	for name, value := range info.Metadata {
		h.Set(metaPrefix+name, value)
	}
	// What is stored here comes from whoever may write, and shares its origin
	// with the API and the console: browsers neither guess its type nor run it.
	f.set("X-Content-Type-Options", "nosniff")
	f.set("Content-Security-Policy", "sandbox")
}

// fields sets fields of a header, in their canonical spelling, with one slice for
// all values where Set makes one for each.
type fields struct {
	h      http.Header
	values []string
}

// set sets a field that has a value.
func (f *fields) set(field, value string) {
	if value != "" {
		f.values = append(f.values, value)
		f.h[field] = f.values[len(f.values)-1 : len(f.values) : len(f.values)]
	}
}

func contentType(info *object.Info) string {
	if info.Headers.ContentType == "" {
		return defaultContentType
	}
	return info.Headers.ContentType
}

// set sets a field that has a value.
func set(h http.Header, field, value string) {
	if value != "" {
		h.Set(field, value)
	}
}

// refusedRead prepares the header for an error of Stat or Open: a 304 says what
// of (RFC 9110, 15.4.5).
func refusedRead(h http.Header, err error, c *custom) error {
	if info := object.InfoOf(err); info != nil {
		identify(h, info)
		cacheable(h, info)
		c.cacheable(h)
	}
	return err
}

// brokenBody is an error that came after the response had begun.
type brokenBody struct{ error }

func (e *brokenBody) Unwrap() error { return e.error }

// body is the body of a response to GET. The header goes out with the first
// byte; from there on an error can only break the connection.
type body struct {
	door    *Door
	w       http.ResponseWriter
	control *http.ResponseController
	conn    holder // nil: none
	info    *object.Info
	custom  *custom
	// unread is how long net/http may take to read the request's body, which means
	// nothing, before it writes the first byte.
	unread time.Duration

	status       int
	length       int64  // of the content
	contentRange string // of a single range
	contentType  string // of several ranges; else the object's
	partHead     string // to be written before the next byte

	begun bool
}

// send sends one range.
func (b *body) send(ctx context.Context, reader *object.Reader, part byteRange) error {
	if part.n == 0 {
		return b.begin()
	}
	window := min(part.n, dataio.NextWindowBytes)
	_, err := reader.Send(ctx, b, part.off, part.n, dataio.Windows{
		Before: func() error {
			deadline := b.door.writeDeadline(time.Now(), window).Add(b.unread)
			b.unread = 0
			return renew(ctx, b.control.SetWriteDeadline, deadline)
		},
	})
	return err
}

// sendParts sends several ranges as multipart/byteranges (RFC 9110, 14.6).
func (b *body) sendParts(ctx context.Context, reader *object.Reader, ranges []byteRange) error {
	boundary := rand.Text()
	partType := b.custom.contentType(b.info)
	end := "\r\n--" + boundary + "--\r\n"
	b.contentType = "multipart/byteranges; boundary=" + boundary
	b.length = int64(len(end))
	heads := make([]string, len(ranges))
	for i, part := range ranges {
		heads[i] = fmt.Sprintf("\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n",
			boundary, partType, part.contentRange(b.info.SizeBytes))
		b.length += int64(len(heads[i])) + part.n
	}
	for i, part := range ranges {
		b.partHead = heads[i]
		if err := b.send(ctx, reader, part); err != nil {
			return err
		}
	}
	_, err := io.WriteString(b.w, end)
	return err
}

// begin writes what comes before the next byte: the header, once, and a part's
// head.
func (b *body) begin() error {
	if !b.begun {
		b.begun = true
		h := b.w.Header()
		describe(h, b.info, b.length)
		b.custom.describe(h, b.info, b.status == http.StatusOK)
		set(h, "Content-Range", b.contentRange)
		set(h, "Content-Type", b.contentType)
		b.w.WriteHeader(b.status)
		if b.conn != nil && b.length > 0 {
			// net/http hands the head over, and doesn't copy what comes next behind
			// it; the connection sends both together.
			b.conn.Hold()
			_ = b.control.Flush() // an error comes again with the next write
		}
	}
	if b.partHead == "" {
		return nil
	}
	_, err := io.WriteString(b.w, b.partHead)
	b.partHead = ""
	return err
}

// Write implements io.Writer.
func (b *body) Write(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return b.w.Write(p)
}

// ReadFrom implements io.ReaderFrom: it hands src on as it is, for net/http to
// give it to the kernel. That needs the header to be gone, for net/http copies
// the first 512 bytes otherwise. What is in memory leaves with the header, in
// one write.
func (b *body) ReadFrom(src io.Reader) (int64, error) {
	first := !b.begun
	if err := b.begin(); err != nil {
		return 0, err
	}
	if first && b.conn == nil && dataio.InKernel(src) {
		// A writer that can't flush can't send files either: nothing is lost.
		_ = b.control.Flush()
	}
	return io.Copy(b.w, src)
}

// InKernel says whether ReadFrom leaves the bytes to the kernel (see object.Reader.Send):
// not under TLS, nor in frames of HTTP/2.
func (b *body) InKernel() bool { return b.conn != nil }

// release has what was written leave: net/http may still have it, and behind it
// the connection the head.
func (b *body) release() error {
	if b.conn == nil || !b.begun {
		return nil
	}
	_ = b.control.Flush() // an error of the connection comes again
	return b.conn.Release()
}

// holder is a connection that sends what is written after Hold together with
// what comes next, or with Release (dataio.Conn).
type holder interface {
	Hold()
	Release() error
}

type holderKey struct{}

// ConnContext is an http.Server's: with it the head of an answer leaves together
// with the first bytes of the payload, on connections that can do that.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if h, ok := c.(holder); ok {
		return context.WithValue(ctx, holderKey{}, h)
	}
	return ctx
}

func connOf(ctx context.Context) holder {
	h, _ := ctx.Value(holderKey{}).(holder)
	return h
}

// writeDeadline is when a client that takes the minimal rate has taken a window
// that begins now.
func (d *Door) writeDeadline(now time.Time, window int64) time.Time {
	return now.Add(d.stall + time.Duration(float64(window)/float64(d.minRate)*float64(time.Second)))
}
