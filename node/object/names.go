package object

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// Limits of what a client names. Sizes are in bytes.
const (
	bucketMinBytes     = 3
	bucketMaxBytes     = 63
	keyMaxBytes        = control.MaxKeyBytes
	headerMaxBytes     = control.MaxHeaderBytes
	metadataMaxBytes   = control.MaxMetadataBytes
	metadataMaxEntries = 1000
	etagMaxBytes       = 1024
)

// ValidateBucket checks a bucket's name: [a-z0-9][a-z0-9-]{1,61}[a-z0-9]. The
// error is fault.InvalidArgument about "bucket".
func ValidateBucket(name string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, "bucket", format, args...)
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) < bucketMinBytes || len(name) > bucketMaxBytes:
		return bad("is %d bytes long; %d to %d are allowed", len(name), bucketMinBytes, bucketMaxBytes)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return !isNameRune(r) }); i >= 0 {
		return bad("has something else than a-z, 0-9 and - at byte %d", i)
	}
	if name[0] == '-' || name[len(name)-1] == '-' {
		return bad("begins or ends with -")
	}
	return nil
}

// ValidateKey checks a key: 1 to 1,024 bytes of UTF-8 without control
// characters (C0, DEL, C1), leading or trailing slash, and without empty, "."
// and ".." segments. The error is fault.InvalidArgument about "key".
func ValidateKey(key string) error { return validateKey("key", key) }

// validateKey is ValidateKey for a key that the caller knows by another name.
func validateKey(field, key string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, field, format, args...)
	}
	switch {
	case key == "":
		return bad("is empty")
	case len(key) > keyMaxBytes:
		return bad("is %d bytes long; %d are allowed", len(key), keyMaxBytes)
	case key[0] == '/':
		return bad("begins with a slash")
	case key[len(key)-1] == '/':
		return bad("ends with a slash")
	}
	if why := badText(key); why != "" {
		return bad("%s", why)
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch segment {
		case "":
			return bad("has an empty segment")
		case ".", "..":
			return bad("has a segment %q", segment)
		}
	}
	return nil
}

// badText says what is wrong with a text that must be UTF-8 without control
// characters, or nothing.
func badText(s string) string {
	for i, r := range s {
		if r == utf8.RuneError {
			// U+FFFD may have been written as such; a broken sequence is one byte.
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return fmt.Sprintf("is not valid UTF-8 at byte %d", i)
			}
		}
		if isControl(r) {
			return fmt.Sprintf("has the control character U+%04X at byte %d", r, i)
		}
	}
	return ""
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f }

func isNameRune(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }

// validateMaxAge checks how old the answer to a read may be.
func validateMaxAge(age time.Duration) error {
	if age < 0 || age > MaxAgeMax {
		return fault.New(fault.InvalidArgument, "max_age", "is %v; 0 to %v are allowed, 0 being none older than the call", age, MaxAgeMax)
	}
	return nil
}

// validate checks everything about a put that can be known before its body.
func (r *PutRequest) validate(limit int64) error {
	if err := ValidateBucket(r.Bucket); err != nil {
		return err
	}
	if err := ValidateKey(r.Key); err != nil {
		return err
	}
	switch {
	case r.SizeBytes < -1:
		return fault.New(fault.InvalidArgument, "size", "is negative")
	case r.SizeBytes > limit:
		return tooLarge(limit)
	}
	if err := r.Headers.validate(); err != nil {
		return err
	}
	if err := validateMetadata(r.Metadata); err != nil {
		return err
	}
	return r.Conditions.validate()
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "size", "is over the limit of %d bytes for one object", limit)
}

func (h *Headers) validate() error {
	for _, f := range []struct{ field, value string }{
		{"content_type", h.ContentType},
		{"cache_control", h.CacheControl},
		{"content_disposition", h.ContentDisposition},
		{"content_encoding", h.ContentEncoding},
		{"content_language", h.ContentLanguage},
	} {
		if len(f.value) > headerMaxBytes {
			return fault.New(fault.InvalidArgument, f.field, "is %d bytes long; %d are allowed", len(f.value), headerMaxBytes)
		}
		if why := badFieldValue(f.value); why != "" {
			return fault.New(fault.InvalidArgument, f.field, "%s", why)
		}
	}
	return nil
}

// badFieldValue says what keeps a text from going through an HTTP field and
// back unchanged (RFC 9110, 5.5), or nothing.
func badFieldValue(s string) string {
	if why := badText(s); why != "" {
		return why
	}
	if strings.TrimSpace(s) != s {
		return "begins or ends with white space"
	}
	return ""
}

// validateMetadata checks user metadata. Entries are looked at in order, so
// that the same mistake always gives the same error.
func validateMetadata(m map[string]string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, "metadata", format, args...)
	}
	if len(m) > metadataMaxEntries {
		return bad("has %d entries; %d are allowed", len(m), metadataMaxEntries)
	}
	size := 0
	for name, value := range m {
		size += len(name) + len(value)
	}
	if size > metadataMaxBytes {
		return bad("is %d bytes long, names and values together; %d are allowed", size, metadataMaxBytes)
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if name == "" {
			return bad("has an empty name")
		}
		if strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }) {
			return bad("has the name %q; a-z, 0-9 and - are allowed", name)
		}
		if why := badFieldValue(m[name]); why != "" {
			return fault.New(fault.InvalidArgument, "metadata."+name, "%s", why)
		}
	}
	return nil
}
