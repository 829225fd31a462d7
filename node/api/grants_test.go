package api

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/iam"
)

// TestEffective: what is shown as allowed is what is allowed.
func TestEffective(t *testing.T) {
	buckets, prefixes := []string{"aaa", "bbb", "*"}, []string{"", "a", "a/", "a/b", "b"}
	actions := []iam.Action{
		iam.BucketCreate, iam.BucketDelete, iam.BucketQuota, iam.ObjectList, iam.ObjectRead, iam.ObjectWrite, iam.ObjectDelete,
		iam.ClusterRead, iam.ClusterWrite, iam.MetricsRead, iam.IAMRead, iam.IAMWrite,
	}
	k := newKeeper(t, iam.Generate(iam.RootID))
	serial := 0
	rapid.Check(t, func(r *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) iam.Grant {
			g := iam.Grant{Role: rapid.SampledFrom([]iam.Role{iam.ReadOnly, iam.ReadWrite, iam.Admin, iam.Metrics}).Draw(r, "role")}
			if g.Role != iam.Metrics {
				g.Bucket = rapid.SampledFrom(buckets).Draw(r, "bucket")
			}
			if g.Bucket != "" && g.Bucket != iam.AllBuckets {
				g.Prefix = rapid.SampledFrom(prefixes).Draw(r, "prefix")
			}
			return g
		}), 1, 4)
		serial++
		name := fmt.Sprintf("u%d", serial)
		must(k.CreateUser(t.Context(), iam.User{Name: name, Grants: list.Draw(r, "user's")}))
		_, c, err := k.CreateKey(t.Context(), iam.Key{User: name, Service: true, Grants: list.Draw(r, "key's")})
		if err != nil {
			r.Fatal(err)
		}
		p := k.principal(c.String())
		shown := effective(p.Grants())
		must(k.CreateUser(t.Context(), iam.User{Name: name + "s", Grants: shown}))
		_, c, err = k.CreateKey(t.Context(), iam.Key{User: name + "s"})
		if err != nil {
			r.Fatal(err)
		}
		alike := k.principal(c.String())
		for _, a := range actions {
			for _, bucket := range []string{"aaa", "bbb", "ccc"} {
				for _, key := range []string{"", "a", "ax", "a/", "a/x", "a/bx", "b", "c"} {
					if got, want := iam.Allowed(alike, a, bucket, key), iam.Allowed(p, a, bucket, key); got != want {
						r.Fatalf("%s of %s/%s is allowed: %v; shown as %v it is %v", a, bucket, key, want, shown, got)
					}
				}
			}
		}
	})
}
