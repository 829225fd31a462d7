package iam

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%+q", "%x", "%X", "% x", "%#x", "%d", "%o", "%b", "%c", "%U", "%p", "%t", "%e", "%g", "%f",
	"%T", "%w", "%z", "%20v", "%.3s"}

// traces are the beginnings of a secret in every form that something could print
// it in.
func traces(secret []byte) (all []string) {
	head := bytes.Clone(secret[:8])
	for _, verb := range verbs {
		switch verb {
		case "%p", "%T", "%t", "%z", "%w", "%20v", "%.3s":
			continue // addresses and types, or as others
		}
		for _, v := range []any{head, [8]byte(head), string(head)} {
			shown := fmt.Sprintf(verb, v)
			shown = shown[strings.IndexByte(shown, '{')+1:] // []byte{…
			all = append(all, strings.Trim(shown, `[]{}"`))
		}
	}
	all = append(all, encoding.EncodeToString(secret)[:12], strings.ToUpper(encoding.EncodeToString(secret)[:12]),
		base64.StdEncoding.EncodeToString(head)[:10], base64.RawURLEncoding.EncodeToString(head)[:10])
	kept := all[:0]
	for _, trace := range all {
		if len(trace) >= 6 {
			kept = append(kept, trace)
		}
	}
	return kept
}

// secrets are all of a world's that mustn't be seen, by what they are.
func (w *world) secrets() map[string][]byte {
	all := map[string][]byte{
		"master": w.master.secret.bytes[:], "token key": w.master.tokenKey(), "seal key": w.master.keySeal(),
		"root": w.root.secret.bytes[:], "root's token key": mac(w.root.secret.bytes[:], tokenLabel),
	}
	for id, c := range w.keys {
		derived := linkKey(c)
		all[id], all[id+"'s link key"] = c.secret.bytes[:], derived[:]
	}
	derived := linkKey(w.root)
	all["root's link key"] = derived[:]
	return all
}

func TestTracesAreFound(t *testing.T) {
	secret := []byte("\x01\x9f\x83\x54\xb5\xc6\xd7\xe8 and what follows it, 32")
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%X", "%q", "%s", "%o", "%b"} {
		for _, v := range []any{secret, *(*[32]byte)(secret), struct{ b []byte }{secret}, struct{ s string }{string(secret)}} {
			shown, found := fmt.Sprintf(verb, v), false
			for _, trace := range traces(secret) {
				found = found || strings.Contains(shown, trace)
			}
			if !found {
				t.Errorf("%s of a %T isn't recognised: %s", verb, v, shown)
			}
		}
	}
}

// TestNothingSecretShows prints everything there is in every way.
func TestNothingSecretShows(t *testing.T) {
	w := newWorld(t)
	alice := w.keys["alice"]
	token := w.token(t, alice)
	link := w.link(t, alice, LinkRequest{Method: "GET", Bucket: "photos", Key: "a"})
	byLink, err := w.gate.Verify(Request{Link: link, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	forbidden := map[string][]string{
		"token":     {token[strings.LastIndexByte(token, '.')+1:][:20]},
		"signature": traces(link.signature.bytes[:]),
	}
	for what, secret := range w.secrets() {
		forbidden[what] = traces(secret)
	}
	byKey, byRoot, byToken := w.mustBearer(t, alice.String()), w.mustBearer(t, w.root.String()), w.mustBearer(t, token)
	state, snapshot := w.gate.state.Load(), w.gate.Snapshot()
	e := snapshot.keys["alice"]
	for _, v := range []any{
		alice, &alice, w.master, &w.master, snapshot, w.gate, state, *state, state.roots, *state.roots[0], e.key, e.user, e.is, *e.is,
		byKey, &byKey, byRoot, byToken, byLink, *byRoot.is, byLink.is.link, link, *link, &link, w.rows, &w.rows, snapshot.keys,
		Request{Authorization: "Bearer " + alice.String(), Link: link}, &Request{Authorization: "Bearer " + token, Door: "http"},
		struct{ inner any }{alice}, struct {
			c Credential
			m Master
			s *Snapshot
			g *Gate
			p Principal
			r *rootKey
		}{alice, w.master, snapshot, w.gate, byRoot, state.roots[0]},
		struct{ l *Link }{link}, map[string]any{"k": alice, "m": w.master, "r": Request{Authorization: token}},
	} {
		for _, verb := range verbs {
			if s := fmt.Sprintf("%T", v); (verb == "%p" || verb == "%w") && (strings.HasSuffix(s, "iam.Request") || strings.HasPrefix(s, "map[")) {
				continue // a mistake that vet finds, and a header that is the door's
			}
			shows(t, forbidden, fmt.Sprintf("%T as %s", v, verb), fmt.Sprintf(verb, v))
		}
		for _, handler := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).Info("x", "value", v, slog.Group("g", "value", v))
			shows(t, forbidden, fmt.Sprintf("%T in a log", v), b.String())
		}
		if b, err := json.Marshal(v); err == nil {
			shows(t, forbidden, fmt.Sprintf("%T in JSON", v), string(b))
		}
		shows(t, forbidden, fmt.Sprintf("%T in an error", v), fmt.Errorf("it is %v: %w", v, errors.New("x")).Error())
	}
}

func shows(t *testing.T, forbidden map[string][]string, where, text string) {
	t.Helper()
	for what, all := range forbidden {
		for _, trace := range all {
			if strings.Contains(text, trace) {
				t.Errorf("%s shows the %s (%s): %.300s", where, what, trace, text)
				return
			}
		}
	}
}

// TestNothingSecretInErrors: what is refused isn't repeated.
func TestNothingSecretInErrors(t *testing.T) {
	w := newWorld(t)
	forbidden := map[string][]string{}
	for what, secret := range w.secrets() {
		forbidden[what] = traces(secret)
	}
	alice := w.keys["alice"].String()
	token := w.token(t, w.keys["alice"])
	signature := token[strings.LastIndexByte(token, '.')+1:]
	forbidden["token"] = []string{signature[4:24]}
	w.key("alice").Disabled = true
	w.publish(t)
	for _, h := range []string{alice, "Basic " + alice, "Bearer " + alice, "Bearer " + alice + "x", "Bearer x" + alice, "Bearer " + alice[3:],
		"Bearer " + strings.ToUpper(alice), "Bearer " + alice + alice, "Bearer " + token, "Bearer " + token + "x", "Bearer x" + token,
		"Bearer " + signature + "." + signature + "." + signature, "Bearer e30." + signature + "."} {
		_, err := w.gate.Verify(Request{Authorization: h, Now: w.now})
		if err == nil {
			t.Fatalf("%q got in", h)
		}
		for _, verb := range verbs {
			shows(t, forbidden, "an error as "+verb, fmt.Sprintf(verb, err))
		}
	}
}
