package api

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// identityPatience is how long a request waits for users and keys to be read.
const identityPatience = 10 * time.Second

// Identify asks the gate who a request is from. While users and keys haven't
// been read, which is no reason to refuse anybody, it waits: until ctx ends, ten
// seconds at most. Its errors are faults.
func Identify(ctx context.Context, gate *iam.Gate, r iam.Request) (iam.Principal, error) {
	p, err := gate.Verify(r)
	if errors.Is(err, iam.ErrNotReady) {
		timer := time.NewTimer(identityPatience)
		defer timer.Stop()
		select {
		case <-gate.Ready():
			r.Now = time.Now()
			p, err = gate.Verify(r)
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return p, IdentityFault(err)
}

// IdentityFault makes a fault of an error of package iam's; nil of nil.
func IdentityFault(err error) error {
	if err == nil {
		return nil
	}
	var field *iam.FieldError
	switch {
	case errors.As(err, &field):
		return fault.New(fault.InvalidArgument, field.Field, "%s", field.Problem)
	case errors.Is(err, iam.ErrNotReady), errors.Is(err, iam.ErrStale):
		return fault.Wrap(fault.Waiting, "users and keys", err)
	case errors.Is(err, iam.ErrPermissionDenied):
		return fault.Wrap(fault.PermissionDenied, "", err)
	}
	return fault.Wrap(fault.Unauthenticated, "", err)
}

// CertificateNames are the names in a client's certificate, which one of the
// listener's authorities has signed; none without one. state may be nil.
func CertificateNames(state *tls.ConnectionState) []string {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	leaf := state.VerifiedChains[0][0]
	var names []string
	if leaf.Subject.CommonName != "" {
		names = append(names, leaf.Subject.CommonName)
	}
	names = append(names, leaf.DNSNames...)
	names = append(names, leaf.EmailAddresses...)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	return names
}
