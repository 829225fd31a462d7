package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// minVersion is the oldest version of TLS that is spoken.
const minVersion = tls.VersionTLS13

// Server is the configuration of a listener that shows what own has. clients,
// unless it is nil, gives the authorities for client certificates, which auth
// says whether there must be. protocols are those of ALPN. now is the clock; nil
// is time.Now.
func Server(own Identity, clients func() *x509.CertPool, auth tls.ClientAuthType, now func() time.Time, protocols ...string) *tls.Config {
	conf := &tls.Config{
		MinVersion:     minVersion,
		NextProtos:     protocols,
		Time:           now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.Certificate() },
	}
	if clients == nil {
		return conf
	}
	// A ticket would let in who was verified by authorities of before.
	conf.SessionTicketsDisabled = true
	conf.ClientAuth = auth
	perHandshake := conf.Clone()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := perHandshake.Clone()
		c.ClientCAs = clients()
		return c, nil
	}
	return conf
}

// Client is the configuration for dialling with what own has, if the server
// asks. The server's certificate must be from one of the authorities, for the
// name that the dialler sets as ServerName, which must not be an IP address.
// Where authorities is nil it is verified as usual, by those of the system. now
// is the clock; nil is time.Now.
func Client(own Identity, authorities func() *x509.CertPool, now func() time.Time) *tls.Config {
	conf := &tls.Config{
		MinVersion:           minVersion,
		Time:                 now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.Certificate() },
	}
	if authorities == nil {
		return conf
	}
	// RootCAs would be those of now for ever: the same is done here, with those
	// of each handshake.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if s.ServerName == "" || len(s.PeerCertificates) == 0 {
			return errors.New("certs: the server's name or certificate is not known")
		}
		o := x509.VerifyOptions{Roots: authorities(), DNSName: s.ServerName, Intermediates: x509.NewCertPool()}
		if o.Roots == nil {
			return errors.New("certs: there are no authorities")
		}
		if now != nil {
			o.CurrentTime = now()
		}
		for _, c := range s.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
	return conf
}
