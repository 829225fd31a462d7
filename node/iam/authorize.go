package iam

import (
	"errors"
	"fmt"
)

// ErrPermissionDenied is what Authorize's errors wrap.
var ErrPermissionDenied = errors.New("permission denied")

// Action is one thing that can be permitted.
type Action string

// The actions. A copy is an ObjectRead of one key and an ObjectWrite of
// another; a move is an ObjectRead, ObjectWrite and ObjectDelete of the one and an
// ObjectWrite of the other.
const (
	BucketCreate Action = "bucket.create"
	BucketRead   Action = "bucket.read"
	BucketList   Action = "bucket.list" // the names of those buckets that BucketRead is allowed of
	BucketDelete Action = "bucket.delete"
	BucketQuota  Action = "bucket.quota" // how much may be in it
	ObjectList   Action = "object.list"  // its key is the prefix that is asked for
	ObjectRead   Action = "object.read"
	ObjectWrite  Action = "object.write"
	ObjectDelete Action = "object.delete"
	ClusterRead  Action = "cluster.read"
	ClusterWrite Action = "cluster.write" // which nodes and drives there are, and what they do
	MetricsRead  Action = "metrics.read"
	APIRead      Action = "api.read" // descriptions of the API: reflection, OpenAPI

	IAMRead      Action = "iam.read"       // users and keys
	IAMWrite     Action = "iam.write"      // users and keys
	IAMSelf      Action = "iam.self"       // who the caller is and what it may do
	IAMSelfToken Action = "iam.self.token" // a token for the caller itself
	IAMSelfKeys  Action = "iam.self.keys"  // the caller's own keys, and service keys for it
)

// known reports whether a is one of the actions above. A switch, so that it
// can't be changed.
func (a Action) known() bool {
	switch a {
	case BucketCreate, BucketRead, BucketList, BucketDelete, BucketQuota,
		ObjectList, ObjectRead, ObjectWrite, ObjectDelete,
		ClusterRead, ClusterWrite, MetricsRead, APIRead,
		IAMRead, IAMWrite, IAMSelf, IAMSelfToken, IAMSelfKeys:
		return true
	}
	return false
}

// Authorize decides whether p may do a, on the bucket and the key where the
// action has them, "" where it hasn't. For ObjectList the key is the prefix
// that is asked for. nil means yes; everything else wraps ErrPermissionDenied.
// It is a pure function, and its default is no.
func Authorize(p Principal, a Action, bucket, key string) error {
	if Allowed(p, a, bucket, key) {
		return nil
	}
	who := p.Name()
	switch {
	case bucket == "":
		return fmt.Errorf("%w: %s may not %s", ErrPermissionDenied, who, a)
	case key == "":
		return fmt.Errorf("%w: %s may not %s in bucket %q", ErrPermissionDenied, who, a, bucket)
	}
	return fmt.Errorf("%w: %s may not %s of key %q in bucket %q", ErrPermissionDenied, who, a, key, bucket)
}

// Allowed is Authorize without an error: for lists, which leave out what their
// caller may not know of.
func Allowed(p Principal, a Action, bucket, key string) bool {
	if !a.known() {
		return false
	}
	if p.Root {
		return p.ID != "" && (a != IAMSelfToken || p.Via != ViaToken)
	}
	if p.is == nil {
		return false
	}
	if p.is.link != nil && !p.is.link.covers(a, bucket, key) {
		return false
	}
	switch a {
	case APIRead, IAMSelf:
		return true
	case IAMSelfToken:
		// Not for a token, as above: stolen, it would live for ever.
		return p.Via == ViaKey || p.Via == ViaRoot
	case IAMSelfKeys:
		// Not for what is lent: a key made with it would outlive it.
		return !p.Service && (p.Via == ViaKey || p.Via == ViaCertificate)
	}
	return p.is.allows(a, bucket, key)
}
