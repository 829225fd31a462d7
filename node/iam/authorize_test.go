package iam

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestAuthenticate(t *testing.T) {
	root, other := Generate(RootID), Generate(RootID)
	user := Generate("alice")
	a := NewAuthenticator(root)
	for _, h := range []string{"Bearer " + root.String(), "bearer " + root.String(), "BEARER  " + root.String() + " "} {
		p, err := a.Authenticate(h, "10.0.0.7:41000", "http")
		if err != nil || p != (Principal{ID: "root", Root: true, Addr: "10.0.0.7:41000", Door: "http"}) {
			t.Errorf("%+v, %v", p, err)
		}
	}
	for _, tc := range []struct{ header, want string }{
		{"", "no credential"},
		{root.String(), "of the form Bearer"},
		{"Basic " + root.String(), "of the form Bearer"},
		{"Bearer", "empty"},
		{"Bearer " + root.String() + "x", "check"},
		{"Bearer " + strings.Repeat("x", 2000), "over 1024 bytes"},
		{"Bearer " + other.String(), "isn't valid here"},
		{"Bearer " + user.String(), "isn't valid here"},
	} {
		p, err := a.Authenticate(tc.header, "a", "grpc")
		if !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), tc.want) || p != (Principal{}) {
			t.Errorf("%.30q: %+v, %v; want %q", tc.header, p, err, tc.want)
		}
	}
}

// The same secret under another id is another key, and where there is no
// root key nobody gets in.
func TestAuthenticateWithoutRoot(t *testing.T) {
	user := Generate("alice")
	asRoot := Credential{ID: RootID, secret: user.secret}
	asUser := Credential{ID: "alice", secret: user.secret}
	for name, tc := range map[string]struct {
		known Credential
		given Credential
	}{
		"none known":       {Credential{}, asRoot},
		"a user as root":   {user, asRoot},
		"a user as itself": {user, user},
		"root as a user":   {asRoot, asUser},
	} {
		if p, err := NewAuthenticator(tc.known).Authenticate("Bearer "+tc.given.String(), "a", "grpc"); err == nil {
			t.Errorf("%s: got in as %+v", name, p)
		}
	}
	if p, err := new(Authenticator).Authenticate("Bearer "+asRoot.String(), "a", "grpc"); err == nil {
		t.Errorf("the zero Authenticator let in %+v", p)
	}
}

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
