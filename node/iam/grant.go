package iam

import "strings"

// Grants are written as
//
//	metrics               the mesh's figures
//	readonly:*            every bucket
//	admin:photos          one bucket
//	readwrite:photos/2026 the keys of one bucket that begin with "2026"
//
// A prefix is of the key's text, not of its segments: "2026" covers
// "2026-old/a", and "2026/" doesn't.

// ParseGrant reads a grant's text. A slash alone after the bucket is the whole
// bucket. The error is a *FieldError.
func ParseGrant(s string) (Grant, error) {
	role, over, named := strings.Cut(s, ":")
	bucket, prefix, _ := strings.Cut(over, "/")
	g := Grant{Role: Role(role), Bucket: bucket, Prefix: prefix}
	if named && g.Role == Metrics {
		return Grant{}, invalid("bucket", "is given; %q is over the whole mesh", Metrics)
	}
	if err := g.Validate(); err != nil {
		return Grant{}, err
	}
	return g, nil
}

// String is the grant's text, as ParseGrant reads it.
func (g Grant) String() string {
	s := string(g.Role)
	if g.Bucket != "" || g.Prefix != "" {
		s += ":" + g.Bucket
	}
	if g.Prefix != "" {
		s += "/" + g.Prefix
	}
	return s
}

// Validate checks a grant. The error is a *FieldError about "role", "bucket"
// or "prefix".
func (g Grant) Validate() error {
	switch g.Role {
	case Metrics:
		switch {
		case g.Bucket != "":
			return invalid("bucket", "is given; %q is over the whole mesh", Metrics)
		case g.Prefix != "":
			return invalid("prefix", "is given; %q is over the whole mesh", Metrics)
		}
		return nil
	case ReadOnly, ReadWrite, Admin:
	case "":
		return invalid("role", "is empty; there are readonly, readwrite, admin and metrics")
	default:
		return invalid("role", "is none of readonly, readwrite, admin and metrics")
	}
	if err := validateBucket(g.Bucket); err != nil {
		return err
	}
	switch {
	case g.Prefix == "":
		return nil
	case g.Bucket == AllBuckets:
		return invalid("prefix", "needs a named bucket")
	case g.Prefix[0] == '/':
		return invalid("prefix", "begins with a slash, and no key does")
	case len(g.Prefix) > maxPrefixBytes:
		return invalid("prefix", "is %d bytes long; %d are allowed", len(g.Prefix), maxPrefixBytes)
	}
	return validateRunes("prefix", g.Prefix)
}

// validateBucket takes a bucket's name, whether there is such a bucket or not,
// and AllBuckets.
func validateBucket(name string) error {
	switch {
	case name == AllBuckets:
		return nil
	case name == "":
		return invalid("bucket", `is empty; "*" is all of them`)
	case len(name) < 3 || len(name) > 63:
		return invalid("bucket", "is %d bytes long; names have 3 to 63", len(name))
	case name[0] == '-' || name[len(name)-1] == '-':
		return invalid("bucket", "begins or ends with -")
	}
	for i, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return invalid("bucket", "has something else than a-z, 0-9 and - at byte %d", i)
		}
	}
	return nil
}

// allows says whether the grant is enough for a, which is known. key is the
// object's key or the prefix of a list, and what lies beside the grant's prefix
// is not shown by a list within it.
func (g *Grant) allows(a Action, bucket, key string) bool {
	switch a {
	case MetricsRead, ClusterRead:
		return g.Role == Metrics || g.overAll()
	case ClusterWrite, IAMRead, IAMWrite:
		return g.overAll()
	case BucketList: // its answer has only what BucketRead allows
		return g.reads()
	}
	if bucket == "" || g.Bucket != bucket && g.Bucket != AllBuckets {
		return false
	}
	switch a {
	case BucketRead:
		return g.reads()
	case BucketCreate, BucketDelete, BucketQuota:
		return g.Role == Admin && g.Prefix == ""
	case ObjectList, ObjectRead:
		return g.reads() && strings.HasPrefix(key, g.Prefix)
	case ObjectWrite, ObjectDelete:
		return (g.Role == ReadWrite || g.Role == Admin) && strings.HasPrefix(key, g.Prefix)
	}
	return false
}

// overAll: the role of who may do everything.
func (g *Grant) overAll() bool {
	return g.Role == Admin && g.Bucket == AllBuckets && g.Prefix == ""
}

func (g *Grant) reads() bool {
	return g.Role == ReadOnly || g.Role == ReadWrite || g.Role == Admin
}
