package iam

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrMaster is what comes of a master that can't be opened.
var ErrMaster = errors.New("the master of users and keys can't be opened")

// What is derived from a secret is derived under a name of its own, so that
// none of it is good for anything else.
const (
	fingerprintLabel = "gridloom iam fingerprint v1" // of a mesh secret
	boxLabel         = "gridloom iam master v1"      // mesh secret → key of a Box
	keySealLabel     = "gridloom key seal v1"        // master → key of Key.Sealed
	tokenLabel       = "gridloom token v1"           // master or root secret → key of tokens
	linkLabel        = "gridloom link v1"            // an access key's secret → key of links
)

const (
	fingerprintBytes = 8
	sealVersion      = 1
	nonceBytes       = 12
	gcmTagBytes      = 16
	sealedKeyBytes   = 1 + nonceBytes + sha256.Size + gcmTagBytes
)

// Master is the secret of the whole mesh under which its access keys are kept
// and its tokens are signed: 32 random bytes, made once. The zero Master is
// none. Like a Credential it shows itself to no verb, and to no encoding.
type Master struct{ secret *sealed }

// NewMaster makes a master.
func NewMaster() Master {
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails: it ends the program instead
	return Master{seal(b)}
}

// IsZero tells whether m is no master at all.
func (m Master) IsZero() bool { return m.secret == nil }

// Fingerprint tells mesh secrets apart, and nothing of what they are.
func Fingerprint(meshSecret []byte) []byte {
	return mac(meshSecret, fingerprintLabel)[:fingerprintBytes]
}

// Seal puts the master into a box that the mesh secret opens.
func (m Master) Seal(meshSecret []byte) Box {
	fingerprint := Fingerprint(meshSecret)
	return Box{Fingerprint: fingerprint, Sealed: sealBytes(boxKey(meshSecret), m.secret.bytes[:], fingerprint)}
}

// OpenMaster opens the first box that one of the mesh secrets fits. The error
// wraps ErrMaster.
func OpenMaster(boxes []Box, meshSecrets [][]byte) (Master, error) {
	for _, secret := range meshSecrets {
		fingerprint := Fingerprint(secret)
		for _, box := range boxes {
			if !bytes.Equal(box.Fingerprint, fingerprint) {
				continue
			}
			b, err := openBytes(boxKey(secret), box.Sealed, fingerprint)
			if err != nil || len(b) != secretBytes {
				return Master{}, fmt.Errorf("%w: its box for mesh secret %x is damaged", ErrMaster, fingerprint)
			}
			return Master{seal(b)}, nil
		}
	}
	return Master{}, fmt.Errorf("%w: it is sealed under none of this node's mesh secrets; one of those that the mesh had before is missing", ErrMaster)
}

// RotateBoxes says what the boxes should be for a leader with these mesh
// secrets, of which the first is in use and all are accepted: one box for each,
// and none for any other. Without a box there is no master yet, and it makes
// one. Changed tells whether the boxes differ from those there are. The error
// wraps ErrMaster: then nothing may be changed.
func RotateBoxes(boxes []Box, meshSecrets [][]byte) (m Master, next []Box, changed bool, err error) {
	switch {
	case len(meshSecrets) == 0 || len(meshSecrets) > MaxBoxes:
		return Master{}, nil, false, fmt.Errorf("%w: there are %d mesh secrets, not 1 to %d", ErrMaster, len(meshSecrets), MaxBoxes)
	case len(boxes) == 0:
		m = NewMaster()
	default:
		if m, err = OpenMaster(boxes, meshSecrets); err != nil {
			return Master{}, nil, false, err
		}
	}
	for _, secret := range meshSecrets {
		fingerprint := Fingerprint(secret)
		if find(next, fingerprint) != nil {
			continue // the same secret twice
		}
		box := find(boxes, fingerprint)
		if box == nil {
			sealed := m.Seal(secret)
			box, changed = &sealed, true
		}
		next = append(next, *box)
	}
	return m, next, changed || len(next) != len(boxes), nil
}

