package door

import (
	"net/http"
	"slices"

	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
)

// custom is what the answer to a GET or HEAD has that describe doesn't know of:
// the fields that the caller's link sets, and the digests that it wants. A nil
// one changes nothing.
type custom struct {
	fields        [][2]string // names in lower case and values
	repr, content preferences
}

// customOf reads it from a request; nil is the usual answer.
func customOf(r *http.Request) *custom {
	p, _ := iam.FromContext(r.Context())
	fields := p.Answer()
	repr, content := r.Header["Want-Repr-Digest"], r.Header["Want-Content-Digest"]
	if fields == nil && repr == nil && content == nil {
		return nil
	}
	return &custom{fields: fields, repr: parsePreferences(repr), content: parsePreferences(content)}
}

// describe changes what describe has set. whole: the content is all of the
// object, so that its digest is known.
func (c *custom) describe(h http.Header, info *object.Info, whole bool) {
	if c == nil {
		return
	}
	for _, f := range c.fields {
		h.Set(f[0], f[1])
	}
	c.wish(h, info)
	if whole {
		set(h, "Content-Digest", formatKnown(c.content.wanted, info))
	}
}

// wish changes Repr-Digest to what is wanted, if it is known. The usual SHA-256
// goes only where it is not wanted at all.
func (c *custom) wish(h http.Header, info *object.Info) {
	if c == nil {
		return
	}
	if repr := formatKnown(c.repr.wanted, info); repr != "" {
		h.Set("Repr-Digest", repr)
	} else if slices.Contains(c.repr.not, sha256Key) {
		h.Del("Repr-Digest")
	}
}

// cacheable changes what cacheable has set.
func (c *custom) cacheable(h http.Header) {
	if c == nil {
		return
	}
	for _, f := range c.fields {
		if f[0] == "cache-control" || f[0] == "expires" {
			h.Set(f[0], f[1])
		}
	}
}

// contentType is the object's, or the link's.
func (c *custom) contentType(info *object.Info) string {
	if c != nil {
		for _, f := range c.fields {
			if f[0] == "content-type" {
				return f[1]
			}
		}
	}
	return contentType(info)
}
