package object

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// anyTag is the condition on there being an object at all.
const anyTag = "*"

func (c *Conditions) validate() error {
	if err := validateTags("if_match", c.IfMatch); err != nil {
		return err
	}
	return validateTags("if_none_match", c.IfNoneMatch)
}

func validateTags(field string, tags []string) error {
	if len(tags) > control.MaxConditions {
		return fault.New(fault.InvalidArgument, field, "has %d entity tags; %d are allowed", len(tags), control.MaxConditions)
	}
	for _, tag := range tags {
		switch why := badText(tag); {
		case tag == "":
			return fault.New(fault.InvalidArgument, field, "has an empty entity tag")
		case len(tag) > etagMaxBytes:
			return fault.New(fault.InvalidArgument, field, "has an entity tag of %d bytes; %d are allowed", len(tag), etagMaxBytes)
		case why != "":
			return fault.New(fault.InvalidArgument, field, "has an entity tag that %s", why)
		case strings.Contains(tag, `"`):
			return fault.New(fault.InvalidArgument, field, "has an entity tag with quotes; give it without them")
		}
	}
	return nil
}

// unmodified is the cause of a NotModified: a 304 describes what the client
// has already (RFC 9110, 15.4.5).
type unmodified struct{ info *Info }

func (u *unmodified) Error() string { return "not modified" }

// InfoOf returns the description of the object that a fault.NotModified is
// about, and nil for any other error.
func InfoOf(err error) *Info {
	var u *unmodified
	if errors.As(err, &u) {
		return u.info
	}
	return nil
}

// checkRead evaluates the conditions of a read, in the order of RFC 9110,
// 13.2.2. Records have strong tags.
func (c *Conditions) checkRead(info *Info) error {
	if err := c.checkMatch(info); err != nil {
		return err
	}
	notModified := func() error {
		return &fault.Error{Kind: fault.NotModified, Subject: "object", Detail: "has not changed", Err: &unmodified{info}}
	}
	switch {
	case len(c.IfNoneMatch) > 0:
		if matchesWeakly(c.IfNoneMatch, info.ETag) {
			return notModified()
		}
	case !c.IfModifiedSince.IsZero():
		if !info.ModifiedAt.Truncate(time.Second).After(c.IfModifiedSince) {
			return notModified()
		}
	}
	return nil
}

// checkWrite evaluates the conditions of a write against the present object,
// nil where there is none.
func (c *Conditions) checkWrite(info *Info) error {
	if info == nil {
		if len(c.IfMatch) > 0 {
			return preconditionFailed("if_match", "there is no such object")
		}
		return nil
	}
	if err := c.checkMatch(info); err != nil {
		return err
	}
	if matchesWeakly(c.IfNoneMatch, info.ETag) {
		return preconditionFailed("if_none_match", "there is an object with that entity tag")
	}
	return nil
}

// checkMatch evaluates IfMatch or, without it, IfUnmodifiedSince.
func (c *Conditions) checkMatch(info *Info) error {
	switch {
	case len(c.IfMatch) > 0:
		if !matchesStrongly(c.IfMatch, info.ETag) {
			return preconditionFailed("if_match", "the object has another entity tag")
		}
	case !c.IfUnmodifiedSince.IsZero():
		if info.ModifiedAt.Truncate(time.Second).After(c.IfUnmodifiedSince) {
			return preconditionFailed("if_unmodified_since", "the object has changed since")
		}
	}
	return nil
}

func preconditionFailed(field, why string) error {
	return fault.New(fault.PreconditionFailed, field, "%s", why)
}

// matchesStrongly is the strong comparison (RFC 9110, 8.8.3.2): a weak tag
// matches nothing.
func matchesStrongly(tags []string, etag string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return t == anyTag || t == etag })
}

// matchesWeakly is the weak comparison: it looks at what is behind the W/.
func matchesWeakly(tags []string, etag string) bool {
	return slices.ContainsFunc(tags, func(t string) bool {
		return t == anyTag || strings.TrimPrefix(t, "W/") == etag
	})
}

// forIndex gives the conditions in the form that the index compares, which is
// byte by byte, with its own clock in whole seconds.
func (c *Conditions) forIndex() (ifMatch, ifNoneMatch []string, ifUnmodifiedSince int64) {
	for _, tag := range c.IfNoneMatch {
		ifNoneMatch = append(ifNoneMatch, strings.TrimPrefix(tag, "W/"))
	}
	if len(c.IfMatch) == 0 && !c.IfUnmodifiedSince.IsZero() {
		// 0 would be no condition; no object is as old as 1.
		ifUnmodifiedSince = max(1, c.IfUnmodifiedSince.Unix())
	}
	return c.IfMatch, ifNoneMatch, ifUnmodifiedSince
}

// onWrite says whether there is a condition that a write heeds.
func (c *Conditions) onWrite() bool {
	return len(c.IfMatch) > 0 || len(c.IfNoneMatch) > 0 || !c.IfUnmodifiedSince.IsZero()
}

// precheck refuses a write whose conditions fail already, before its body is
// read. The index decides at the commit.
func (s *Service) precheck(ctx context.Context, bucket, key string, c *Conditions) error {
	if !c.onWrite() {
		return nil
	}
	info, err := s.Stat(ctx, bucket, key, Conditions{}, 0)
	if err != nil && fault.KindOf(err) != fault.ObjectNotFound {
		return err
	}
	return c.checkWrite(info)
}
