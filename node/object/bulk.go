package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/fault"
)

// The bulk port, as another implementer would need it. HTTP/1.1 at
// /bulk/v1/payload/{drive}/{id} of the peer listener, every request proven as
// bulkproof.go has it, with its query:
//
//	GET   Range: bytes=a-b, within the payload, or nothing for all of it.
//	      200 or 206, Content-Length, Gridloom-Bulk-Size and -Crc32c: size and
//	      checksum of the whole payload. ?verify=1: no byte is sent that wasn't
//	      compared with its checksum. ?hedge=1: who asks knows another copy, and
//	      rather than waiting for a drive that is not there or has stalled the
//	      answer is an error, or, once the head is sent, breaks off.
//	PUT   Content-Length, or chunked where the size isn't known. With
//	      Expect: 100-continue the 100 says that room is allocated.
//	      201, Gridloom-Bulk-Size and Gridloom-Bulk-Crc32c (8 hex digits) of
//	      what is durable. A body that is cut off leaves nothing.
//
// An error has the HTTP status of its kind, no body, and the kind's reason,
// its subject and detail (both query-escaped) in Gridloom-Bulk-Error,
// -Subject and -Detail. A request may have a Traceparent (W3C Trace Context).
const (
	// BulkPath is where BulkHandler is mounted.
	BulkPath = "/bulk/v1/"

	bulkPayload   = BulkPath + "payload/"
	headerSize    = "Gridloom-Bulk-Size"
	headerCRC32C  = "Gridloom-Bulk-Crc32c"
	headerError   = "Gridloom-Bulk-Error"
	headerSubject = "Gridloom-Bulk-Subject"
	headerDetail  = "Gridloom-Bulk-Detail"
	headerTrace   = "Traceparent"
)

// bulkStall ends a bulk transfer on which nothing moves: a window going out, a
// chunk coming in. It is longer than what the doors allow their clients, whose
// slowness reaches through to here.
const bulkStall = 5 * time.Minute

// refusedBody is how long the body of a request that nobody takes may come.
const refusedBody = 5 * time.Second

// serveBulk answers one request of the bulk port.
func (s *Service) serveBulk(w http.ResponseWriter, r *http.Request) {
	if err := s.serveBulkRequest(w, r); err != nil {
		writeBulkError(w, err)
	}
}

// serveBulkRequest returns an error only while nothing was written to w.
func (s *Service) serveBulkRequest(w http.ResponseWriter, r *http.Request) error {
	// net/http reads what is left of a body that was refused: that has an end.
	// Whoever takes the body renews it.
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedBody))
	}
	if err := s.authenticate(r); err != nil {
		return err
	}
	if isSnapshot(r) {
		return s.serveSnapshot(w, r)
	}
	ref, err := parseBulkPath(r.URL.EscapedPath())
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		return s.traced(w, r, ref, "bulk.get", s.serveBulkGet)
	case http.MethodPut:
		return s.traced(w, r, ref, "bulk.put", s.serveBulkPut)
	}
	return fault.New(fault.Unimplemented, "method", "%s is not known on the bulk port", r.Method)
}

// traced serves a request of the bulk port as a part of the trace that it comes
// with.
func (s *Service) traced(w http.ResponseWriter, r *http.Request, ref payloadRef, name string, serve func(http.ResponseWriter, *http.Request, payloadRef) error) (err error) {
	parent := r.Header.Get(headerTrace)
	if s.o.Hooks.Serve == nil || parent == "" {
		return serve(w, r, ref)
	}
	ctx, end := s.o.Hooks.Serve(r.Context(), parent, name, r.Header.Get(headerFrom))
	err = errBrokenOff // by a panic
	defer func() { end(err) }()
	err = serve(w, r.WithContext(ctx), ref)
	return err
}

// errBrokenOff is how the span of an answer ends that was broken off.
var errBrokenOff = errors.New("the answer was broken off")

