package iam

import (
	"errors"
	"testing"
)

// That an authorization was right is remembered for that very one, and for the
// authenticator that found it so.
func TestAuthenticateAgain(t *testing.T) {
	root, other := Generate(RootID), Generate(RootID)
	a := NewAuthenticator(root)
	good := "Bearer " + root.String()
	for range 3 {
		p, err := a.Authenticate(good, "addr", "grpc")
		if err != nil || p != (Principal{ID: RootID, Root: true, Addr: "addr", Door: "grpc"}) {
			t.Fatalf("%+v, %v", p, err)
		}
		for _, bad := range []string{"", "Bearer " + other.String(), good + "x", good[:len(good)-1], "Basic" + good[6:], "Bearer "} {
			if p, err := a.Authenticate(bad, "addr", "grpc"); !errors.Is(err, ErrUnauthenticated) || p != (Principal{}) {
				t.Errorf("after a good one %q gives %+v, %v", bad, p, err)
			}
		}
	}
	if _, err := NewAuthenticator(other).Authenticate(good, "addr", "grpc"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("another's key: %v", err)
	}
}
