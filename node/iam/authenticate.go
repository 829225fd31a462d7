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
	key   [sha256.Size]byte // of this process alone: what is kept can't be tried elsewhere
	roots atomic.Pointer[[][sha256.Size]byte]
}

// NewAuthenticator knows the root keys, as SetRoots does.
func NewAuthenticator(roots ...Credential) *Authenticator {
	a := &Authenticator{}
	rand.Read(a.key[:]) // never fails: it ends the program instead
	a.SetRoots(roots...)
	return a
}

// SetRoots changes the root keys: each of them gets in, and nothing else does. A
// keyed hash of them is all that is kept. The zero Credential, or one of another
// id than "root", is none.
func (a *Authenticator) SetRoots(roots ...Credential) {
	var hashes [][sha256.Size]byte
	for _, c := range roots {
		if !c.IsZero() && c.ID == RootID {
			hashes = append(hashes, a.hash(c))
		}
	}
	a.roots.Store(&hashes)
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
	given, same := a.hash(c), 0
	if roots := a.roots.Load(); roots != nil {
		for _, root := range *roots {
			same |= subtle.ConstantTimeCompare(given[:], root[:])
		}
	}
	if c.ID != RootID || same != 1 {
		return Principal{}, fmt.Errorf("%w: the key isn't valid here", ErrUnauthenticated)
	}
	return Principal{ID: c.ID, Root: true, Addr: addr, Door: door}, nil
}
