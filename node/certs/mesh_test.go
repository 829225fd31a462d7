package certs

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMeshRenews lets a year pass: the certificate is always good for more than
// nine days, and made anew once in twenty days, give or take one.
func TestMeshRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: secrets(1)})
		last, _ := m.Info()
		renewals := 0
		for day := range 365 {
			time.Sleep(24 * time.Hour)
			now, _ := m.Info()
			if left := time.Until(now.NotAfter); left < 8*24*time.Hour {
				t.Fatalf("on day %d only %v are left", day, left)
			}
			if now.Fingerprint != last.Fingerprint {
				renewals++
				if age := time.Since(last.NotBefore.Add(skew)); age < 19*24*time.Hour || age > 22*24*time.Hour {
					t.Errorf("renewed after %v", age)
				}
				last = now
			}
		}
		if renewals < 16 || renewals > 19 {
			t.Errorf("%d renewals in a year", renewals)
		}
	})
}

// TestMeshNodesDontRenewTogether: nodes that start together drift apart.
func TestMeshNodesDontRenewTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := map[time.Time]bool{}
		for range 20 {
			at[newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: secrets(1)}).state.Load().renewAt] = true
		}
		if len(at) < 18 {
			t.Errorf("20 nodes renew at %d times", len(at))
		}
	})
}

// TestMeshFollowsTheClock: a machine whose clock was years ahead when it started
// has a certificate that is good once it has been set.
func TestMeshFollowsTheClock(t *testing.T) {
	off := 5 * 365 * 24 * time.Hour
	m := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: secrets(1), Now: func() time.Time { return time.Now().Add(off) }})
	for _, off = range []time.Duration{0, -10 * 365 * 24 * time.Hour, 10 * time.Minute} {
		if i, _ := m.Info(); m.o.Now().Before(i.NotBefore) || m.o.Now().After(i.NotAfter) {
			t.Errorf("%v off: good from %v to %v", off, i.NotBefore, i.NotAfter)
		}
	}
}

// TestMeshRotates: the first secret's authority signs, every secret's is
// trusted; what hasn't changed stays.
func TestMeshRotates(t *testing.T) {
	var now atomic.Pointer[func() [][]byte]
	set := func(ns ...byte) { f := secrets(ns...); now.Store(&f) }
	set(1)
	m := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: func() [][]byte { return (*now.Load())() }})
	first, _ := m.Info()
	if first.Issuer != newAuthority(t, 1).cert.Subject.CommonName {
		t.Errorf("signed by %s", first.Issuer)
	}
	set(1, 2)
	if i, _ := m.Info(); i.Fingerprint != first.Fingerprint {
		t.Error("another secret to accept makes a new certificate")
	}
	if want := string(newAuthority(t, 1).PEM()) + string(newAuthority(t, 2).PEM()); string(m.PEM()) != want {
		t.Errorf("the authorities are\n%swant\n%s", m.PEM(), want)
	}
	set(2, 1)
	second, _ := m.Info()
	if second.Issuer != newAuthority(t, 2).cert.Subject.CommonName {
		t.Errorf("signed by %s after the switch", second.Issuer)
	}
	if !strings.HasPrefix(string(m.PEM()), string(newAuthority(t, 2).PEM())) {
		t.Error("the authority that signs isn't the first")
	}
	set(2)
	if i, _ := m.Info(); i.Fingerprint != second.Fingerprint || !bytes.Equal(m.PEM(), newAuthority(t, 2).PEM()) {
		t.Error("the one that is dropped leaves something behind")
	}
	set()
	if err := m.Refresh(); err == nil {
		t.Error("no secret at all is no error")
	}
	if i, _ := m.Info(); i.Fingerprint != second.Fingerprint {
		t.Error("no secret at all changes the certificate")
	}
}
