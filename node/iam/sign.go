package iam

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// LinkRequest is what a link is to be for.
type LinkRequest struct {
	Method  string // GET, which is good for HEAD too, PUT or DELETE
	Bucket  string
	Key     string
	Query   string      // raw, of the request itself; no parameter begins with "gl-"
	Headers [][2]string // names in any case and values, which the request has to have just so
	Answer  [][2]string // fields that the answer to a GET has in place of the object's own: content-type and so on
	Expires time.Time   // in whole seconds, at most MaxLinkAge ahead
	Digest  []byte      // SHA-256 of what a PUT must bring; nil: anything
}

// SignLink makes a link with an access key, without asking anyone: the path
// and the query, to be put behind a node's address. deployment is the id of the
// mesh it is for. The link is good for as long as the key is, and for no more
// than the key is. The error is a *FieldError, or wraps ErrCredential.
func SignLink(c Credential, deployment string, r LinkRequest, now time.Time) (string, error) {
	if c.IsZero() {
		return "", fmt.Errorf("%w: there is none to sign with", ErrCredential)
	}
	if deployment == "" {
		return "", invalid("deployment", "is empty")
	}
	l, err := r.link(c.ID, now)
	if err != nil {
		return "", err
	}
	key := linkKey(c)
	signature := mac(key[:], string(l.canonical(deployment)))

	var query strings.Builder
	for _, p := range l.pairs {
		query.WriteString(url.QueryEscape(p[0]) + "=" + url.QueryEscape(p[1]) + "&")
	}
	link := l.path + "?" + query.String() + linkSignature + "=" + hex.EncodeToString(signature)
	if query.Len() > maxLinkQueryBytes-len(linkSignature)-1-2*sha256.Size {
		return "", invalid("query", "makes the link's query longer than %d bytes", maxLinkQueryBytes)
	}
	return link, nil
}

// link is the unsigned link.
func (r *LinkRequest) link(keyID string, now time.Time) (*Link, error) {
	l := &Link{method: r.Method, bucket: r.Bucket, key: r.Key, keyID: keyID, expires: r.Expires.Truncate(time.Second)}
	if linkAction(r.Method) == "" {
		return nil, invalid("method", "is none of GET, which is good for HEAD too, PUT and DELETE")
	}
	if r.Bucket == AllBuckets {
		return nil, invalid("bucket", "is no bucket's name")
	}
	if err := validateBucket(r.Bucket); err != nil {
		return nil, err
	}
	if r.Key == "" || len(r.Key) > maxPrefixBytes {
		return nil, invalid("key", "is %d bytes long; 1 to %d are allowed", len(r.Key), maxPrefixBytes)
	}
	if err := validateRunes("key", r.Key); err != nil {
		return nil, err
	}
	l.path = LinkPrefix + r.Bucket + "/" + escapeKey(r.Key)
	switch {
	case !l.expires.After(now):
		return nil, invalid("expires", "is not ahead")
	case l.expires.After(now.Add(MaxLinkAge)):
		return nil, invalid("expires", "is more than %v ahead", MaxLinkAge)
	}
	pairs, err := splitQuery(r.Query)
	if err != nil {
		return nil, invalid("query", "can't be decoded")
	}
	for _, p := range pairs {
		if strings.HasPrefix(p.name, linkParam) {
			return nil, invalid("query", "has a parameter that begins with %q", linkParam)
		}
		if _, ok := answerField(p.name); ok {
			return nil, invalid("query", "has %s, which is for the answer", p.name)
		}
		l.pairs = append(l.pairs, [2]string{p.name, p.value})
	}
	l.pairs = append(l.pairs, [2]string{linkKeyParam, keyID},
		[2]string{linkEndParam, fmt.Sprint(l.expires.Unix())})
	if err := r.signAnswer(l); err != nil {
		return nil, err
	}
	if err := r.signHeaders(l); err != nil {
		return nil, err
	}
	if r.Digest == nil {
		return l, nil
	}
	switch {
	case r.Method != "PUT":
		return nil, invalid("digest", "is for PUT")
	case len(r.Digest) != sha256.Size:
		return nil, invalid("digest", "is %d bytes long, not %d", len(r.Digest), sha256.Size)
	}
	l.digest = (*[sha256.Size]byte)(slices.Clone(r.Digest))
	l.pairs = append(l.pairs, [2]string{linkSumParam, hex.EncodeToString(r.Digest)})
	return l, nil
}

func (r *LinkRequest) signHeaders(l *Link) error {
	if len(r.Headers) == 0 {
		return nil
	}
	if len(r.Headers) > maxLinkHeaders {
		return invalid("headers", "are %d; %d are allowed", len(r.Headers), maxLinkHeaders)
	}
	for _, h := range r.Headers {
		name := strings.ToLower(h[0])
		if !validHeader(name) {
			return invalid("headers", "have a name that can't be signed: a-z, 0-9 and - are allowed, and none that carries a credential or belongs to the connection")
		}
		if err := validateText("headers", h[1], maxLinkQueryBytes); err != nil {
			return err
		}
		l.headers = append(l.headers, [2]string{name, h[1]})
	}
	slices.SortFunc(l.headers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	names := make([]string, len(l.headers))
	for i, h := range l.headers {
		if names[i] = h[0]; i > 0 && names[i-1] == h[0] {
			return invalid("headers", "have %s twice", h[0])
		}
	}
	l.pairs = append(l.pairs, [2]string{linkNamesParam, strings.Join(names, ";")})
	return nil
}

// escapeKey escapes a key for a path, in which its slashes stay.
func escapeKey(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
