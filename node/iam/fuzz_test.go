package iam

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// newFixedWorld is a world whose secrets are always the same, so that seeds stay
// good.
func newFixedWorld(t testing.TB) *world {
	t.Helper()
	fixed := func(text string) *sealed {
		sum := sha256.Sum256([]byte(text))
		return seal(sum[:])
	}
	w := newWorld(t)
	w.master, w.root, w.rows.Keys = Master{fixed("master")}, Credential{ID: RootID, secret: fixed("root")}, nil
	for _, id := range []string{"alice", "bob"} {
		c := Credential{ID: id, secret: fixed(id)}
		w.keys[id] = c
		w.rows.Keys = append(w.rows.Keys, Key{ID: id, User: id, Sealed: w.master.SealKey(c, id), Created: 1})
	}
	if err := w.gate.SetRoots(w.root); err != nil {
		t.Fatal(err)
	}
	w.publish(t)
	return w
}

// FuzzBearer: what gets in is what was given out, to the letter.
func FuzzBearer(f *testing.F) {
	w := newFixedWorld(f)
	given := []string{w.root.String(), w.keys["alice"].String(), w.keys["bob"].String(), w.forge().String()}
	for _, s := range given {
		f.Add("Bearer " + s)
	}
	f.Add("")
	f.Add("Basic cm9vdDpyb290")
	f.Add("bearer  gl_root_a_b")
	f.Add("Bearer eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, header string) {
		p, err := w.gate.Verify(Request{Authorization: header, Now: w.now})
		scheme, credential, _ := strings.Cut(header, " ")
		if err == nil && (!strings.EqualFold(scheme, "bearer") || !slices.Contains(given, strings.TrimSpace(credential))) {
			t.Fatalf("%q got in as %+v", header, p)
		}
		if err != nil && p != (Principal{}) {
			t.Fatalf("%+v with %v", p, err)
		}
	})
}

// FuzzTokenClaims signs whatever it is given: what gets in keeps to the rules.
func FuzzTokenClaims(f *testing.F) {
	w := newFixedWorld(f)
	const header = `{"alg":"HS256","kid":"bob","typ":"JWT"}`
	const claims = `{"iss":"gridloom","aud":"0b6e4f2c-mesh","sub":"bob","jti":"j","iat":1800000000,"exp":1800000060}`
	f.Add(header, claims)
	f.Add(header, strings.Replace(claims, "}", `,"grants":["readonly:photos"]}`, 1))
	f.Add(strings.Replace(header, "HS256", "none", 1), claims)
	f.Add(strings.Replace(header, "bob", "root", 1), claims)
	f.Add(strings.Replace(header, "{", `{"crit":["exp"],`, 1), claims)
	f.Add(header, strings.Replace(claims, "1800000060", "1e400", 1))
	f.Add(header, strings.Replace(claims, "1800000060", "9223372036854775807", 1))
	f.Add(header, strings.Replace(claims, "1800000000", "-9223372036854775808", 1))
	f.Add(header, strings.Replace(claims, "{", `{"EXP":1,`, 1))
	f.Add("null", "null")
	f.Add("[]", "{}")
	text := base64.RawURLEncoding.EncodeToString
	f.Fuzz(func(t *testing.T, header, claims string) {
		signed := text([]byte(header)) + "." + text([]byte(claims))
		token := signed + "." + text(mac(w.master.tokenKey(), signed))
		p, err := w.bearer(token)
		if err != nil {
			if p != (Principal{}) {
				t.Fatalf("%+v with %v", p, err)
			}
			return
		}
		if p.Root || p.Via != ViaToken || p.ID != p.User || w.keys[p.ID].IsZero() ||
			!p.ExpiresAt.After(w.now) || p.ExpiresAt.After(w.now.Add(MaxTokenAge+tokenLeeway)) {
			t.Fatalf("%s, %s: %+v", header, claims, p)
		}
		if !strings.Contains(header, "HS256") && !strings.Contains(header, `\u`) {
			t.Fatalf("%s got in", header)
		}
	})
}

// FuzzLink: what gets in says the same as what was signed.
func FuzzLink(f *testing.F) {
	w := newFixedWorld(f)
	sum := sha256.Sum256(nil)
	end := w.now.Add(time.Hour)
	var signed [][]byte
	for _, r := range []LinkRequest{
		{Method: "GET", Bucket: "photos", Key: "2026/a b.jpg", Expires: end},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: end, Digest: sum[:], Query: "x=1&x=2", Headers: [][2]string{{"x-tag", "v"}}},
		{Method: "DELETE", Bucket: "photos", Key: "ä", Expires: end},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: end, Answer: [][2]string{{"content-type", "text/plain"}}},
	} {
		path, query, _ := strings.Cut(w.signed(f, w.keys["alice"], r), "?")
		l, err := ParseLink(r.Method, path, query, headers(r.Headers))
		if err != nil {
			f.Fatal(err)
		}
		signed = append(signed, l.canonical(testMesh))
		f.Add(r.Method, path, query, "v")
		f.Add("HEAD", path, query, "v")
	}
	f.Add("GET", "/data/a/b", "gl-key=root&gl-expires=1&gl-signature=00", "")
	f.Add("GET", "/data/%2e%2e/..%2f", "gl-headers=%3b%3b&gl-%6bey=a&=&&", "")
	f.Fuzz(func(t *testing.T, method, path, query, value string) {
		l, err := ParseLink(method, path, query, func(string) []string { return []string{value} })
		if err != nil || l == nil {
			if l != nil {
				t.Fatalf("%v with %v", l, err)
			}
			return
		}
		p, err := w.gate.Verify(Request{Link: l, Now: w.now})
		if err != nil {
			return
		}
		if !slices.ContainsFunc(signed, func(s []byte) bool { return bytes.Equal(s, l.canonical(testMesh)) }) || p.ID != "alice" {
			t.Fatalf("%s %s?%s got in as %+v", method, path, query, p)
		}
	})
}

