package iam

import (
	"bytes"
	"strings"
	"testing"
)

// TestMacShort: it is HMAC-SHA-256, without memory of its own.
func TestMacShort(t *testing.T) {
	for n := range 65 {
		var key [secretBytes]byte
		for i := range key {
			key[i] = byte(i * (n + 1))
		}
		message := strings.Repeat("m", n)
		if got := macShort(&key, message); !bytes.Equal(got[:], mac(key[:], message)) {
			t.Errorf("of %d bytes it is something else", n)
		}
	}
	c := Generate("k")
	if n := testing.AllocsPerRun(100, func() { _ = linkKey(c) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
