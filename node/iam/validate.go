package iam

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// FieldError is what the validation of users, keys and grants finds: the first
// field that is wrong, and how. It never repeats a secret.
type FieldError struct {
	Field   string // as in "grants[2].prefix"
	Problem string // as in "is 2000 bytes long; 1024 are allowed"
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// within puts the field of err below another.
func within(field string, err error) error {
	var f *FieldError
	if errors.As(err, &f) {
		return &FieldError{Field: field + "." + f.Field, Problem: f.Problem}
	}
	return err
}

// ValidateName checks a user's name: [a-z0-9] and then up to 63 of
// [a-z0-9._@-]. The name of the root key is nobody's. The error is a
// *FieldError about "name".
func ValidateName(name string) error { return validateName("name", name) }

func validateName(field, name string) error {
	switch {
	case name == "":
		return invalid(field, "is empty")
	case len(name) > MaxNameBytes:
		return invalid(field, "is %d bytes long; %d are allowed", len(name), MaxNameBytes)
	case name == RootID:
		return invalid(field, "is that of the root key, which is no user")
	}
	for i, c := range []byte(name) {
		plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !plain && (i == 0 || !strings.ContainsRune("._@-", rune(c))) {
			return invalid(field, "has something else than a-z, 0-9 and, after the first, . _ @ - at byte %d", i)
		}
	}
	return nil
}

// Validate checks a user on its own: whether a certificate's name is another
// user's too is for who has all of them. The error is a *FieldError.
func (u *User) Validate() error {
	if err := ValidateName(u.Name); err != nil {
		return err
	}
	if err := ValidateGrants(u.Grants); err != nil {
		return err
	}
	if len(u.Certificates) > MaxCertificates {
		return invalid("certificates", "are %d; %d are allowed", len(u.Certificates), MaxCertificates)
	}
	for i, name := range u.Certificates {
		field := fmt.Sprintf("certificates[%d]", i)
		if name == "" {
			return invalid(field, "is empty")
		}
		if err := validateText(field, name, maxCertificateBytes); err != nil {
			return err
		}
		for j := range i {
			if u.Certificates[j] == name {
				return invalid(field, "is the same as certificates[%d]", j)
			}
		}
	}
	if u.Created < 0 {
		return invalid("created", "is negative")
	}
	return nil
}

// Validate checks a key on its own: whether there is its user is for who has
// all of them. The error is a *FieldError.
func (k *Key) Validate() error {
	if err := ValidateID(k.ID); err != nil {
		return invalid("id", "is not a key's: %s", strings.TrimPrefix(err.Error(), ErrCredential.Error()+": "))
	}
	if k.ID == RootID {
		return invalid("id", "is that of the root key")
	}
	if err := validateName("user", k.User); err != nil {
		return err
	}
	switch {
	case k.Service && len(k.Grants) == 0:
		return invalid("grants", "are missing: a service key has its own, and may do what both they and its user's allow")
	case !k.Service && len(k.Grants) > 0:
		return invalid("grants", "are for service keys; other keys have their user's")
	}
	if err := ValidateGrants(k.Grants); err != nil {
		return err
	}
	if len(k.Sealed) != sealedKeyBytes {
		return invalid("sealed", "is %d bytes long, not %d", len(k.Sealed), sealedKeyBytes)
	}
	switch {
	case k.Created < 0:
		return invalid("created", "is negative")
	case k.LastUsed < 0:
		return invalid("last_used", "is negative")
	case k.Expires < 0:
		return invalid("expires", "is negative; 0 is never")
	case k.Expires != 0 && k.Expires <= k.Created:
		return invalid("expires", "is not after the key's creation")
	}
	return validateText("comment", k.Comment, MaxCommentBytes)
}

// ValidateGrants checks the grants of one user, one service key or one token.
// The error is a *FieldError about "grants" or about one of them.
func ValidateGrants(grants []Grant) error {
	if len(grants) > MaxGrants {
		return invalid("grants", "are %d; %d are allowed", len(grants), MaxGrants)
	}
	for i, g := range grants {
		if err := g.Validate(); err != nil {
			return within(fmt.Sprintf("grants[%d]", i), err)
		}
	}
	return nil
}

// validateText checks a text that people read: UTF-8 without control characters
// and without white space around it.
func validateText(field, s string, maxBytes int) error {
	if len(s) > maxBytes {
		return invalid(field, "is %d bytes long; %d are allowed", len(s), maxBytes)
	}
	if err := validateRunes(field, s); err != nil {
		return err
	}
	if strings.TrimSpace(s) != s {
		return invalid(field, "begins or ends with white space")
	}
	return nil
}

func validateRunes(field, s string) error {
	for i, r := range s {
		if r == utf8.RuneError {
			// U+FFFD may have been written as such; a broken sequence is one byte.
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return invalid(field, "is not valid UTF-8 at byte %d", i)
			}
		}
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return invalid(field, "has the control character U+%04X at byte %d", r, i)
		}
	}
	return nil
}
