package iam

import (
	"context"
	"errors"
	"fmt"
)

// ErrPermissionDenied is what Authorize's errors wrap.
var ErrPermissionDenied = errors.New("permission denied")

// Principal is an authenticated caller, made once, at the door.
type Principal struct {
	ID   string
	Root bool   // may do everything
	Addr string // the real remote address, host:port
	Door string // "grpc" or "http"
}

// Action is one thing that can be permitted.
type Action string

// The actions. A copy is an ObjectRead of one key and an ObjectWrite of
// another; a move is an ObjectRead, ObjectWrite and ObjectDelete of the one and an
// ObjectWrite of the other.
const (
	BucketCreate Action = "bucket.create"
	BucketRead   Action = "bucket.read"
	BucketList   Action = "bucket.list" // the names of all buckets
	BucketDelete Action = "bucket.delete"
	ObjectList   Action = "object.list"
	ObjectRead   Action = "object.read"
	ObjectWrite  Action = "object.write"
	ObjectDelete Action = "object.delete"
	ClusterRead  Action = "cluster.read"
	MetricsRead  Action = "metrics.read"
	APIRead      Action = "api.read" // descriptions of the API: reflection, OpenAPI
)

// known reports whether a is one of the actions above. A switch, so that it
// can't be changed.
func (a Action) known() bool {
	switch a {
	case BucketCreate, BucketRead, BucketList, BucketDelete,
		ObjectList, ObjectRead, ObjectWrite, ObjectDelete,
		ClusterRead, MetricsRead, APIRead:
		return true
	}
	return false
}

// Authorize decides whether p may do a, on the bucket and the key where the
// action has them, "" where it hasn't. nil means yes; everything else wraps
// ErrPermissionDenied. It is a pure function, and its default is no.
func Authorize(p Principal, a Action, bucket, key string) error {
	if p.ID != "" && p.Root && a.known() {
		return nil
	}
	who := p.ID
	if who == "" {
		who = "an unknown caller"
	}
	switch {
	case bucket == "":
		return fmt.Errorf("%w: %s may not %s", ErrPermissionDenied, who, a)
	case key == "":
		return fmt.Errorf("%w: %s may not %s in bucket %q", ErrPermissionDenied, who, a, bucket)
	}
	return fmt.Errorf("%w: %s may not %s of key %q in bucket %q", ErrPermissionDenied, who, a, key, bucket)
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
