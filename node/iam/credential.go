package iam

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
)

// ErrCredential is what the errors of ParseCredential and ParseMeshSecret
// wrap.
var ErrCredential = errors.New("bad credential")

// RootID is the id of the key that may do everything.
const RootID = "root"

const (
	maxIDBytes  = 64
	secretBytes = 32     // of access keys and of the mesh secret
	secretChars = 52     // of a secret in base32
	checkChars  = 7      // of a check
	hidden      = "••••" // what is shown in a secret's place

	// maxCredentialBytes is the length of the longest credential.
	maxCredentialBytes = len("gl_") + maxIDBytes + len("_") + secretChars + len("_") + checkChars
)

// encoding has neither '_', which separates, nor upper case, which is lost
// too easily: 52 characters for a secret, 7 for a check.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Credential is an access key: who, and the secret that proves it. It comes
// from Generate or ParseCredential. The zero Credential is none, as IsZero
// tells, and proves nothing.
type Credential struct {
	ID string // [a-z0-9-], 1 to 64 bytes

	secret *sealed
}

// sealed keeps a secret from fmt, which prints unexported fields without
// asking their methods. Of a pointer it shows the address, or, for a verb that
// doesn't fit, what it points to; so there are two.
type sealed struct {
	bytes *[secretBytes]byte
}

func seal(b []byte) *sealed { return &sealed{(*[secretBytes]byte)(b)} }

// Generate makes a credential for id, with a secret of 256 random bits. The
// id is the program's choice: one that a credential can't hold is a panic.
// Ids that come from outside are for ValidateID first.
func Generate(id string) Credential {
	if err := ValidateID(id); err != nil {
		panic(err)
	}
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails: it ends the program instead
	return Credential{ID: id, secret: seal(b)}
}

// NewKeyID makes an id for an access key: 80 random bits in 16 characters, so that
// it is never that of another, and tells those who get a link nothing of whose it
// is.
func NewKeyID() string {
	b := make([]byte, 10)
	rand.Read(b) // never fails: it ends the program instead
	return encoding.EncodeToString(b)
}

// ValidateID says what is wrong with the id of a credential.
func ValidateID(id string) error {
	if id == "" {
		return fmt.Errorf("%w: the id is empty", ErrCredential)
	}
	if len(id) > maxIDBytes {
		return fmt.Errorf("%w: the id has %d bytes, at most %d are allowed", ErrCredential, len(id), maxIDBytes)
	}
	for _, r := range []byte(id) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("%w: the id may have a-z, 0-9 and - only", ErrCredential)
		}
	}
	return nil
}

// IsZero tells whether c is no credential at all.
func (c Credential) IsZero() bool { return c.secret == nil }

// String is the credential as its owner keeps it, secret and all:
// gl_<id>_<secret>_<check>. It is "" for the zero Credential.
func (c Credential) String() string {
	if c.IsZero() {
		return ""
	}
	s := "gl_" + c.ID + "_" + encoding.EncodeToString(c.secret.bytes[:])
	sum := check(s)
	return s + "_" + string(sum[:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check is the checksum of what stands before it in a credential.
func check(s string) (text [checkChars]byte) {
	sum := crc32.Checksum([]byte(s), castagnoli)
	encoding.Encode(text[:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return text
}

// ParseCredential reads what String wrote; white space around it is ignored,
// since files end in a newline. Errors wrap ErrCredential, say which part is
// wrong and never repeat what was given.
func ParseCredential(s string) (Credential, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, "gl_")
	switch {
	case s == "":
		return Credential{}, fmt.Errorf("%w: it is empty", ErrCredential)
	case !ok:
		return Credential{}, fmt.Errorf(`%w: it doesn't begin with "gl_"`, ErrCredential)
	case len(s) > maxCredentialBytes:
		return Credential{}, fmt.Errorf("%w: it has %d bytes, at most %d are possible", ErrCredential, len(s), maxCredentialBytes)
	}
	id, rest, _ := strings.Cut(rest, "_")
	secret, sum, ok := strings.Cut(rest, "_")
	if !ok || strings.Contains(sum, "_") {
		return Credential{}, fmt.Errorf("%w: it isn't of the form gl_<id>_<secret>_<check>", ErrCredential)
	}
	if err := ValidateID(id); err != nil {
		return Credential{}, err
	}
	if want := check(s[:len(s)-len(sum)-1]); sum != string(want[:]) {
		return Credential{}, fmt.Errorf("%w: the check at its end doesn't fit the rest: mistyped or cut off", ErrCredential)
	}
	raw, err := encoding.DecodeString(secret)
	// Decoding ignores newlines and the last bits; only what String writes
	// is a credential.
	if err != nil || len(raw) != secretBytes || len(secret) != secretChars || !written(raw, secret) {
		return Credential{}, fmt.Errorf("%w: the secret isn't %d bytes in base32", ErrCredential, secretBytes)
	}
	if weak(raw) {
		return Credential{}, fmt.Errorf("%w: the secret isn't random", ErrCredential)
	}
	return Credential{ID: id, secret: seal(raw)}, nil
}

// written reports whether secret is what String writes for raw.
func written(raw []byte, secret string) bool {
	var again [secretChars]byte
	encoding.Encode(again[:], raw)
	return string(again[:]) == secret
}

// Equal reports, in constant time, whether two credentials are the same. The
// zero Credential equals none.
func (c Credential) Equal(d Credential) bool {
	if c.IsZero() || d.IsZero() {
		return false
	}
	return c.ID == d.ID && subtle.ConstantTimeCompare(c.secret.bytes[:], d.secret.bytes[:]) == 1
}

// redacted is what may be shown of a credential.
func (c Credential) redacted() string {
	if c.IsZero() {
		return "gl_(none)"
	}
	return "gl_" + c.ID + "_" + hidden
}

// Format implements fmt.Formatter: no verb shows the secret.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.redacted()) }

// GoString implements fmt.GoStringer, without the secret.
func (c Credential) GoString() string { return c.redacted() }

// LogValue implements slog.LogValuer, without the secret.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.redacted()) }

// MarshalText implements encoding.TextMarshaler, and so JSON and YAML,
// without the secret: writing a credential down takes String.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.redacted()), nil }

// NewMeshSecret makes the secret that the nodes of a mesh share, and prove to
// each other: 32 random bytes in standard base64.
func NewMeshSecret() string {
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails: it ends the program instead
	return base64.StdEncoding.EncodeToString(b)
}

// ParseMeshSecret reads what NewMeshSecret made, or anything else that is 32
// bytes in base64; white space around it is ignored. Errors wrap
// ErrCredential and never repeat what was given.
func ParseMeshSecret(s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, fmt.Errorf("%w: the mesh secret is empty", ErrCredential)
	}
	if len(s) != base64.StdEncoding.EncodedLen(secretBytes) {
		return nil, fmt.Errorf("%w: the mesh secret has %d characters, not the %d of %d bytes in base64", ErrCredential, len(s), base64.StdEncoding.EncodedLen(secretBytes), secretBytes)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != secretBytes {
		return nil, fmt.Errorf("%w: the mesh secret isn't %d bytes in base64", ErrCredential, secretBytes)
	}
	if weak(b) {
		return nil, fmt.Errorf("%w: the mesh secret isn't random", ErrCredential)
	}
	return b, nil
}