// parseBulkPath reads /bulk/v1/payload/{drive}/{id}.
func parseBulkPath(path string) (payloadRef, error) {
	rest, ok := strings.CutPrefix(path, bulkPayload)
	drive, name, two := strings.Cut(rest, "/")
	if !ok || !two {
		return payloadRef{}, fault.New(fault.NotFound, "path", "is not one of the bulk port")
	}
	drive, err := url.PathUnescape(drive)
	if err != nil || drive == "" {
		return payloadRef{}, fault.New(fault.InvalidArgument, "path", "has a bad drive id")
	}
	id, err := dataio.ParseID(name)
	if err != nil {
		return payloadRef{}, fault.New(fault.InvalidArgument, "path", "has a bad payload id")
	}
	return payloadRef{drive, id}, nil
}

func bulkPath(ref payloadRef) string {
	return bulkPayload + url.PathEscape(ref.drive) + "/" + ref.id.String()
}

// take takes one of the slots, or refuses: waiting here would only hide from
// the asking node that another drive is the better choice.
func take(slots chan struct{}, what string) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		return nil, fault.New(fault.Overloaded, what, "all %d are in use", cap(slots))
	}
}

// bulkQuery says how a payload is to be read.
func bulkQuery(how manner) string {
	q := url.Values{}
	if how.verify {
		q.Set("verify", "1")
	}
	if how.hedge {
		q.Set("hedge", "1")
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// parseBulkQuery reads it.
func (s *Service) parseBulkQuery(query string) (manner, error) {
	how := manner{patience: s.o.WaitTimeout}
	q, err := url.ParseQuery(query)
	if err != nil {
		return how, fault.Wrap(fault.InvalidArgument, "query", err)
	}
	for name, values := range q {
		if len(values) != 1 || values[0] != "1" {
			return how, fault.New(fault.InvalidArgument, "query", "%s is not 1", name)
		}
		switch name {
		case "verify":
			how.verify = true
		case "hedge":
			how.hedge = true
		default:
			return how, fault.New(fault.InvalidArgument, "query", "%q is not known on the bulk port", name)
		}
	}
	return how, nil
}

func (s *Service) serveBulkGet(w http.ResponseWriter, r *http.Request, ref payloadRef) error {
	release, err := take(s.readSlots, "bulk reads")
	if err != nil {
		return err
	}
	defer release()
	how, err := s.parseBulkQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	file, err := s.openPayload(r.Context(), ref, how)
	if err != nil {
		return err
	}
	defer file.close()
	size := file.f.SizeBytes()
	off, n, status := int64(0), size, http.StatusOK
	if rng := r.Header.Get("Range"); rng != "" {
		if off, n, err = parseBulkRange(rng, size); err != nil {
			return err
		}
		status = http.StatusPartialContent
	}
	if err := file.read(r.Context(), off, n); err != nil {
		return err
	}
	if n > 0 { // what can't be read can still be said
		if _, err := file.ready(r.Context(), min(n, dataio.NextWindowBytes), dataio.NextWindowBytes); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set(headerSize, strconv.FormatInt(size, 10))
	h.Set(headerCRC32C, fmt.Sprintf("%08x", file.f.CRC32C()))
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size))
	}
	w.WriteHeader(status)
	if err := s.sendBulk(r.Context(), w, file, n); err != nil {
		s.log.DebugContext(r.Context(), "bulk read ended early", "drive", ref.drive, "id", ref.id.String(), "err", err)
		// The other end must not take what it has for the whole.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// sendBulk sends n bytes of a payload to a peer.
func (s *Service) sendBulk(ctx context.Context, w http.ResponseWriter, file *fileStream, n int64) error {
	rc := http.NewResponseController(w)
	t := newSending(s, w, dataio.Windows{
		FirstBytes: dataio.NextWindowBytes, // the first byte is the client's affair
		Before:     func() error { return rc.SetWriteDeadline(time.Now().Add(bulkStall)) },
	})
	t.counts = false
	_, broke, err := t.from(ctx, &source{subject: file.subject, stream: file}, n, nil)
	if broke != nil {
		return broke
	}
	return err
}

// parseBulkRange reads "bytes=a-b", which must lie within size.
func parseBulkRange(s string, size int64) (off, n int64, err error) {
	bad := fault.New(fault.RangeInvalid, "range", "%q is not a range of the %d bytes there are", s, size)
	spec, ok := strings.CutPrefix(s, "bytes=")
	first, last, two := strings.Cut(spec, "-")
	if !ok || !two {
		return 0, 0, bad
	}
	a, aerr := strconv.ParseUint(first, 10, 63)
	b, berr := strconv.ParseUint(last, 10, 63)
	if aerr != nil || berr != nil || a > b || b >= uint64(size) {
		return 0, 0, bad
	}
	return int64(a), int64(b-a) + 1, nil
}

func (s *Service) serveBulkPut(w http.ResponseWriter, r *http.Request, ref payloadRef) error {
	if r.ContentLength > SegmentMaxBytes {
		return fault.New(fault.TooLarge, "payload", "has %d bytes; %d are allowed", r.ContentLength, SegmentMaxBytes)
	}
	release, err := take(s.uploadSlots, "bulk uploads")
	if err != nil {
		return err
	}
	defer release()
	d, err := s.awaitDrive(r.Context(), ref.drive)
	if err != nil {
		return err
	}
	ctx, end, err := s.receive(r.Context(), ref)
	if err != nil {
		return err
	}
	defer end()
	file, err := d.Create(ctx, ref.id, r.ContentLength)
	if err != nil {
		return s.driveFault(err, d)
	}
	defer file.Abort()
	if err := s.receiveBody(ctx, w, r, file, d); err != nil {
		return err
	}
	written, err := file.Commit(ctx)
	if err != nil {
		return s.driveFault(err, d)
	}
	if err := ctx.Err(); err != nil {
		s.removeUnheard(ctx, d, ref)
		return err
	}
	h := w.Header()
	h.Set(headerSize, strconv.FormatInt(written.SizeBytes, 10))
	h.Set(headerCRC32C, fmt.Sprintf("%08x", written.CRC32C))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// receiveBody copies a request's body into a payload file. Its first Read is
// what makes net/http send the 100.
func (s *Service) receiveBody(ctx context.Context, w http.ResponseWriter, r *http.Request, file io.Writer, d *dataio.Drive) error {
	rc := http.NewResponseController(w)
	// A removal must not wait for a sender that has fallen silent.
	defer context.AfterFunc(ctx, func() { rc.SetReadDeadline(time.Unix(1, 0)) })()
	c := s.chunk()
	defer c.release()
	body := &bodyReader{r: r.Body, declared: r.ContentLength, limit: SegmentMaxBytes}
	for !body.ended {
		if err := rc.SetReadDeadline(time.Now().Add(bulkStall)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := body.fill(ctx, c.buf[:])
		s.traffic.received.Add(int64(n))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if _, err := file.Write(c.buf[:n]); err != nil {
			return s.driveFault(err, d)
		}
	}
	return nil
}

// writeBulkError answers with an error, and ends the connection: what is left
// of a body, or of a deadline, must not meet the next request.
func writeBulkError(w http.ResponseWriter, err error) {
	fe := fault.From(err)
	h := w.Header()
	h.Set(headerError, fe.Kind.Reason())
	h.Set(headerSubject, url.QueryEscape(fe.Subject))
	h.Set(headerDetail, url.QueryEscape(fe.Detail))
	h.Set("Content-Length", "0")
	h.Set("Connection", "close")
	w.WriteHeader(fe.Kind.Status())
}

// bulkError reads an error back.
func bulkError(resp *http.Response, subject string) error {
	kind, ok := fault.Parse(resp.Header.Get(headerError))
	if !ok {
		return fault.New(fault.Unavailable, subject, "answered with status %d", resp.StatusCode)
	}
	about, err1 := url.QueryUnescape(resp.Header.Get(headerSubject))
	detail, err2 := url.QueryUnescape(resp.Header.Get(headerDetail))
	if errors.Join(err1, err2) != nil {
		return fault.New(fault.Unavailable, subject, "answered with status %d", resp.StatusCode)
	}
	return peerFault(kind, about, subject, detail, nil)
}
