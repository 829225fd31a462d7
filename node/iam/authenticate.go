package iam

import "errors"

// ErrUnauthenticated is what Authenticate's errors wrap.
var ErrUnauthenticated = errors.New("iam: unauthenticated")

// Authenticator tells who a caller is.
type Authenticator struct{}

// NewAuthenticator knows the root key. Only a keyed hash of it is kept.
func NewAuthenticator(root Credential) *Authenticator { return &Authenticator{} }

// Authenticate turns the value of an authorization header, "Bearer gl_…",
// into a principal. addr and door are the principal's.
func (a *Authenticator) Authenticate(authorization, addr, door string) (Principal, error) {
	return Principal{}, ErrUnauthenticated
}
