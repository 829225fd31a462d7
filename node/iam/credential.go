package iam

import "errors"

// Credential is an access key: who, and the secret that proves it.
type Credential struct {
	ID     string // [a-z0-9-], 1 to 64 bytes
	Secret string // [A-Z2-7], base32 of 32 random bytes
}

// Generate makes a credential for id with a secret of 256 random bits. It
// panics on an id that a credential can't hold.
func Generate(id string) Credential { return Credential{ID: id} }

// String is the credential as its user keeps it: gl_<id>_<secret>_<check>.
func (c Credential) String() string { return "" }

// ParseCredential reads what String wrote. Its errors say which part is
// wrong and never repeat the secret.
func ParseCredential(s string) (Credential, error) {
	return Credential{}, errors.New("iam: being built")
}

// NewMeshSecret makes the secret that the nodes of a mesh share: 32 random
// bytes in base64.
func NewMeshSecret() string { return "" }

// ParseMeshSecret reads it.
func ParseMeshSecret(s string) ([]byte, error) { return nil, errors.New("iam: being built") }
