package door

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/limit"
	"github.com/gridloom/gridloom/node/object"
)

// metaPrefix begins the fields of user metadata; the rest is the name, in
// lower case.
const metaPrefix = "Gridloom-Meta-"

// servePut stores the request's body. Everything that can be refused without
// it is refused before a byte of it is read, which with "Expect: 100-continue"
// is before it is sent.
func (d *Door) servePut(w http.ResponseWriter, r *http.Request, t target) error {
	req, err := d.putRequest(r, t)
	if err != nil {
		return err
	}
	sums, err := parseDigests(r.Header, inHeader)
	if err != nil {
		return err
	}
	wish := &custom{repr: parsePreferences(r.Header["Want-Repr-Digest"])}
	req.Sums = summedUp(r, sums, wish.repr.wanted)
	if sum, ok := wanted(r.Context()); ok {
		sums = append(sums, sum)
	}
	p, _ := iam.FromContext(r.Context()) // authorize has seen it
	held, err := d.uploads.Begin(p.Account())
	if err != nil {
		return err
	}
	defer held.End()
	up := &upload{door: d, ctx: r.Context(), held: held, body: r.Body, control: http.NewResponseController(w), left: d.maxObjectBytes}
	info, err := d.objects.Put(r.Context(), req, up, func() ([]object.Checksum, error) {
		if err := foreign(r.Trailer); err != nil { // it need not have been announced
			return nil, err
		}
		if err := missingDigest(r.Trailer); err != nil {
			return nil, err
		}
		trailing, err := parseDigests(r.Trailer, inTrailer(req.Sums))
		return append(sums, trailing...), err
	})
	if err != nil {
		return up.reason(err)
	}
	identify(w.Header(), info)
	set(w.Header(), "Repr-Digest", formatDigest(info.SHA256))
	wish.wish(w.Header(), info)
	if info.Replaced { // RFC 9110, 9.3.4
		w.WriteHeader(http.StatusNoContent)
	} else {
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// wanted is the checksum that the caller's link demands.
func wanted(ctx context.Context) (object.Checksum, bool) {
	p, _ := iam.FromContext(ctx)
	sum, ok := p.ContentDigest()
	return object.Checksum{Algorithm: object.SHA256, Value: sum[:]}, ok
}

// putRequest reads everything about an upload but its body.
func (d *Door) putRequest(r *http.Request, t target) (object.PutRequest, error) {
	req := object.PutRequest{
		Bucket: t.bucket, Key: t.key,
		SizeBytes: r.ContentLength,
	}
	if r.ContentLength > d.maxObjectBytes {
		return req, d.tooLarge()
	}
	for _, h := range []http.Header{r.Header, r.Trailer} {
		if err := foreign(h); err != nil {
			return req, err
		}
	}
	// RFC 9110, 14.5: storing a part as if it were the whole would be worse.
	if _, ok := r.Header["Content-Range"]; ok {
		return req, fault.New(fault.InvalidArgument, "Content-Range", "a part of an object can't be put")
	}
	for field, values := range r.Header {
		if name, ok := strings.CutPrefix(field, metaPrefix); ok {
			if req.Metadata == nil {
				req.Metadata = make(map[string]string)
			}
			req.Metadata[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	var err error
	if req.Headers, err = headersOf(r.Header); err != nil {
		return req, err
	}
	req.Conditions, err = parseConditions(r.Header)
	return req, err
}

// headersOf are the fields that are kept. Those that are lists may come in
// several lines, which are one (RFC 9110, 5.3): without its last coding content
// could not be decoded. Of the others two would be two answers to one question.
func headersOf(h http.Header) (kept object.Headers, err error) {
	for _, f := range []struct {
		name string
		into *string
		list bool
	}{
		{"Content-Type", &kept.ContentType, false},
		{"Cache-Control", &kept.CacheControl, true},
		{"Content-Disposition", &kept.ContentDisposition, false},
		{"Content-Encoding", &kept.ContentEncoding, true},
		{"Content-Language", &kept.ContentLanguage, true},
	} {
		values := h[f.name]
		if len(values) > 1 && !f.list {
			return kept, fault.New(fault.InvalidArgument, f.name, "is given %d times", len(values))
		}
		*f.into = strings.Join(values, ", ")
	}
	return kept, nil
}

func (d *Door) tooLarge() error {
	return fault.New(fault.TooLarge, "body", "is over the limit of %d bytes for one object", d.maxObjectBytes)
}

// serveDelete removes an object.
func (d *Door) serveDelete(w http.ResponseWriter, r *http.Request, t target) error {
	conditions, err := parseConditions(r.Header)
	if err != nil {
		return err
	}
	if err := d.objects.Delete(r.Context(), t.bucket, t.key, conditions); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// upload is the body of a PUT. Each read has its own deadline, so that a
// client that stalls is cut off, and one that is merely slow is not.
type upload struct {
	door    *Door
	ctx     context.Context
	held    *limit.Upload
	body    io.Reader
	control *http.ResponseController
	left    int64 // bytes that may still come
	err     error // why it ended, if not with its end
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	deadline := time.Now().Add(u.door.stall)
	if err := renew(u.ctx, u.control.SetReadDeadline, deadline); err != nil {
		u.err = err
		return 0, err
	}
	n, err := u.body.Read(p)
	u.left -= int64(n)
	over := u.held.Add(int64(n))
	switch {
	case u.left < 0:
		u.err = u.door.tooLarge()
	case over != nil:
		u.err = over
	case err == io.EOF:
		// The commit that follows takes its own time.
		u.err = u.control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded), err != nil && !time.Now().Before(deadline):
		// Of a trailer that doesn't come net/http says that it is too long.
		u.err = fault.New(fault.IncompleteBody, "body", "stalled: no byte came for %v", u.door.stall)
	case err != nil:
		u.err = fault.Wrap(fault.IncompleteBody, "body", err)
	}
	if u.err != nil {
		return 0, u.err
	}
	return n, err
}

// reason picks the cause of a failed put: the body's, if that failed first.
func (u *upload) reason(err error) error {
	if u.err != nil {
		return u.err
	}
	return err
}
