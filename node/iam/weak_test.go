package iam

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"testing"
)

func TestWeakSecretsAreRefused(t *testing.T) {
	steps := make([]byte, secretBytes)
	for i := range steps {
		steps[i] = byte(3 * i)
	}
	word, line := sha256.Sum256([]byte("password")), sha256.Sum256([]byte("changeme\n"))
	for what, b := range map[string][]byte{
		"zeros":               make([]byte, secretBytes),
		"one byte":            bytes.Repeat([]byte{0xa5}, secretBytes),
		"a pattern of 4":      bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 8),
		"a pattern of 16":     bytes.Repeat([]byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"), 2),
		"steps":               steps,
		"a sentence":          []byte("correct horse battery staple 123"),
		"two different bytes": append(bytes.Repeat([]byte{1}, 31), 2),
		"the hash of a word":  word[:],
		"the hash of a line":  line[:],
	} {
		c := Credential{ID: RootID, secret: seal(b)}
		if _, err := ParseCredential(c.String()); !errors.Is(err, ErrCredential) {
			t.Errorf("%s as a key: %v", what, err)
		}
		if _, err := ParseMeshSecret(base64.StdEncoding.EncodeToString(b)); !errors.Is(err, ErrCredential) {
			t.Errorf("%s as a mesh secret: %v", what, err)
		}
	}
	for range 10_000 {
		b := make([]byte, secretBytes)
		rand.Read(b)
		if weak(b) {
			t.Fatalf("a random secret is refused: %x", b)
		}
	}
}
