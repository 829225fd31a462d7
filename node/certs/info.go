package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"time"
)

// Identity is a certificate, and the authorities that others' are to be from.
// Both may change between two calls. Its methods may be called from many
// goroutines at once.
type Identity interface {
	// Certificate is the one in use.
	Certificate() (*tls.Certificate, error)
	// Authorities are those in use; nil where there are none of its own.
	Authorities() *x509.CertPool
	// Info describes the certificate; false where there is none.
	Info() (Info, bool)
}

// Info describes a certificate.
type Info struct {
	Names       []string // DNS names and IP addresses
	Issuer      string
	NotBefore   time.Time
	NotAfter    time.Time // or that of what signed it and is shown with it, if that is earlier
	Fingerprint string    // SHA-256 of the certificate, in hex
}

func infoOf(c *tls.Certificate) Info {
	leaf := c.Leaf
	sum := sha256.Sum256(leaf.Raw)
	i := Info{
		Issuer: leaf.Issuer.CommonName, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]),
	}
	if i.Issuer == "" {
		i.Issuer = leaf.Issuer.String()
	}
	i.Names = append(i.Names, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		i.Names = append(i.Names, ip.String())
	}
	if len(i.Names) == 0 {
		i.Names = []string{leaf.Subject.String()}
	}
	for _, der := range c.Certificate[1:] {
		if above, err := x509.ParseCertificate(der); err == nil && above.NotAfter.Before(i.NotAfter) {
			i.NotAfter = above.NotAfter
		}
	}
	return i
}
