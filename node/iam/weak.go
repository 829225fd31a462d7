package iam

import (
	"bytes"
	"crypto/sha256"
)

// minDistinct is how many different bytes a secret must have: of 32 random ones
// fewer are different less than once in 10^15.
const minDistinct = 16

// weak recognises what no random generator gives: placeholders, patterns, text,
// and the hashes of words that come to mind.
func weak(b []byte) bool {
	return fewDistinct(b) || repeats(b) || counts(b) || isText(b) || hashOfWord(b)
}

func fewDistinct(b []byte) bool {
	var seen [256]bool
	distinct := 0
	for _, x := range b {
		if !seen[x] {
			seen[x] = true
			distinct++
		}
	}
	return distinct < minDistinct
}

// repeats recognises one pattern over and over.
func repeats(b []byte) bool {
	for n := 1; n <= len(b)/2; n++ {
		if bytes.Equal(b[n:], b[:len(b)-n]) {
			return true
		}
	}
	return false
}

// counts recognises bytes in even steps: 0, 1, 2, 3 and the like.
func counts(b []byte) bool {
	for i := 2; i < len(b); i++ {
		if b[i]-b[i-1] != b[1]-b[0] {
			return false
		}
	}
	return true
}

// isText recognises a sentence: printable ASCII from end to end.
func isText(b []byte) bool {
	for _, x := range b {
		if x < ' ' || x > '~' {
			return false
		}
	}
	return true
}

// hashOfWord recognises the SHA-256 of a word, which looks random and is in every
// list of guesses.
func hashOfWord(b []byte) bool {
	if len(b) != sha256.Size {
		return false
	}
	_, ok := hashesOfWords[[sha256.Size]byte(b)]
	return ok
}

// hashesOfWords is made once: every call's credential is looked up.
var hashesOfWords = func() map[[sha256.Size]byte]struct{} {
	hashes := make(map[[sha256.Size]byte]struct{})
	for _, word := range []string{
		"", "0", "1", "a", "admin", "changeme", "default", "example", "foo", "gridloom", "key", "mesh", "mesh-secret",
		"mesh.secret", "password", "root", "root.key", "secret", "test", "x", "12345", "123456", "12345678",
	} {
		for _, end := range []string{"", "\n"} {
			hashes[sha256.Sum256([]byte(word+end))] = struct{}{}
		}
	}
	return hashes
}()
