package iam

import (
	"context"
	"errors"
)

// ErrPermissionDenied is what Authorize's errors wrap.
var ErrPermissionDenied = errors.New("iam: permission denied")

// Principal is an authenticated caller: made once, at the door.
type Principal struct {
	ID   string
	Root bool   // may do everything
	Addr string // the real remote address, host:port
	Door string // "grpc" or "http"
}

// Action is one thing that can be permitted.
type Action string

// The actions.
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

// Authorize decides whether p may do a, on the bucket and key where the
// action has them. The default is no: nil means yes, anything else is an
// ErrPermissionDenied. It is a pure function.
func Authorize(p Principal, a Action, bucket, key string) error { return ErrPermissionDenied }

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
