package iam

import (
	"context"
	"errors"
	"testing"
)

func TestAuthorizeDefaultsToNo(t *testing.T) {
	root := Principal{ID: RootID, Root: true}
	for _, a := range allActions {
		if err := Authorize(root, a, "photos", "2026/a.jpg"); err != nil {
			t.Errorf("root: %v", err)
		}
		for _, p := range []Principal{{}, {ID: "alice"}, {Root: true}, {ID: RootID}, {ID: "alice", User: "alice", Via: ViaKey}} {
			if err := Authorize(p, a, "photos", "a"); !errors.Is(err, ErrPermissionDenied) {
				t.Errorf("%+v may %s: %v", p, a, err)
			}
		}
	}
	for _, a := range []Action{ObjectRead, BucketList, ClusterRead, IAMWrite} {
		if Allowed(holder(), a, "photos", "a") {
			t.Errorf("with no grants at all: %s", a)
		}
	}
	admin := holder(grants("admin:*"))
	for _, a := range []Action{"", "object", "object.read ", "OBJECT.READ", "object.fly", "*"} {
		for _, p := range []Principal{root, admin} {
			if err := Authorize(p, a, "", ""); !errors.Is(err, ErrPermissionDenied) {
				t.Errorf("%s may %q: %v", p.Name(), a, err)
			}
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
