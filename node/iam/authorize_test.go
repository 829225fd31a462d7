package iam

import (
	"context"
	"errors"
	"testing"
)

func TestAuthorizeDefaultsToNo(t *testing.T) {
	all := []Action{BucketCreate, BucketRead, BucketList, BucketDelete, ObjectList, ObjectRead, ObjectWrite, ObjectDelete, ClusterRead, MetricsRead, APIRead}
	root := Principal{ID: RootID, Root: true}
	for _, a := range all {
		if err := Authorize(root, a, "photos", "2026/a.jpg"); err != nil {
			t.Errorf("root: %v", err)
		}
		for _, p := range []Principal{{}, {ID: "alice"}, {Root: true}, {ID: RootID}} {
			if err := Authorize(p, a, "photos", "a"); !errors.Is(err, ErrPermissionDenied) {
				t.Errorf("%+v may %s: %v", p, a, err)
			}
		}
	}
	for _, a := range []Action{"", "object", "object.read ", "OBJECT.READ", "object.fly"} {
		if err := Authorize(root, a, "", ""); !errors.Is(err, ErrPermissionDenied) {
			t.Errorf("root may %q: %v", a, err)
		}
	}
	for _, tc := range []struct{ bucket, key, want string }{
		{"", "", "permission denied: alice may not object.read"},
		{"b", "", `permission denied: alice may not object.read in bucket "b"`},
		{"b", "k\n", `permission denied: alice may not object.read of key "k\n" in bucket "b"`},
	} {
		if got := Authorize(Principal{ID: "alice"}, ObjectRead, tc.bucket, tc.key).Error(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func TestPrincipalInContext(t *testing.T) {
	if p, ok := FromContext(context.Background()); ok || p != (Principal{}) {
		t.Errorf("a principal from nowhere: %+v", p)
	}
	want := Principal{ID: "root", Root: true, Addr: "a", Door: "grpc"}
	if p, ok := FromContext(WithPrincipal(context.Background(), want)); !ok || p != want {
		t.Errorf("%+v, %t", p, ok)
	}
}
