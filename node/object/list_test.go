package object

import (
	"encoding/base64"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
)

func TestToken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		position := rapid.StringN(1, -1, 1025).Draw(t, "position")
		listing := []string{"objects", "bucket", rapid.String().Draw(t, "prefix"), "/"}
		token := makeToken(position, listing...)
		if got, err := parseToken(token, listing...); err != nil || got != position {
			t.Fatalf("%q became %q, %v", position, got, err)
		}
		listing[1] = "other"
		if _, err := parseToken(token, listing...); err == nil {
			t.Fatal("the token of another listing was taken")
		}
	})
	// What is after a common prefix is no UTF-8.
	if got, err := parseToken(makeToken("a/\xff", "x"), "x"); err != nil || got != "a/\xff" {
		t.Errorf("%q, %v", got, err)
	}
	good := makeToken("position", "x")
	for _, bad := range []string{
		"", "x", "!", good[:len(good)-1], good + "A", strings.Repeat("A", tokenMaxBytes+1),
		base64.RawURLEncoding.EncodeToString([]byte{2, 0, 0, 0, 0, 'a'}), good + "=", good + "\n",
	} {
		_, err := parseToken(bad, "x")
		wantFault(t, err, fault.InvalidArgument, "page_token")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(makeToken("a", "x"))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if position, err := parseToken(token, "x"); err == nil && makeToken(position, "x") != token {
			t.Fatalf("%q has a second spelling %q", position, token)
		}
	})
}
