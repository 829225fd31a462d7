package iam

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func (w *world) token(t testing.TB, credential Credential, grants ...Grant) string {
	t.Helper()
	token, end, err := w.gate.IssueToken(w.mustBearer(t, credential.String()), grants, 0, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if !end.Equal(w.now.Add(MaxTokenAge)) {
		t.Errorf("the token ends at %v", end)
	}
	return token
}

func TestToken(t *testing.T) {
	w := newWorld(t)
	p := w.mustBearer(t, w.token(t, w.keys["alice"]))
	if p.ID != "alice" || p.User != "alice" || p.Via != ViaToken || p.Root || !p.ExpiresAt.Equal(w.now.Add(MaxTokenAge)) {
		t.Errorf("%+v", p)
	}
	if err := Authorize(p, ObjectWrite, "photos", "a"); err != nil {
		t.Error(err)
	}
	// Narrowed, it does what both allow.
	p = w.mustBearer(t, w.token(t, w.keys["alice"], Grant{Role: ReadOnly, Bucket: AllBuckets}))
	for a, want := range map[Action]bool{ObjectRead: true, ObjectWrite: false, IAMSelf: true, IAMSelfToken: false, IAMSelfKeys: false} {
		if got := Allowed(p, a, "photos", "a"); got != want {
			t.Errorf("narrowed: %s: %t", a, got)
		}
	}
	if Allowed(p, ObjectRead, "videos", "a") {
		t.Error("a token's grants widened its key's")
	}
	if p := w.mustBearer(t, w.token(t, w.keys["alice-reads"])); !p.Service || Allowed(p, ObjectWrite, "photos", "a") {
		t.Errorf("a service key's token may write: %+v", p)
	}
	p = w.mustBearer(t, w.token(t, w.root))
	if p.ID != RootID || !p.Root || p.Via != ViaToken || Authorize(p, ClusterWrite, "", "") != nil {
		t.Errorf("%+v", p)
	}
	p = w.mustBearer(t, w.token(t, w.root, Grant{Role: ReadOnly, Bucket: "photos"}))
	if p.Root || Allowed(p, ClusterWrite, "", "") || Allowed(p, ObjectWrite, "photos", "a") || !Allowed(p, ObjectRead, "photos", "a") {
		t.Errorf("%+v", p)
	}
}

func TestIssueTokenRefuses(t *testing.T) {
	w := newWorld(t)
	alice := w.mustBearer(t, w.keys["alice"].String())
	token, rootToken := w.mustBearer(t, w.token(t, w.keys["alice"])), w.mustBearer(t, w.token(t, w.root))
	bob, err := w.gate.Verify(Request{Certificate: []string{"bob.example"}, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Principal{"nobody": {}, "a token": token, "a root token": rootToken, "a certificate": bob, "made by hand": {ID: RootID, Root: true}} {
		if _, _, err := w.gate.IssueToken(p, nil, 0, w.now); !errors.Is(err, ErrPermissionDenied) {
			t.Errorf("%s got a token: %v", name, err)
		}
	}
	var field *FieldError
	for _, ttl := range []time.Duration{-1, time.Millisecond, MaxTokenAge + 1} {
		if _, _, err := w.gate.IssueToken(alice, nil, ttl, w.now); !errors.As(err, &field) || field.Field != "ttl" {
			t.Errorf("%v: %v", ttl, err)
		}
	}
	if _, _, err := w.gate.IssueToken(alice, []Grant{{Role: "owner"}}, 0, w.now); !errors.As(err, &field) || field.Field != "grants[0].role" {
		t.Errorf("%v", err)
	}
	long := make([]Grant, MaxGrants)
	for i := range long {
		long[i] = Grant{Role: ReadOnly, Bucket: "photos", Prefix: strings.Repeat("x", 1000)}
	}
	if _, _, err := w.gate.IssueToken(alice, long, 0, w.now); !errors.As(err, &field) || field.Field != "grants" {
		t.Errorf("%v", err)
	}
	if _, _, err := NewGate(nil).IssueToken(alice, nil, 0, w.now); !errors.Is(err, ErrNotReady) {
		t.Errorf("%v", err)
	}
	// A token doesn't outlast its key.
	w.key("alice").Expires = w.now.Add(time.Minute).UnixNano()
	w.publish(t)
	_, end, err := w.gate.IssueToken(w.mustBearer(t, w.keys["alice"].String()), nil, 0, w.now)
	if err != nil || !end.Equal(w.now.Add(time.Minute)) {
		t.Errorf("%v, %v", end, err)
	}
}

// forged makes a token of parts that can be altered.
type forged struct {
	method jwt.SigningMethod
	header map[string]any
	claims jwt.MapClaims
	key    any
}

func (w *world) forge() forged {
	return forged{
		method: jwt.SigningMethodHS256,
		header: map[string]any{"kid": "bob"},
		claims: jwt.MapClaims{"iss": "gridloom", "aud": testMesh, "sub": "bob", "jti": "j",
			"iat": w.now.Unix(), "exp": w.now.Add(time.Minute).Unix()},
		key: w.master.tokenKey(),
	}
}

func (f forged) String() string {
	t := jwt.NewWithClaims(f.method, f.claims)
	maps.Copy(t.Header, f.header)
	for name, value := range t.Header {
		if value == nil {
			delete(t.Header, name)
		}
	}
	s, err := t.SignedString(f.key)
	if err != nil {
		panic(err)
	}
	return s
}

func TestForgedTokens(t *testing.T) {
	w := newWorld(t)
	if p := w.mustBearer(t, w.forge().String()); p.User != "bob" {
		t.Fatalf("the token that the others are made of: %+v", p)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bobsLink := linkKey(w.keys["bob"])
	claim := func(name string, value any) func(f *forged) {
		return func(f *forged) {
			if f.claims[name] = value; value == nil {
				delete(f.claims, name)
			}
		}
	}
	const invalid, malformed = "isn't valid here", "malformed"
	for name, tc := range map[string]struct {
		change func(f *forged)
		want   string
	}{
		"alg none": {func(f *forged) { f.method, f.key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType }, invalid},
		"HS512":    {func(f *forged) { f.method = jwt.SigningMethodHS512 }, invalid},
		"HS384":    {func(f *forged) { f.method = jwt.SigningMethodHS384 }, invalid},
		"RS256":    {func(f *forged) { f.method, f.key = jwt.SigningMethodRS256, rsaKey }, invalid},
		"PS256":    {func(f *forged) { f.method, f.key = jwt.SigningMethodPS256, rsaKey }, invalid},
		"ES256":    {func(f *forged) { f.method, f.key = jwt.SigningMethodES256, ecKey }, invalid},
		"alg none, signed as HS256": {func(f *forged) {
			f.header["alg"] = "none"
		}, invalid},
		"another master":     {func(f *forged) { f.key = NewMaster().tokenKey() }, invalid},
		"the user's own key": {func(f *forged) { f.key = bobsLink[:] }, invalid},
		"the root's":         {func(f *forged) { f.key = mac(w.root.secret.bytes[:], tokenLabel) }, invalid},
		"as root":            {func(f *forged) { f.header["kid"], f.claims["sub"] = RootID, RootID }, invalid},
		"root's for another": {func(f *forged) {
			f.header["kid"], f.key = RootID, mac(w.root.secret.bytes[:], tokenLabel)
		}, invalid},
		"other user's":     {claim("sub", "alice"), invalid},
		"of the root user": {claim("sub", RootID), invalid},
		"unknown key":      {func(f *forged) { f.header["kid"] = "carol" }, invalid},
		"another's key":    {func(f *forged) { f.header["kid"] = "alice" }, invalid},
		"no kid":           {func(f *forged) { f.header["kid"] = nil }, invalid},
		"kid not text":     {func(f *forged) { f.header["kid"] = 7 }, invalid},
		"kid not an id":    {func(f *forged) { f.header["kid"] = "bob\x00" }, invalid},
		"no typ":           {func(f *forged) { f.header["typ"] = nil }, invalid},
		"crit":             {func(f *forged) { f.header["crit"] = []string{"exp"} }, invalid},
		"jwk":              {func(f *forged) { f.header["jwk"] = "x" }, invalid},
		"expired":          {claim("exp", w.now.Unix()), "expired"},
		"expired long ago": {claim("exp", 1), "expired"},
		"too long": {func(f *forged) {
			f.claims["exp"] = w.now.Add(MaxTokenAge + time.Second).Unix()
		}, "lasts longer than 15m"},
		"too long from long ago": {claim("iat", w.now.Add(-time.Hour).Unix()), "lasts longer than 15m"},
		"for ever":               {claim("exp", int64(1)<<62), "lasts longer than 15m"},
		"in the future": {func(f *forged) {
			f.claims["iat"] = w.now.Add(tokenLeeway + time.Second).Unix()
			f.claims["exp"] = w.now.Add(tokenLeeway + time.Minute).Unix()
		}, "future"},
		"negative":         {claim("iat", -1<<62), invalid},
		"no exp":           {claim("exp", nil), invalid},
		"no iat":           {claim("iat", nil), invalid},
		"no sub":           {claim("sub", nil), invalid},
		"no jti":           {claim("jti", nil), invalid},
		"no aud":           {claim("aud", nil), invalid},
		"no iss":           {claim("iss", nil), invalid},
		"wrong audience":   {claim("aud", "other-mesh"), "another mesh"},
		"two audiences":    {claim("aud", []string{testMesh, "x"}), malformed},
		"wrong issuer":     {claim("iss", "gridlock"), invalid},
		"exp as text":      {claim("exp", "1900000000"), malformed},
		"exp as fraction":  {claim("exp", 1.5), malformed},
		"unknown claim":    {claim("only", "reading"), malformed},
		"no grants at all": {claim("grants", []string{}), invalid},
		"bad grant":        {claim("grants", []string{"owner:photos"}), invalid},
		"grants as text":   {claim("grants", "admin:*"), malformed},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.forge()
			tc.change(&f)
			p, err := w.bearer(f.String())
			refused(t, p, err, ErrUnauthenticated, tc.want)
		})
	}
}

// TestAlteredTokens: not a character of a token can be changed, dropped or put
// in.
func TestAlteredTokens(t *testing.T) {
	w := newWorld(t)
	token := w.forge().String()
	for i := range len(token) {
		for _, altered := range []string{
			token[:i] + token[i+1:], token[:i] + "A" + token[i:], token[:i] + "\n" + token[i:], token[:i] + "=" + token[i:],
			token[:i] + string(token[i]^1) + token[i+1:], token[:i] + "." + token[i+1:],
		} {
			if altered == token {
				continue
			}
			if p, err := w.bearer(altered); !errors.Is(err, ErrUnauthenticated) {
				t.Fatalf("altered at %d: %+v, %v", i, p, err)
			}
		}
	}
	last := len(token) - 1
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if altered := token[:last] + string(c); altered != token {
			p, err := w.bearer(altered) // its last bits are no part of the signature
			refused(t, p, err, ErrUnauthenticated, "")
		}
	}
	for _, s := range []string{"..", "a.b.c", "e30.e30.", token + ".", "." + token, strings.ReplaceAll(token, ".", "")} {
		p, err := w.bearer(s)
		refused(t, p, err, ErrUnauthenticated, "")
	}
}

// TestTokenLeeway: a token of a node whose clock is ahead by a minute is good,
// and there is no leeway for a token's end.
func TestTokenLeeway(t *testing.T) {
	w := newWorld(t)
	f := w.forge()
	f.claims["iat"], f.claims["exp"] = w.now.Add(tokenLeeway).Unix(), w.now.Add(tokenLeeway+MaxTokenAge).Unix()
	w.mustBearer(t, f.String())
	token := w.token(t, w.keys["bob"])
	w.now = w.now.Add(MaxTokenAge - 1)
	w.mustBearer(t, token)
	w.now = w.now.Add(1)
	p, err := w.bearer(token)
	refused(t, p, err, ErrUnauthenticated, "expired")
}

// TestTokenDies with what it came from.
func TestTokenDies(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world)
		kind   error
	}{
		"key disabled":  {func(w *world) { w.key("bob").Disabled = true }, ErrUnauthenticated},
		"key expired":   {func(w *world) { w.key("bob").Expires = w.now.UnixNano() }, ErrUnauthenticated},
		"key gone":      {func(w *world) { w.rows.Keys = w.rows.Keys[:1] }, ErrUnauthenticated},
		"user disabled": {func(w *world) { w.user("bob").Disabled = true }, ErrUnauthenticated},
		"user gone":     {func(w *world) { w.rows.Users = w.rows.Users[:1] }, ErrUnauthenticated},
		"stale":         {func(w *world) { w.age = MaxAge + 1 }, ErrStale},
	} {
		w := newWorld(t)
		token := w.token(t, w.keys["bob"])
		w.mustBearer(t, token)
		tc.change(w)
		w.publish(t)
		p, err := w.bearer(token)
		if !errors.Is(err, tc.kind) || p != (Principal{}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	// The root's goes with the key that it was made with, and needs no copy.
	w := newWorld(t)
	next := Generate(RootID)
	if err := w.gate.SetRoots(next, w.root); err != nil {
		t.Fatal(err)
	}
	token, newer := w.token(t, w.root), w.token(t, next)
	w.age = MaxAge + 1
	w.mustBearer(t, token)
	if err := w.gate.SetRoots(next); err != nil {
		t.Fatal(err)
	}
	p, err := w.bearer(token)
	refused(t, p, err, ErrUnauthenticated, "isn't valid here")
	w.mustBearer(t, newer)
}
