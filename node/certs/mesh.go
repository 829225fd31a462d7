package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// meshLife is how long a node's certificate is good for.
const meshLife = 30 * 24 * time.Hour

// MeshOptions configures a Mesh. What follows Secrets may be left out.
type MeshOptions struct {
	// Names are DNS names and IP addresses for the certificate, the node's name
	// the first; see HostNames.
	Names []string
	// Secrets are the mesh secrets: the first one's authority signs, all are
	// trusted. It is asked for every handshake, and must be quick.
	Secrets func() [][]byte

	Now    func() time.Time // the clock (time.Now)
	Logger *slog.Logger     // (discarded)
}

// Mesh is an Identity of the mesh's own making: a certificate that this node
// signs for itself, with the authority that it shares with all others.
type Mesh struct {
	o MeshOptions

	mu    sync.Mutex // one refresh at a time
	state atomic.Pointer[meshState]
}

// meshState is what is in use. It is replaced, never changed.
type meshState struct {
	secrets     [][]byte
	authorities []*Authority // one for each secret
	pool        *x509.CertPool
	leaf        *tls.Certificate
	renewAt     time.Time
}

// NewMesh makes the first certificate.
func NewMesh(o MeshOptions) (*Mesh, error) {
	if len(o.Names) == 0 {
		return nil, errors.New("certs: a certificate needs a name")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{o: o}
	if _, err := m.current(); err != nil {
		return nil, err
	}
	return m, nil
}

// current is what is in use now, brought up to date where that is due. An
// update that fails leaves what there was.
func (m *Mesh) current() (*meshState, error) {
	s, secrets, now := m.state.Load(), m.o.Secrets(), m.o.Now()
	if s != nil && s.fits(secrets, now) {
		return s, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s = m.state.Load(); s != nil && s.fits(secrets, now) {
		return s, nil
	}
	next, err := m.update(s, secrets, now)
	switch {
	case err == nil:
		m.state.Store(next)
		return next, nil
	case s != nil:
		return s, err
	}
	return nil, err
}

// fits says whether nothing has to be made anew.
func (s *meshState) fits(secrets [][]byte, now time.Time) bool {
	return s.fresh(now) && slices.EqualFunc(s.secrets, secrets, bytes.Equal)
}

// fresh says whether the certificate is good, and will be for long enough. It
// may be of the future, where the clock has been set back.
func (s *meshState) fresh(now time.Time) bool {
	return now.Before(s.renewAt) && now.After(s.leaf.Leaf.NotBefore)
}

func (m *Mesh) update(old *meshState, secrets [][]byte, now time.Time) (*meshState, error) {
	if len(secrets) == 0 {
		return nil, errors.New("certs: there is no mesh secret")
	}
	s := &meshState{pool: x509.NewCertPool()}
	for _, secret := range secrets {
		a := old.authority(secret)
		if a == nil {
			var err error
			if a, err = NewAuthority(secret); err != nil {
				return nil, err
			}
		}
		s.secrets = append(s.secrets, bytes.Clone(secret))
		s.authorities = append(s.authorities, a)
		s.pool.AddCert(a.cert)
	}
	if old != nil && old.fresh(now) && old.authorities[0] == s.authorities[0] {
		s.leaf, s.renewAt = old.leaf, old.renewAt
		return s, nil
	}
	var err error
	if s.leaf, err = s.authorities[0].issue(m.o.Names, now, meshLife); err != nil {
		return nil, err
	}
	// After two thirds of its life, less or more a thirtieth of it: nodes that
	// have started together don't renew together for ever.
	s.renewAt = now.Add(meshLife*2/3 - meshLife/30 + rand.N(meshLife/15))
	m.o.Logger.Info("made a certificate", "names", m.o.Names, "authority", s.authorities[0].cert.Subject.CommonName,
		"expires", s.leaf.Leaf.NotAfter)
	return s, nil
}

// authority finds that of a secret which was there before; nil if there is none.
func (s *meshState) authority(secret []byte) *Authority {
	if s == nil {
		return nil
	}
	if i := slices.IndexFunc(s.secrets, func(known []byte) bool { return bytes.Equal(known, secret) }); i >= 0 {
		return s.authorities[i]
	}
	return nil
}

// Certificate implements Identity. A handshake is served with what there is
// where making a new certificate fails.
func (m *Mesh) Certificate() (*tls.Certificate, error) {
	s, err := m.current()
	if s == nil {
		return nil, err
	}
	return s.leaf, nil
}

// Authorities implements Identity.
func (m *Mesh) Authorities() *x509.CertPool {
	s, _ := m.current() // its error is Refresh's to report
	return s.pool
}

// Refresh brings everything up to date, as each handshake would, and says what
// keeps it from that.
func (m *Mesh) Refresh() error {
	_, err := m.current()
	if err != nil {
		return fmt.Errorf("renewing the certificate: %w", err)
	}
	return nil
}

// PEM is the certificates of the authorities, that of the first secret first:
// what clients have to trust.
func (m *Mesh) PEM() []byte {
	s, _ := m.current()
	var all []byte
	for _, a := range s.authorities {
		all = append(all, a.PEM()...)
	}
	return all
}

// Info implements Identity.
func (m *Mesh) Info() (Info, bool) {
	s, _ := m.current()
	return infoOf(s.leaf), true
}
