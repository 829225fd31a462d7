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
	seen := map[byte]bool{}
	for _, x := range b {
		seen[x] = true
	}
	return len(seen) < minDistinct
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
	for _, word := range []string{
		"", "0", "1", "a", "admin", "changeme", "default", "example", "foo", "gridloom", "key", "mesh", "mesh-secret",
		"mesh.secret", "password", "root", "root.key", "secret", "test", "x", "12345", "123456", "12345678",
	} {
		for _, end := range []string{"", "\n"} {
			if sum := sha256.Sum256([]byte(word + end)); bytes.Equal(b, sum[:]) {
				return true
			}
		}
	}
	return false
}
