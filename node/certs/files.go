package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// maxFileBytes bounds a file that is read.
const maxFileBytes = 1 << 20

// Files is an Identity from PEM files, which are read again when they change.
// It has a certificate, or authorities, or both.
type Files struct {
	certFile, keyFile, caFile string
	log                       *slog.Logger

	state atomic.Pointer[filesState]

	mu      sync.Mutex // one Check at a time
	trouble Trouble
}

// filesState is what is in use. It is replaced, never changed.
type filesState struct {
	sum  [sha256.Size]byte // of what was read
	cert *tls.Certificate
	pool *x509.CertPool
	cas  []*x509.Certificate // what is in pool
}

// FileError is what is wrong with a file.
type FileError struct {
	File string
	Err  error
}

// Error implements error. Err names the file where the system's own doesn't.
func (e *FileError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *FileError) Unwrap() error { return e.Err }

// LoadFiles reads a certificate with its key, or the authorities, or both; ""
// is none. Its errors are *FileError.
func LoadFiles(certFile, keyFile, caFile string, log *slog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, caFile: caFile, log: log}
	s, err := f.load()
	if err != nil {
		return nil, err
	}
	f.state.Store(s)
	return f, nil
}

// Paths are the files.
func (f *Files) Paths() []string {
	var paths []string
	for _, name := range []string{f.certFile, f.keyFile, f.caFile} {
		if name != "" {
			paths = append(paths, name)
		}
	}
	return paths
}

// load reads all that there is.
func (f *Files) load() (*filesState, error) {
	s := &filesState{}
	sum := sha256.New()
	read := func(name string, read func(string, int64) ([]byte, error)) ([]byte, error) {
		data, err := read(name, maxFileBytes)
		if err != nil {
			return nil, &FileError{name, err}
		}
		fmt.Fprintf(sum, "%d %s", len(data), data)
		return data, nil
	}
	if f.certFile != "" {
		cert, err := read(f.certFile, readBounded)
		if err != nil {
			return nil, err
		}
		key, err := read(f.keyFile, ReadPrivate)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, &FileError{f.certFile, fmt.Errorf("%s with key %s: %w", f.certFile, f.keyFile, err)}
		}
		s.cert = &pair
	}
	if f.caFile != "" {
		data, err := read(f.caFile, readBounded)
		if err != nil {
			return nil, err
		}
		if s.cas, err = parseAuthorities(data); err != nil {
			return nil, &FileError{f.caFile, fmt.Errorf("%s: %w", f.caFile, err)}
		}
		s.pool = x509.NewCertPool()
		for _, ca := range s.cas {
			s.pool.AddCert(ca)
		}
	}
	s.sum = [sha256.Size]byte(sum.Sum(nil))
	return s, nil
}

// parseAuthorities reads every certificate of a PEM file: one that can't be read
// makes all of it unfit, where a pool would leave it out without a word.
func parseAuthorities(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return all, nil
}

// Check reads the files, and takes over what is new in them if it is fit. What
// isn't is logged, as Trouble has it.
func (f *Files) Check(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.state.Load()
	s, err := f.load()
	if err == nil && s.sum != old.sum {
		err = f.worse(old, s, now)
	}
	if f.trouble.Tell(err, now) {
		f.log.Error("a certificate that has changed can't be used; the one before stays in use", "error", err)
	}
	if err != nil || s.sum == old.sum {
		return
	}
	f.state.Store(s)
	if i, ok := f.Info(); ok {
		f.log.Info("took over a certificate", "files", f.Paths(), "names", i.Names, "issuer", i.Issuer, "expires", i.NotAfter)
		return
	}
	f.log.Info("took over authorities", "files", f.Paths(), "count", len(s.cas))
}

// worse says why a pair should not take the place of the one in use.
func (f *Files) worse(old, s *filesState, now time.Time) error {
	if s.cert == nil {
		return nil
	}
	if i := infoOf(s.cert); now.After(i.NotAfter) && !now.After(infoOf(old.cert).NotAfter) {
		return &FileError{f.certFile, fmt.Errorf("%s: it has expired at %s", f.certFile, i.NotAfter.Format(time.RFC3339))}
	}
	return nil
}

// Certificate implements Identity.
func (f *Files) Certificate() (*tls.Certificate, error) {
	if c := f.state.Load().cert; c != nil {
		return c, nil
	}
	return nil, errors.New("certs: there is no certificate")
}

// Authorities implements Identity.
func (f *Files) Authorities() *x509.CertPool { return f.state.Load().pool }

// Info implements Identity.
func (f *Files) Info() (Info, bool) {
	s := f.state.Load()
	if s.cert == nil {
		return Info{}, false
	}
	return infoOf(s.cert), true
}
