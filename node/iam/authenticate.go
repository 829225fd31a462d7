package iam

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// ErrUnauthenticated is what Authenticate's errors wrap.
var ErrUnauthenticated = errors.New("unauthenticated")

// maxAuthorizationBytes bounds the header before anything looks into it.
const maxAuthorizationBytes = 1024

// Authenticator tells who a caller is. It may be used from many goroutines at
// once.
type Authenticator struct {
	key  [sha256.Size]byte // of this process alone: what is kept can't be tried elsewhere
	root [sha256.Size]byte // the root secret under key
	none bool              // there is no root key: nobody gets in

	good atomic.Pointer[[sha256.Size]byte] // seen of the last authorization that was right
}

// NewAuthenticator knows the root key, of which it keeps a keyed hash only.
// With the zero Credential, or one of another id than "root", nobody gets in.
func NewAuthenticator(root Credential) *Authenticator {
	a := &Authenticator{none: root.IsZero() || root.ID != RootID}
	rand.Read(a.key[:]) // never fails: it ends the program instead
	if !a.none {
		a.root = a.hash(root)
	}
	return a
}

// hash is what is kept of a secret, and compared.
func (a *Authenticator) hash(c Credential) [sha256.Size]byte {
	h := hmac.New(sha256.New, a.key[:])
	h.Write(c.secret.bytes[:])
	return [sha256.Size]byte(h.Sum(nil))
}

// Authenticate turns the value of an authorization header, "Bearer gl_…",
// into a principal; the scheme may be in any case (RFC 9110, 11.1). addr is
// the caller's real remote address and door is "grpc" or "http": both are
// taken over as they are. Errors wrap ErrUnauthenticated, and tell a
// malformed key from one that isn't valid, but not why it isn't.
func (a *Authenticator) Authenticate(authorization, addr, door string) (Principal, error) {
	if authorization == "" {
		return Principal{}, fmt.Errorf("%w: no credential was given", ErrUnauthenticated)
	}
	if len(authorization) > maxAuthorizationBytes {
		return Principal{}, fmt.Errorf("%w: the authorization is over %d bytes long", ErrUnauthenticated, maxAuthorizationBytes)
	}
	shown := a.seen(authorization)
	if good := a.good.Load(); good != nil && subtle.ConstantTimeCompare(shown[:], good[:]) == 1 {
		return Principal{ID: RootID, Root: true, Addr: addr, Door: door}, nil
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, fmt.Errorf("%w: the authorization isn't of the form Bearer gl_…", ErrUnauthenticated)
	}
	c, err := ParseCredential(token)
	if err != nil {
		return Principal{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	// The hash is computed and compared whatever the id, so that the time
	// taken says nothing about it.
	given := a.hash(c)
	same := subtle.ConstantTimeCompare(given[:], a.root[:]) == 1
	if a.none || c.ID != RootID || !same {
		return Principal{}, fmt.Errorf("%w: the key isn't valid here", ErrUnauthenticated)
	}
	a.good.Store(&shown)
	return Principal{ID: c.ID, Root: true, Addr: addr, Door: door}, nil
}

// seen is what is kept of an authorization: a hash under key. It is never shown,
// so that it need not be an HMAC.
func (a *Authenticator) seen(authorization string) [sha256.Size]byte {
	var b [sha256.Size + maxAuthorizationBytes]byte
	return sha256.Sum256(append(append(b[:0], a.key[:]...), authorization...))
}
