package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSecret is a mesh secret of its own for each n.
func testSecret(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func secrets(ns ...byte) func() [][]byte {
	var all [][]byte
	for _, n := range ns {
		all = append(all, testSecret(n))
	}
	return func() [][]byte { return all }
}

func newAuthority(t *testing.T, n byte) *Authority {
	t.Helper()
	a, err := NewAuthority(testSecret(n))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newMesh(t *testing.T, o MeshOptions) *Mesh {
	t.Helper()
	m, err := NewMesh(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// writePair writes a certificate and its key as files, and returns their names.
func writePair(t *testing.T, dir string, c *tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, certFile, certPEM(c))
	write(t, keyFile, keyPEM(t, c))
	return certFile, keyFile
}

func certPEM(c *tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

func keyPEM(t *testing.T, c *tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate as from elsewhere.
func issue(t *testing.T, a *Authority, life time.Duration, names ...string) *tls.Certificate {
	t.Helper()
	c, err := a.issue(names, time.Now(), life)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// strayKey is the key of no certificate.
func strayKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyPEM(t, &tls.Certificate{PrivateKey: key})
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// count counts the lines with a part.
func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(part))
}
