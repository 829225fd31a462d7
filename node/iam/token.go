package iam

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxTokenAge is how long a token may last. It is asked for when a token is
// made, and again when it is used.
const MaxTokenAge = 15 * time.Minute

const (
	// tokenLeeway is how far the clock of the node that made a token may be
	// ahead of that of the node it is shown to. There is none for its end.
	tokenLeeway = time.Minute

	tokenIssuer = "gridloom"
)

var errToken = fmt.Errorf("%w: the token isn't valid here", ErrUnauthenticated)

// tokenClaims are all that a token says, and all are needed but Grants. A claim
// that isn't known is refused: it might narrow the token.
type tokenClaims struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"` // the deployment
	Subject  string   `json:"sub"` // the user
	ID       string   `json:"jti"`
	IssuedAt *int64   `json:"iat"` // Unix seconds
	Expires  *int64   `json:"exp"`
	Grants   []string `json:"grants,omitempty"` // what the token is narrowed to
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *tokenClaims) UnmarshalJSON(b []byte) error {
	type plain tokenClaims
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(c))
}

func numeric(seconds *int64) (*jwt.NumericDate, error) {
	if seconds == nil {
		return nil, nil
	}
	return jwt.NewNumericDate(time.Unix(*seconds, 0)), nil
}

// These implement jwt.Claims.
func (c *tokenClaims) GetExpirationTime() (*jwt.NumericDate, error) { return numeric(c.Expires) }
func (c *tokenClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return numeric(c.IssuedAt) }
func (c *tokenClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c *tokenClaims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *tokenClaims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *tokenClaims) GetAudience() (jwt.ClaimStrings, error) {
	return jwt.ClaimStrings{c.Audience}, nil
}

// IssueToken makes a token for p, which came with an access key, for as long as
// ttl, 0 being MaxTokenAge. With grants it may do only what they allow too. A
// token ends with its key at the latest, and with its user. Errors are a
// *FieldError about "ttl" or the grants, or wrap ErrPermissionDenied or
// ErrNotReady.
func (g *Gate) IssueToken(p Principal, grants []Grant, ttl time.Duration, now time.Time) (token string, expires time.Time, err error) {
	if err := Authorize(p, IAMSelfToken, "", ""); err != nil {
		return "", time.Time{}, err
	}
	if ttl == 0 {
		ttl = MaxTokenAge
	}
	if ttl < time.Second || ttl > MaxTokenAge {
		return "", time.Time{}, invalid("ttl", "is %v; 1s to %v are allowed", ttl, MaxTokenAge)
	}
	if err := ValidateGrants(grants); err != nil {
		return "", time.Time{}, err
	}
	state := g.state.Load()
	if state.snapshot == nil || state.deployment == "" {
		return "", time.Time{}, ErrNotReady
	}
	var key *sealed
	switch {
	case p.is == nil:
		return "", time.Time{}, fmt.Errorf("%w: %s didn't come with a key", ErrPermissionDenied, p.Name())
	case p.is.root != nil:
		key = p.is.root.token // the one it came with, so that the token ends with it
	default:
		key = state.snapshot.token
	}
	now = now.Truncate(time.Second)
	expires = earlier(now.Add(ttl).Truncate(time.Second), p.ExpiresAt.Truncate(time.Second))
	issued, end := now.Unix(), expires.Unix()
	claims := &tokenClaims{Issuer: tokenIssuer, Audience: state.deployment, Subject: p.User,
		ID: rand.Text(), IssuedAt: &issued, Expires: &end}
	for _, grant := range grants {
		claims.Grants = append(claims.Grants, grant.String())
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	t.Header["kid"] = p.ID
	if token, err = t.SignedString(key.bytes[:]); err != nil {
		return "", time.Time{}, err
	}
	if len(token) > maxAuthorizationBytes-len("Bearer ") {
		return "", time.Time{}, invalid("grants", "make the token longer than %d bytes", maxAuthorizationBytes-len("Bearer "))
	}
	return token, expires, nil
}

// looksLikeToken tells a token from an access key.
func looksLikeToken(s string) bool {
	return strings.Count(s, ".") == 2 && !strings.HasPrefix(s, "gl_")
}

func (g *Gate) verifyToken(state *gateState, token string, now time.Time) (Principal, error) {
	for _, c := range []byte(token) { // what base64 would pass over
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return Principal{}, fmt.Errorf("%w: the token is malformed", ErrUnauthenticated)
		}
	}
	if state.deployment == "" {
		return Principal{}, ErrNotReady
	}
	claims, kid, root, err := g.parseToken(state, token, now)
	if err != nil {
		return Principal{}, err
	}
	narrowed, err := claims.check(now)
	if err != nil {
		return Principal{}, err
	}
	end := time.Unix(*claims.Expires, 0)
	if root != nil {
		if claims.Subject != RootID {
			return Principal{}, errToken
		}
		return Principal{ID: RootID, User: RootID, Root: narrowed == nil, Via: ViaToken, ExpiresAt: end,
			is: &identity{root: root, narrowed: narrowed}}, nil
	}
	s := state.snapshot
	e, ok := s.keys[kid]
	if !ok || e.key.User != claims.Subject {
		return Principal{}, errToken
	}
	if err := s.admit(e, now); err != nil {
		return Principal{}, err
	}
	e.used(now)
	p := e.principal(ViaToken)
	p.ExpiresAt = earlier(p.ExpiresAt, end)
	is := *e.is
	is.narrowed = narrowed
	p.is = &is
	return p, nil
}

