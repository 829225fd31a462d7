package dataio

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// An ID names a payload file: a random UUID (RFC 9562, version 4) as NewID
// makes it, though any 16 bytes are accepted. It is written in the canonical
// lower-case form of 36 characters, and the first byte, as two hex digits, is
// the directory below payload/.
type ID [16]byte

// NewID returns a random version 4 UUID.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID parses the canonical form that String writes, and no other: one
// payload has one name.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, fmt.Errorf("payload id %.40q: want 36 characters, as in %s", s, id)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("payload id %q: want lower-case hexadecimal digits", s)
	}
	return id, nil
}

// String returns the canonical form, which is the name of the file.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// IsZero reports whether id is the zero ID, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }
