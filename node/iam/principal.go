package iam

import (
	"context"
	"time"
)

// The ways in, as Principal.Via has them.
const (
	ViaRoot        = "root" // a root key as bearer
	ViaKey         = "key"  // an access key as bearer
	ViaToken       = "token"
	ViaLink        = "link"
	ViaCertificate = "certificate"
)

// Principal is an authenticated caller, made once, at the door. It has nothing
// secret, and may be compared. The zero Principal may do nothing.
type Principal struct {
	ID      string // of the key; "" with a certificate
	User    string // whose key it is; RootID with the root key
	Root    bool   // may do everything; not so with links and narrowed tokens of the root key
	Service bool   // the key is a service key

	Via  string // ViaKey and so on
	Addr string // the real remote address, host:port
	Door string // as in Request

	// ExpiresAt is when the key, token or link ends: the zero Time is never. A
	// body that has begun may end later, an endless stream may not.
	ExpiresAt time.Time

	is *identity // nil: made by hand, may do nothing unless Root
}

// Name is what the caller is called in messages: its key, else its user.
func (p Principal) Name() string {
	switch {
	case p.ID != "":
		return p.ID
	case p.User != "":
		return p.User
	}
	return "an unknown caller"
}

// Account is what the caller's requests and uploads are counted by. What a key is
// lent out as, a link or a token, has an account of its own: whoever was given it
// uses up nothing of its owner's.
func (p Principal) Account() string { return p.Via + " " + p.Name() }

// Grants are what the caller has, in one list for each thing that narrows it:
// what it may do, every list allows. There is none for Root.
func (p Principal) Grants() [][]Grant {
	if p.is == nil || p.Root {
		return nil
	}
	lists := make([][]Grant, 0, len(p.is.layers)+1)
	for _, layer := range p.is.layers {
		lists = append(lists, append([]Grant(nil), layer...))
	}
	if p.is.narrowed != nil {
		lists = append(lists, append([]Grant(nil), p.is.narrowed...))
	}
	return lists
}

// ContentDigest is the SHA-256 that the body of a PUT must have, where a link
// says so. Nothing else may become visible.
func (p Principal) ContentDigest() (sum [32]byte, ok bool) {
	if p.is == nil || p.is.link == nil || p.is.link.digest == nil {
		return sum, false
	}
	return *p.is.link.digest, true
}

// identity is why a principal was let in, and what it may do. It isn't changed
// once it is made, and may be shared by many requests.
type identity struct {
	root        *rootKey // of a root key
	entry       *entry   // of an access key
	user        *User    // of a certificate
	certificate string   // the name in it

	layers   [][]Grant  // all of them have to allow it; of the root key there is none
	narrowed []Grant    // nil, or a further layer: a token's
	link     *linkScope // nil, or all that it is for
}

func (i *identity) allows(a Action, bucket, key string) bool {
	if len(i.layers) == 0 && i.root == nil {
		return false
	}
	for _, layer := range i.layers {
		if !anyAllows(layer, a, bucket, key) {
			return false
		}
	}
	return i.narrowed == nil || anyAllows(i.narrowed, a, bucket, key)
}

func anyAllows(grants []Grant, a Action, bucket, key string) bool {
	for i := range grants {
		if grants[i].allows(a, bucket, key) {
			return true
		}
	}
	return false
}

type principalKey struct{}

// WithPrincipal gives a context that carries p.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext gives the principal of ctx, and whether there is one.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}