// parseToken checks the token's form, signature, audience, issuer and end. root
// is the root key that signed it, nil if a user's did.
func (g *Gate) parseToken(state *gateState, token string, now time.Time) (claims *tokenClaims, kid string, root *rootKey, err error) {
	var why error // of the key function, whose errors are wrapped otherwise
	claims = new(tokenClaims)
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithAudience(state.deployment),
		jwt.WithIssuer(tokenIssuer),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now }),
	)
	t, err := parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		var typed bool
		kid, typed = t.Header["kid"].(string)
		if !typed || ValidateID(kid) != nil || t.Header["typ"] != "JWT" || len(t.Header) != 3 {
			return nil, errToken
		}
		if kid == RootID {
			keys := jwt.VerificationKeySet{}
			for _, r := range state.roots {
				keys.Keys = append(keys.Keys, r.token.bytes[:])
			}
			return keys, nil
		}
		s, err := g.current(state)
		if err != nil {
			why = err
			return nil, err
		}
		return s.token.bytes[:], nil
	})
	switch {
	case why != nil:
		return nil, "", nil, why
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, "", nil, fmt.Errorf("%w: the token is malformed", ErrUnauthenticated)
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, "", nil, fmt.Errorf("%w: the token has expired", ErrUnauthenticated)
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return nil, "", nil, fmt.Errorf("%w: the token is for another mesh", ErrUnauthenticated)
	case err != nil || !t.Valid:
		return nil, "", nil, errToken
	}
	if kid == RootID {
		root = state.signer(t)
		if root == nil {
			return nil, "", nil, errToken
		}
	}
	return claims, kid, root, nil
}

// signer is the root key that signed t.
func (s *gateState) signer(t *jwt.Token) *rootKey {
	text := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	for _, r := range s.roots {
		if t.Method.Verify(text, t.Signature, r.token.bytes[:]) == nil {
			return r
		}
	}
	return nil
}

// check is about what the parser leaves: that nothing is missing, and how long
// the token is for. narrowed is nil without grants.
func (c *tokenClaims) check(now time.Time) (narrowed []Grant, err error) {
	switch {
	case c.Subject == "", c.ID == "", c.IssuedAt == nil, c.Expires == nil:
		return nil, errToken
	case *c.IssuedAt <= 0, *c.Expires <= *c.IssuedAt:
		return nil, errToken
	case *c.IssuedAt > now.Add(tokenLeeway).Unix():
		return nil, fmt.Errorf("%w: the token was made in the future; the nodes' clocks differ", ErrUnauthenticated)
	case *c.Expires-*c.IssuedAt > int64(MaxTokenAge/time.Second):
		return nil, fmt.Errorf("%w: the token lasts longer than %v", ErrUnauthenticated, MaxTokenAge)
	case c.Grants == nil:
		return nil, nil
	case len(c.Grants) == 0 || len(c.Grants) > MaxGrants:
		return nil, errToken
	}
	for _, text := range c.Grants {
		g, err := ParseGrant(text)
		if err != nil {
			return nil, errToken
		}
		narrowed = append(narrowed, g)
	}
	return narrowed, nil
}
