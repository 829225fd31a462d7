package iam

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Request is what a door knows of a caller, before it reads a body.
type Request struct {
	// Authorization is the header's value, "Bearer …" with an access key or a
	// token. "": there was none.
	Authorization string
	// Link is what ParseLink made of a request for bytes; nil: it has no
	// parameters of a link.
	Link *Link
	// Certificate are the names in the client's certificate, once TLS has
	// verified it.
	Certificate []string

	Addr string // the real remote address, host:port
	Door string // "grpc", "http" and so on; taken over as it is
	Now  time.Time
}

// redacted is what may be shown of a request.
func (r Request) redacted() string {
	credential := ""
	if r.Authorization != "" {
		credential = ", an authorization"
	}
	if r.Link != nil {
		credential += fmt.Sprintf(", a %v", r.Link)
	}
	return fmt.Sprintf("request(%q from %q%s)", r.Door, r.Addr, credential)
}

// Format implements fmt.Formatter: no verb shows a credential.
func (r Request) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.redacted()) }

// LogValue implements slog.LogValuer, without a credential.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.redacted()) }

// MarshalText implements encoding.TextMarshaler, and so JSON and YAML, without
// a credential.
func (r Request) MarshalText() ([]byte, error) { return []byte(r.redacted()), nil }

// Verify tells who the caller is. There is one way in for a request: a link
// goes with no Authorization, and that goes before a certificate. Errors wrap
// ErrUnauthenticated, ErrNotReady or ErrStale. Those for a caller that has not
// proven its secret tell a malformed credential from one that isn't valid, but
// not why it isn't; the time taken doesn't tell either.
func (g *Gate) Verify(r Request) (Principal, error) {
	var (
		p   Principal
		err error
	)
	switch state := g.state.Load(); {
	case r.Link != nil && r.Authorization != "":
		err = fmt.Errorf("%w: the request has both a link's parameters and an authorization; one of them is meant", ErrUnauthenticated)
	case r.Link != nil:
		p, err = g.verifyLink(state, r.Link, r.Now)
	case r.Authorization != "":
		p, err = g.verifyBearer(state, r.Authorization, r.Now)
	case len(r.Certificate) > 0:
		p, err = g.verifyCertificate(state, r.Certificate)
	default:
		err = fmt.Errorf("%w: no credential was given", ErrUnauthenticated)
	}
	if err != nil {
		return Principal{}, err
	}
	p.Addr, p.Door = r.Addr, r.Door
	return p, nil
}

func (g *Gate) verifyBearer(state *gateState, authorization string, now time.Time) (Principal, error) {
	if len(authorization) > maxAuthorizationBytes {
		return Principal{}, fmt.Errorf("%w: the authorization is over %d bytes long", ErrUnauthenticated, maxAuthorizationBytes)
	}
	scheme, bearer, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, 11.1
		return Principal{}, fmt.Errorf("%w: the authorization isn't of the form Bearer gl_… or Bearer <token>", ErrUnauthenticated)
	}
	bearer = strings.Trim(bearer, " ")
	if looksLikeToken(bearer) {
		return g.verifyToken(state, bearer, now)
	}
	by, short := proofOf(bearer)
	if short {
		if made, ok := state.proofs.get(&by); ok {
			return g.admit(state, made, now)
		}
	}
	c, err := ParseCredential(bearer)
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	made, err := g.verifyKey(state, c)
	if err != nil {
		return Principal{}, err
	}
	if short {
		state.proofs.add(&by, made)
	}
	return g.admit(state, made, now)
}

// errKey is for a secret that wasn't proven.
var errKey = fmt.Errorf("%w: the key isn't valid here", ErrUnauthenticated)

// verifyKey finds whose key it is, if its secret is right.
func (g *Gate) verifyKey(state *gateState, c Credential) (proof, error) {
	given := linkKey(c)
	if c.ID == RootID {
		root := state.root(given[:])
		if root == nil {
			return proof{}, errKey
		}
		return proof{root: root}, nil
	}
	s, err := g.current(state)
	if err != nil {
		return proof{}, err
	}
	e, derived, ok := s.find(c.ID)
	if same := subtle.ConstantTimeCompare(given[:], derived[:]) == 1; !ok || !same {
		return proof{}, errKey
	}
	return proof{entry: e}, nil
}

func (g *Gate) verifyCertificate(state *gateState, names []string) (Principal, error) {
	s, err := g.current(state)
	if err != nil {
		return Principal{}, err
	}
	u, name, err := s.certified(names)
	if err != nil {
		return Principal{}, err
	}
	return Principal{User: u.Name, Via: ViaCertificate,
		is: &identity{user: u, certificate: name, layers: [][]Grant{u.Grants}}}, nil
}

// current is the snapshot, if it may be relied on.
func (g *Gate) current(state *gateState) (*Snapshot, error) {
	if state.snapshot == nil {
		return nil, ErrNotReady
	}
	if g.stale() {
		return nil, ErrStale
	}
	return state.snapshot, nil
}

func (g *Gate) stale() bool { return g.fresh == nil || g.fresh() > MaxAge }

// errLink is for a signature that doesn't fit.
var errLink = fmt.Errorf("%w: the link isn't valid here", ErrUnauthenticated)

func (g *Gate) verifyLink(state *gateState, l *Link, now time.Time) (Principal, error) {
	if err := l.checkTime(now); err != nil {
		return Principal{}, err
	}
	if state.deployment == "" {
		return Principal{}, ErrNotReady
	}
	canonical := l.canonical(state.deployment)
	scope := &linkScope{method: l.method, bucket: l.bucket, key: l.key, digest: l.digest, answer: l.answer}
	if l.keyID == RootID {
		var signer *rootKey
		for _, r := range state.roots {
			if l.signedWith(r.link.bytes[:], canonical) {
				signer = r
			}
		}
		if signer == nil {
			return Principal{}, errLink
		}
		return Principal{ID: RootID, User: RootID, Via: ViaLink, ExpiresAt: l.expires,
			is: &identity{root: signer, link: scope}}, nil
	}
	s, err := g.current(state)
	if err != nil {
		return Principal{}, err
	}
	e, derived, ok := s.find(l.keyID)
	if signed := l.signedWith(derived[:], canonical); !ok || !signed {
		return Principal{}, errLink
	}
	if err := s.admit(e, now); err != nil {
		return Principal{}, err
	}
	e.used(now)
	p := e.principal(ViaLink)
	p.ExpiresAt = earlier(p.ExpiresAt, l.expires)
	is := *e.is
	is.link = scope
	p.is = &is
	return p, nil
}

// earlier is the first of two ends, of which the zero Time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