// FuzzSignLink: what is signed gets in, for what it was signed for.
func FuzzSignLink(f *testing.F) {
	w := newFixedWorld(f)
	f.Add("GET", "photos", "2026/a.jpg", "stale=5s", "x-tag", "v", int64(60))
	f.Add("PUT", "photos", "a?b#c%2F+ &;=", "x=%00&y", "Content-Type", "text/plain; charset=utf-8", int64(604800))
	f.Add("DELETE", "a-b", "../..", "", "", "", int64(1))
	f.Add("GET", "photos", "a", "", "content-disposition", "attachment", int64(60))
	f.Fuzz(func(t *testing.T, method, bucket, key, query, name, value string, seconds int64) {
		r := LinkRequest{Method: method, Bucket: bucket, Key: key, Query: query,
			Expires: w.now.Add(time.Duration(seconds%(8*24*3600)) * time.Second)}
		if name != "" {
			r.Headers = [][2]string{{name, value}}
			if method == "GET" && slices.Contains(answerFields[:], name) {
				r.Headers, r.Answer = nil, r.Headers
			}
		}
		link, err := SignLink(w.keys["alice"], testMesh, r, w.now)
		if err != nil {
			return
		}
		p, err := w.use(method, link, r.Headers)
		if err != nil {
			t.Fatalf("%s: %v", link, err)
		}
		if !slices.Equal(p.Answer(), r.Answer) {
			t.Fatalf("%s: %q", link, p.Answer())
		}
		want := linkAction(method)
		if err := Authorize(p, want, bucket, key); (err == nil) != (bucket == "photos") {
			t.Fatalf("%s: %v", link, err)
		}
		if Allowed(p, want, bucket, key+"x") || Allowed(p, want, bucket+"x", key) {
			t.Fatalf("%s is good for more", link)
		}
	})
}

// FuzzParseGrant: what is read is valid, and reads the same as it is written.
func FuzzParseGrant(f *testing.F) {
	for _, s := range []string{"metrics", "readonly:*", "admin:photos", "readwrite:photos/2026/", "admin:photos/", "admin:*/a", "metrics:", "admin:a//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGrant(s)
		if err != nil {
			if g != (Grant{}) {
				t.Fatalf("%+v with %v", g, err)
			}
			return
		}
		again, err := ParseGrant(g.String())
		if err != nil || again != g || g.Validate() != nil || g.String() != s && g.String()+"/" != s {
			t.Fatalf("%q is %+v, %q is %+v: %v", s, g, g.String(), again, err)
		}
	})
}

var (
	nameForm = regexp.MustCompile(`\A[a-z0-9][a-z0-9._@-]{0,63}\z`)
	idForm   = regexp.MustCompile(`\A[a-z0-9-]{1,64}\z`)
	bucketRE = regexp.MustCompile(`\A[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\z`)
)

// FuzzNames: names are what their forms say, and nothing else.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"alice", "root", "", "a.b_c-d@example.com", "-a", "A", "ä", "a\n", "a/b", "*", "photos", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidateName(s) == nil, nameForm.MatchString(s) && s != RootID; got != want {
			t.Errorf("name %q: %t", s, got)
		}
		if got, want := ValidateID(s) == nil, idForm.MatchString(s); got != want {
			t.Errorf("id %q: %t", s, got)
		}
		if got, want := validateBucket(s) == nil, bucketRE.MatchString(s) || s == AllBuckets; got != want {
			t.Errorf("bucket %q: %t", s, got)
		}
	})
}

// FuzzRows: nothing that comes for rows does harm, and what is read makes a
// snapshot.
func FuzzRows(f *testing.F) {
	w := newFixedWorld(f)
	b, err := w.rows.MarshalMsg(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x80})
	f.Add([]byte{0x81, 0xa1, 'k', 0xdd, 0, 1, 0x86, 0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rows := new(Rows)
		if _, err := rows.UnmarshalMsg(b); err != nil {
			return
		}
		s, err := NewSnapshot(rows, w.master)
		if err != nil {
			t.Fatal(err)
		}
		g := NewGate(func() time.Duration { return 0 })
		g.SetSnapshot(w.now, s)
		for i := range rows.Keys {
			c := Credential{ID: rows.Keys[i].ID, secret: w.keys["alice"].secret}
			state := g.state.Load()
			made, err := g.verifyKey(state, c)
			if err != nil {
				continue
			}
			if p, err := g.admit(state, made, w.now); err == nil && (p.ID != "alice" || p.User != "alice") {
				t.Fatalf("alice's secret got in as %+v", p)
			}
		}
	})
}
