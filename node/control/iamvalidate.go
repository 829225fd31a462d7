package control

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// What users, keys and grants may be is package iam's to say; what is checked
// here besides is what the rows rest on.

// iamFault makes of what package iam finds an error of ours.
func iamFault(err error) error {
	var f *iam.FieldError
	if errors.As(err, &f) {
		return fault.New(fault.InvalidArgument, f.Field, "%s", f.Problem)
	}
	return err
}

func (c *PutUser) validate() error { return iamFault(c.User.Validate()) }

func (c *UpdateUser) validate() error {
	return iamFault((&iam.User{Name: c.Name, Grants: c.Grants, Certificates: c.Certificates}).Validate())
}

func (c *DeleteUser) validate() error { return iamFault(iam.ValidateName(c.Name)) }

func (c *PutKey) validate() error { return iamFault(c.Key.Validate()) }

// validate leaves whether a key may have grants to apply, which knows the key.
func (c *UpdateKey) validate() error {
	if c.Expires < 0 {
		return fault.New(fault.InvalidArgument, "expires", "is %d", c.Expires)
	}
	if err := checkKeyID(c.ID); err != nil {
		return err
	}
	if err := checkComment(c.Comment); err != nil {
		return err
	}
	return iamFault(iam.ValidateGrants(c.Grants))
}

// checkComment is what iam.Key's Validate asks of a comment.
func checkComment(s string) error {
	switch {
	case len(s) > iam.MaxCommentBytes:
		return fault.New(fault.InvalidArgument, "comment", "has %d bytes, at most %d are allowed", len(s), iam.MaxCommentBytes)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || strings.TrimSpace(s) != s:
		return fault.New(fault.InvalidArgument, "comment", "isn't UTF-8 without control characters and without white space around it")
	}
	return nil
}

func (c *DeleteKey) validate() error { return checkKeyID(c.ID) }

func (c *TouchKeys) validate() error {
	if n := len(c.Keys); n == 0 || n > MaxTouches {
		return fault.New(fault.InvalidArgument, "keys", "has %d entries, 1 to %d are allowed", n, MaxTouches)
	}
	seen := make(map[string]bool, len(c.Keys))
	for _, k := range c.Keys {
		if err := checkKeyID(k.ID); err != nil {
			return err
		}
		if k.At <= 0 {
			return fault.New(fault.InvalidArgument, "keys", "has the time %d for %q", k.At, k.ID)
		}
		if seen[k.ID] {
			return fault.New(fault.InvalidArgument, "keys", "has %q twice", k.ID)
		}
		seen[k.ID] = true
	}
	return nil
}

func (c *SealMaster) validate() error {
	if n := len(c.Boxes); n == 0 || n > iam.MaxBoxes {
		return fault.New(fault.InvalidArgument, "boxes", "are %d, 1 to %d are allowed", n, iam.MaxBoxes)
	}
	seen := map[string]bool{}
	for _, b := range c.Boxes {
		if len(b.Fingerprint) == 0 || len(b.Sealed) == 0 || seen[string(b.Fingerprint)] {
			return fault.New(fault.InvalidArgument, "boxes", "have one that is empty, or two of the same mesh secret")
		}
		seen[string(b.Fingerprint)] = true
	}
	return nil
}

// checkKeyID checks an id as a part of a row's key; it may be no key's.
func checkKeyID(id string) error { return checkName("key", id) }

// validateIAM is validate for queries of users and keys.
func (q *Query) validateIAM() error {
	switch {
	case q.User != nil:
		return checkName("user", q.User.Name)
	case q.Users != nil:
		return checkPosition(q.Users.After, q.Users.Limit)
	case q.Key != nil:
		return checkKeyID(q.Key.ID)
	case q.Keys != nil:
		if q.Keys.User != "" {
			if err := checkName("user", q.Keys.User); err != nil {
				return err
			}
		}
		return checkPosition(q.Keys.After, q.Keys.Limit)
	}
	return nil
}
