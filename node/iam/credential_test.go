package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCredentialRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Generate(rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "id"))
		for _, s := range []string{c.String(), " " + c.String() + "\r\n"} {
			got, err := ParseCredential(s)
			if err != nil || got.IsZero() || !got.Equal(c) || got.String() != c.String() {
				t.Fatalf("%q came back as %q: %v", s, got.String(), err)
			}
		}
	})
}

// Every single mistyped, swapped or missing character is noticed, and said to
// be a matter of typing where the form is still right.
func TestCredentialTypos(t *testing.T) {
	whole := Generate("backup-2").String()
	for i := range whole {
		typo := []byte(whole)
		for _, r := range []byte("aZ2_-\x00") {
			typo[i] = r
			if string(typo) == whole {
				continue
			}
			wantRefused(t, string(typo))
		}
		wantRefused(t, whole[:i])
		wantRefused(t, whole[:i]+whole[i+1:])
		if i > 0 && whole[i] != whole[i-1] {
			typo = []byte(whole)
			typo[i], typo[i-1] = typo[i-1], typo[i]
			wantRefused(t, string(typo))
		}
	}
}

func wantRefused(t *testing.T, s string) {
	t.Helper()
	c, err := ParseCredential(s)
	if !errors.Is(err, ErrCredential) || c != (Credential{}) {
		t.Fatalf("%q was taken, as %q: %v", s, c.String(), err)
	}
}

func TestCredentialErrorsNameThePart(t *testing.T) {
	good := Generate("root").String()
	secret := strings.Split(good, "_")[2]
	signed := func(s string) string { sum := check(s); return s + "_" + string(sum[:]) }
	for _, tc := range []struct{ in, want string }{
		{"", "empty"},
		{"   ", "empty"},
		{secret, `begin with "gl_"`},
		{"gl_" + secret, "of the form"},
		{"gl_root_" + secret, "of the form"},
		{good + "_x", "of the form"},
		{signed("gl__" + secret), "id is empty"},
		{signed("gl_Root_" + secret), "id may have"},
		{signed("gl_rööt_" + secret), "id may have"},
		{signed("gl_" + strings.Repeat("x", 64) + "_" + secret + "aaaaaaaaaaaaaaaa"), "at most"},
		{"gl_admin_" + good[len("gl_root_"):], "check"},
		{good[:len(good)-1], "check"},
		{signed("gl_root_" + secret[:51]), "secret isn't 32 bytes"},
		{signed("gl_root_" + secret + "aa"), "secret isn't 32 bytes"},
		{signed("gl_root_" + secret[:51] + "\n" + secret[51:]), "secret isn't 32 bytes"},
		{signed("gl_root_" + secret[:51] + "b"), "secret isn't 32 bytes"}, // bits behind the end
		{signed("gl_root_" + strings.Repeat("a", 52)), "isn't random"},
	} {
		_, err := ParseCredential(tc.in)
		if !errors.Is(err, ErrCredential) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.in, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), secret[:12]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func TestSecretIsShownByStringAlone(t *testing.T) {
	c := Generate("root")
	secret := encoding.EncodeToString(c.secret.bytes[:])
	type outer struct {
		Shown  Credential
		hidden Credential
		ptr    *Credential
	}
	o := outer{c, c, &c}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
		for _, v := range []any{c, &c, o, &o, []Credential{c}, map[string]any{"c": c}, struct{ inner outer }{o}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("key", "c", c, "p", &c, "outer", o)
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"c": c, "o": o}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, fmt.Errorf("failed with %v", c), c.GoString())
	shown := out.String()
	if strings.Contains(shown, secret) {
		t.Error("the secret is shown in base32")
	}
	for _, f := range []string{"%x", "%X", "%v", "%s"} {
		if strings.Contains(shown, strings.Trim(fmt.Sprintf(f, c.secret.bytes[:]), "[]")) {
			t.Errorf("the secret's bytes are shown, as by %s", f)
		}
	}
	if !strings.Contains(shown, "gl_root_••••") {
		t.Error("the id isn't shown")
	}
	if got := fmt.Sprint(Credential{}); got != "gl_(none)" {
		t.Errorf("the zero credential is shown as %q", got)
	}
}

func TestGenerateRefusesBadIDs(t *testing.T) {
	for _, id := range []string{"", "Root", "a_b", "a b", strings.Repeat("a", 65)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Generate(%q) made a credential that can't be read back", id)
				}
			}()
			Generate(id)
		}()
	}
}

func TestMeshSecret(t *testing.T) {
	s := NewMeshSecret()
	b, err := ParseMeshSecret(s + "\n")
	if err != nil || len(b) != 32 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if s == NewMeshSecret() {
		t.Fatal("the same secret twice")
	}
	for _, bad := range []string{"", "AAAA", s[:43], s + "A", s[:20] + "\n" + s[21:], s[:20] + "*" + s[21:], strings.Repeat("A", 43) + "="} {
		if b, err := ParseMeshSecret(bad); !errors.Is(err, ErrCredential) || b != nil {
			t.Errorf("%q was taken: %v", bad, err)
		} else if len(bad) > 20 && strings.Contains(err.Error(), bad[:20]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func FuzzParseCredential(f *testing.F) {
	good := Generate("root").String()
	for _, s := range []string{"", "gl_", "gl___", good, good[:40], "Bearer " + good, strings.ToUpper(good), "gl_root_" + strings.Repeat("a", 52) + "_aaaaaaa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCredential(s)
		if err != nil {
			if !errors.Is(err, ErrCredential) || c != (Credential{}) {
				t.Fatalf("refused with %v and %v", err, c)
			}
			trimmed := strings.TrimSpace(s)
			if len(trimmed) >= 30 && strings.Contains(err.Error(), trimmed[:30]) {
				t.Fatalf("the error repeats the input: %v", err)
			}
			return
		}
		if c.String() != strings.TrimSpace(s) {
			t.Fatalf("%q is read as %q: two spellings of one key", s, c.String())
		}
	})
}
