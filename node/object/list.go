package object

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"unicode/utf8"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// List returns one page of a bucket: one consistent view of it; the next page
// is a later one. Errors: InvalidArgument about "prefix", "delimiter",
// "start_after", "page_token", "page_size" or "max_age"; BucketNotFound.
func (s *Service) List(ctx context.Context, req ListRequest) (*Page, error) {
	if err := ValidateBucket(req.Bucket); err != nil {
		return nil, err
	}
	for _, f := range []struct{ field, value string }{
		{"prefix", req.Prefix}, {"delimiter", req.Delimiter}, {"start_after", req.StartAfter},
	} {
		if err := validatePosition(f.field, f.value); err != nil {
			return nil, err
		}
	}
	limit, err := pageSize(req.Limit)
	if err != nil {
		return nil, err
	}
	if err := validateMaxAge(req.MaxAge); err != nil {
		return nil, err
	}
	after := req.StartAfter
	listing := []string{"objects", req.Bucket, req.Prefix, req.Delimiter}
	if req.Token != "" {
		if after, err = parseToken(req.Token, listing...); err != nil {
			return nil, err
		}
	}
	a, err := s.o.Index.Read(ctx, &control.Query{MaxAge: req.MaxAge, Records: &control.RecordsQuery{
		Bucket: req.Bucket, Prefix: req.Prefix, Delimiter: req.Delimiter, After: after, Limit: limit,
	}})
	if err != nil {
		return nil, err
	}
	page := &Page{CommonPrefixes: a.CommonPrefixes}
	for i := range a.Records {
		page.Objects = append(page.Objects, *infoOf(req.Bucket, &a.Records[i]))
	}
	if a.More {
		page.NextToken = makeToken(a.Next, listing...)
	}
	return page, nil
}

// validatePosition checks a text that keys are compared with. It need not be a
// key itself.
func validatePosition(field, s string) error {
	switch {
	case len(s) > keyMaxBytes:
		return fault.New(fault.InvalidArgument, field, "is %d bytes long; %d are allowed", len(s), keyMaxBytes)
	case !utf8.ValidString(s):
		return fault.New(fault.InvalidArgument, field, "is not valid UTF-8")
	}
	return nil
}

func pageSize(limit int) (int, error) {
	switch {
	case limit == 0:
		return ListMax, nil
	case limit < 0, limit > ListMax:
		return 0, fault.New(fault.InvalidArgument, "page_size", "is %d; 1 to %d are allowed, 0 is %d", limit, ListMax, ListMax)
	}
	return limit, nil
}

// A page token is base64url of: a version byte, four bytes of a checksum over
// the position and over what is listed, so that a token is refused where it
// doesn't belong, and the position. It is no secret and authorises nothing.
const (
	tokenVersion  = 1
	tokenHead     = 1 + 4
	tokenMaxBytes = 4 << 10 // encoded
)

func makeToken(position string, listing ...string) string {
	b := []byte{tokenVersion}
	b = binary.BigEndian.AppendUint32(b, tokenSum(position, listing))
	return base64.RawURLEncoding.EncodeToString(append(b, position...))
}

func parseToken(token string, listing ...string) (position string, err error) {
	bad := fault.New(fault.InvalidArgument, "page_token", "was not given out for this listing")
	if len(token) > tokenMaxBytes {
		return "", bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) <= tokenHead || b[0] != tokenVersion || strings.ContainsAny(token, "\r\n") {
		return "", bad
	}
	position = string(b[tokenHead:])
	if binary.BigEndian.Uint32(b[1:]) != tokenSum(position, listing) {
		return "", bad
	}
	return position, nil
}

func tokenSum(position string, listing []string) uint32 {
	var b []byte
	for _, part := range append([]string{position}, listing...) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return crc32.Checksum(b, castagnoli)
}
