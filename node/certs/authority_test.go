package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"
)

// TestAuthorityIsTheSameEverywhere pins what follows from a secret: nodes of
// different versions must come to the same.
func TestAuthorityIsTheSameEverywhere(t *testing.T) {
	a, b := newAuthority(t, 1), newAuthority(t, 1)
	if !bytes.Equal(a.cert.Raw, b.cert.Raw) {
		t.Error("one secret gives two certificates")
	}
	sum := sha256.Sum256(a.cert.Raw)
	if got, want := hex.EncodeToString(sum[:]), "132107b16c1a89bf9a6438badda4e29ce92b1665ad84629fe9f70ee90896ec19"; got != want {
		t.Errorf("the certificate's SHA-256 is %s, pinned %s", got, want)
	}
	if other := newAuthority(t, 2); bytes.Equal(other.cert.SubjectKeyId, a.cert.SubjectKeyId) || other.cert.Subject.CommonName == a.cert.Subject.CommonName {
		t.Error("two secrets give one authority")
	}
	if _, err := NewAuthority(nil); err == nil {
		t.Error("an authority of no secret")
	}
}

// TestIssued: a certificate holds where the authority was derived by itself, for
// its names and both uses, and nowhere else.
func TestIssued(t *testing.T) {
	c := issue(t, newAuthority(t, 1), time.Hour, "node-a", "localhost", "10.0.0.1", "::1")
	verify := func(n byte, name string, use x509.ExtKeyUsage, at time.Time) error {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(newAuthority(t, n).PEM()) {
			t.Fatal("the authority's PEM can't be read")
		}
		_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: at})
		return err
	}
	now := time.Now()
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, name := range []string{"node-a", "localhost", "10.0.0.1", "::1"} {
			if err := verify(1, name, use, now); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for what, err := range map[string]error{
		"another authority": verify(2, "node-a", x509.ExtKeyUsageServerAuth, now),
		"another name":      verify(1, "node-b", x509.ExtKeyUsageServerAuth, now),
		"another use":       verify(1, "node-a", x509.ExtKeyUsageCodeSigning, now),
		"too late":          verify(1, "node-a", x509.ExtKeyUsageServerAuth, now.Add(2*time.Hour)),
		"too early":         verify(1, "node-a", x509.ExtKeyUsageServerAuth, now.Add(-2*time.Hour)),
	} {
		if err == nil {
			t.Errorf("%s: it holds", what)
		}
	}
	if err := verify(1, "node-a", x509.ExtKeyUsageServerAuth, now.Add(-10*time.Minute)); err != nil {
		t.Errorf("a clock that is ten minutes slow: %v", err)
	}
}

func TestHostNames(t *testing.T) {
	names := HostNames("node-a", "Example.COM.", "10.0.0.1", "0:0:0:0:0:0:0:1", "node-a")
	if names[0] != "node-a" {
		t.Errorf("the node's name isn't the first of %v", names)
	}
	count := map[string]int{}
	for _, n := range names {
		count[n]++
	}
	for _, want := range []string{"node-a", "localhost", "127.0.0.1", "::1", "example.com", "10.0.0.1"} {
		if count[want] != 1 {
			t.Errorf("%s is there %d times in %v", want, count[want], names)
		}
	}
	for _, all := range []string{"", "0.0.0.0", "::"} {
		for _, n := range HostNames("a", all) {
			if n == all {
				t.Errorf("%q is a name of %v", all, names)
			}
		}
	}
}
