package api

import (
	"slices"
	"strings"

	"github.com/gridloom/gridloom/node/iam"
)

// effective is one list of grants for what several lists allow together: what
// every one of them allows. It is for showing, and for finding buckets; what is
// permitted is iam.Authorize's to say.
func effective(lists [][]iam.Grant) []iam.Grant {
	if len(lists) == 0 {
		return nil
	}
	all := without(lists[0])
	for _, list := range lists[1:] {
		var both []iam.Grant
		for _, a := range all {
			for _, b := range list {
				if g, ok := overlap(a, b); ok {
					both = append(both, g)
				}
			}
		}
		all = without(both)
	}
	return all
}

// overlap is what two grants both allow.
func overlap(a, b iam.Grant) (iam.Grant, bool) {
	switch { // an admin over everything has the figures, too, and nobody else
	case a == b, everything(b):
		return a, true
	case everything(a):
		return b, true
	case a.Role == iam.Metrics || b.Role == iam.Metrics:
		return iam.Grant{}, false
	}
	g := iam.Grant{Role: a.Role, Bucket: a.Bucket}
	if rank(b.Role) < rank(a.Role) {
		g.Role = b.Role
	}
	if a.Bucket == iam.AllBuckets {
		g.Bucket = b.Bucket
	} else if b.Bucket != iam.AllBuckets && a.Bucket != b.Bucket {
		return iam.Grant{}, false
	}
	switch {
	case strings.HasPrefix(a.Prefix, b.Prefix):
		g.Prefix = a.Prefix
	case strings.HasPrefix(b.Prefix, a.Prefix):
		g.Prefix = b.Prefix
	default:
		// Neither is within the other; but both describe the bucket. That can't
		// be said by a grant, and there is nothing else that they share.
		return iam.Grant{}, false
	}
	return g, true
}

func everything(g iam.Grant) bool { return g.Role == iam.Admin && g.Bucket == iam.AllBuckets }

// rank orders the roles over data: each allows what those before it do.
func rank(r iam.Role) int {
	return slices.Index([]iam.Role{iam.ReadOnly, iam.ReadWrite, iam.Admin}, r)
}

// without leaves out what another grant allows anyway, and keeps the order.
func without(grants []iam.Grant) []iam.Grant {
	var kept []iam.Grant
	for i, g := range grants {
		needless := func(j int) bool {
			both, ok := overlap(g, grants[j])
			return ok && both == g && (j < i || grants[j] != g)
		}
		covered := false
		for j := range grants {
			if j != i && needless(j) {
				covered = true
				break
			}
		}
		if !covered {
			kept = append(kept, g)
		}
	}
	return kept
}

// visibleBuckets are the names that a caller's grants let it see, in their
// order; all: they let it see every bucket.
func visibleBuckets(p iam.Principal) (names []string, all bool) {
	if iam.Allowed(p, iam.BucketRead, iam.AllBuckets, "") { // which no named grant covers
		return nil, true
	}
	for _, list := range p.Grants() {
		for _, g := range list {
			if g.Bucket != iam.AllBuckets && iam.Allowed(p, iam.BucketRead, g.Bucket, "") {
				names = append(names, g.Bucket)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}
