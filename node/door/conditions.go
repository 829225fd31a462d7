package door

import (
	"net/http"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// parseConditions reads the conditional fields of RFC 9110, 13.1. Which of
// them counts is for the object service to say (13.2.2). Dates that are none
// are ignored, as 13.1.3 and 13.1.4 demand; entity tags that are none are
// refused, for a write would otherwise go through that its sender meant to be
// conditional.
func parseConditions(h http.Header) (c object.Conditions, err error) {
	if c.IfMatch, err = parseTags(h, "If-Match"); err != nil {
		return c, err
	}
	if c.IfNoneMatch, err = parseTags(h, "If-None-Match"); err != nil {
		return c, err
	}
	c.IfModifiedSince = parseDate(h, "If-Modified-Since")
	c.IfUnmodifiedSince = parseDate(h, "If-Unmodified-Since")
	return c, nil
}

// parseTags reads "*" or a list of entity tags (RFC 9110, 8.8.3). Strong ones
// are given without their quotes, weak ones as W/ and the rest.
func parseTags(h http.Header, field string) ([]string, error) {
	values, ok := h[field]
	if !ok {
		return nil, nil
	}
	list := strings.Trim(strings.Join(values, ","), " \t")
	if list == "*" {
		return []string{list}, nil
	}
	var tags []string
	for list != "" {
		tag, rest, ok := cutTag(list)
		if !ok {
			return nil, fault.New(fault.InvalidArgument, field, `is neither "*" nor a list of entity tags in quotes`)
		}
		tags = append(tags, tag)
		list = strings.TrimLeft(rest, " \t")
		if list != "" && list[0] != ',' {
			return nil, fault.New(fault.InvalidArgument, field, "has no comma between two entity tags")
		}
		list = strings.TrimLeft(list, ", \t")
	}
	if len(tags) == 0 {
		return nil, fault.New(fault.InvalidArgument, field, "is empty")
	}
	return tags, nil
}

// cutTag reads the entity tag that s begins with.
func cutTag(s string) (tag, rest string, ok bool) {
	weak := ""
	if s, ok = strings.CutPrefix(s, "W/"); ok {
		weak = "W/"
	}
	if s, ok = strings.CutPrefix(s, `"`); !ok {
		return "", "", false
	}
	opaque, rest, ok := strings.Cut(s, `"`)
	if !ok || opaque == "" {
		return "", "", false
	}
	for _, c := range []byte(opaque) {
		if c <= ' ' || c == 0x7f {
			return "", "", false
		}
	}
	return weak + opaque, rest, true
}

// parseDate reads an HTTP date; the zero time is none.
func parseDate(h http.Header, field string) time.Time {
	values := h[field]
	if len(values) != 1 {
		return time.Time{}
	}
	t, err := http.ParseTime(values[0])
	if err != nil {
		return time.Time{}
	}
	return t
}

// rangeStands says whether a Range field is to be heeded, by the If-Range
// beside it (RFC 9110, 13.1.5): the entity tag is compared strongly, the date
// exactly. Anything else asks for the whole object.
func rangeStands(h http.Header, info *object.Info) bool {
	values, ok := h["If-Range"]
	if !ok {
		return true
	}
	if len(values) != 1 {
		return false
	}
	if tag, rest, ok := cutTag(values[0]); ok {
		return rest == "" && tag == info.ETag
	}
	t := parseDate(h, "If-Range")
	return !t.IsZero() && t.Equal(info.ModifiedAt.Truncate(time.Second))
}
