package iam

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A key that was proven is not proven for longer than nothing has changed, nor
// for another that is like it, nor once its time is up or the copy of users and
// keys is too old.
func TestProofsEnd(t *testing.T) {
	age := time.Duration(0)
	root, other, alice := Generate(RootID), Generate(RootID), Generate("alice-1")
	master := NewMaster()
	rows := func(disabled bool, expires int64) *Snapshot {
		s, err := NewSnapshot(&Rows{
			Users: []User{{Name: "alice"}},
			Keys:  []Key{{ID: alice.ID, User: "alice", Sealed: master.SealKey(alice, "alice"), Disabled: disabled, Expires: expires}},
		}, master)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	g := NewGate(func() time.Duration { return age })
	now := time.Now()
	verify := func(c Credential) error {
		var err error
		for i := range 3 { // by a proof, from the second on
			p, again := g.Verify(Request{Authorization: "Bearer " + c.String(), Now: now})
			if i > 0 && errors.Is(again, ErrUnauthenticated) != errors.Is(err, ErrUnauthenticated) {
				t.Fatalf("first %v, then %v", err, again)
			}
			if err = again; err == nil && p.ID != c.ID {
				t.Fatalf("%s is %s", c.ID, p.ID)
			}
		}
		return err
	}
	step := func(what string, c Credential, want error) {
		t.Helper()
		if err := verify(c); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	set := func(keys ...Credential) {
		t.Helper()
		if err := g.SetRoots(keys...); err != nil {
			t.Fatal(err)
		}
	}
	set(root)
	g.SetDeployment("d")
	g.SetSnapshot(now, rows(false, 0))
	step("the root key", root, nil)
	step("another root key", other, ErrUnauthenticated)
	set(other)
	step("the root key that was replaced", root, ErrUnauthenticated)
	step("its successor", other, nil)

	step("a key", alice, nil)
	step("another secret", Generate(alice.ID), ErrUnauthenticated)
	age = MaxAge + 1
	step("a key, by an old copy", alice, ErrStale)
	step("the root key, by an old copy", other, nil)
	age = 0
	g.SetSnapshot(now, rows(true, 0))
	step("a disabled key", alice, ErrUnauthenticated)
	g.SetSnapshot(now, rows(false, now.Add(time.Hour).UnixNano()))
	step("a key with an end", alice, nil)
	now = now.Add(2 * time.Hour)
	step("a key that has ended", alice, ErrUnauthenticated)
	g.SetSnapshot(now, nil)
	step("a key that nobody can know", alice, ErrNotReady)
}

// TestProofsAreBounded: no more are kept than there is room for.
func TestProofsAreBounded(t *testing.T) {
	var p proofs
	for i := range maxProofs + 100 {
		by, ok := proofOf(fmt.Sprint(i))
		if !ok {
			t.Fatal("too long")
		}
		p.add(&by, proof{root: new(rootKey)})
		if _, ok := p.get(&by); !ok || len(p.made) > maxProofs {
			t.Fatalf("%d are kept, the latest: %v", len(p.made), ok)
		}
	}
	if _, ok := proofOf(string(make([]byte, maxCredentialBytes+1))); ok {
		t.Error("what is no access key has a proof")
	}
}