func find(boxes []Box, fingerprint []byte) *Box {
	for i := range boxes {
		if bytes.Equal(boxes[i].Fingerprint, fingerprint) {
			return &boxes[i]
		}
	}
	return nil
}

// SealKey gives what is kept of an access key of user: Key.Sealed. It is good
// for that key and that user alone.
func (m Master) SealKey(c Credential, user string) []byte {
	derived := linkKey(c)
	return sealBytes(m.keySeal(), derived[:], keyContext(c.ID, user))
}

// keySeal is the key of Key.Sealed.
func (m Master) keySeal() []byte { return derive(m.secret.bytes[:], keySealLabel) }

// tokenKey signs the tokens of users.
func (m Master) tokenKey() []byte { return mac(m.secret.bytes[:], tokenLabel) }

// keyContext binds what is sealed to its row: neither name has a NUL.
func keyContext(id, user string) []byte { return []byte(id + "\x00" + user) }

// linkKey is what links are signed with, and what is compared of a bearer key.
func linkKey(c Credential) [sha256.Size]byte {
	return macShort(c.secret.bytes, linkLabel)
}

// macShort is mac for a short message, without memory of its own: every request
// with a key needs one (RFC 2104).
func macShort(key *[secretBytes]byte, message string) [sha256.Size]byte {
	var inner [sha256.BlockSize + sha256.BlockSize]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	for i := range sha256.BlockSize {
		var k byte
		if i < len(key) {
			k = key[i]
		}
		inner[i], outer[i] = k^0x36, k^0x5c
	}
	sum := sha256.Sum256(inner[:sha256.BlockSize+copy(inner[sha256.BlockSize:], message)])
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, message) // never fails
	return h.Sum(nil)
}

func derive(secret []byte, label string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, label, 32)
	if err != nil {
		panic(err) // only for lengths that no hash can give
	}
	return key
}

func boxKey(meshSecret []byte) []byte { return derive(meshSecret, boxLabel) }

// newAEAD takes a key of 32 bytes.
func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for other lengths
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for other blocks
	}
	return aead
}

// sealBytes gives sealVersion, a random nonce, and what it has encrypted and
// authenticated together with the context.
func sealBytes(key, plain, context []byte) []byte {
	out := make([]byte, 1+nonceBytes, 1+nonceBytes+len(plain)+gcmTagBytes)
	out[0] = sealVersion
	rand.Read(out[1:]) // never fails: it ends the program instead
	return newAEAD(key).Seal(out, out[1:], plain, context)
}

func openBytes(key, sealed, context []byte) ([]byte, error) {
	return openWith(newAEAD(key), nil, sealed, context)
}

func openWith(aead cipher.AEAD, dst, sealed, context []byte) ([]byte, error) {
	if len(sealed) < 1+nonceBytes || sealed[0] != sealVersion {
		return nil, ErrMaster
	}
	return aead.Open(dst, sealed[1:1+nonceBytes], sealed[1+nonceBytes:], context)
}

// Equal reports, in constant time, whether two masters are the same. The zero
// Master equals none.
func (m Master) Equal(n Master) bool {
	return !m.IsZero() && !n.IsZero() && subtle.ConstantTimeCompare(m.secret.bytes[:], n.secret.bytes[:]) == 1
}

func (m Master) redacted() string {
	if m.IsZero() {
		return "master(none)"
	}
	return "master(" + hidden + ")"
}

// Format implements fmt.Formatter: no verb shows the secret.
func (m Master) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.redacted()) }

// String implements fmt.Stringer, without the secret.
func (m Master) String() string { return m.redacted() }

// GoString implements fmt.GoStringer, without the secret.
func (m Master) GoString() string { return m.redacted() }

// LogValue implements slog.LogValuer, without the secret.
func (m Master) LogValue() slog.Value { return slog.StringValue(m.redacted()) }

// MarshalText implements encoding.TextMarshaler, and so JSON and YAML, without
// the secret: the master leaves memory in boxes only.
func (m Master) MarshalText() ([]byte, error) { return []byte(m.redacted()), nil }
