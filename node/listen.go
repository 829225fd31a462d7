package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// listener is an open listener with the TLS configuration it serves with; nil
// is plaintext.
type listener struct {
	net.Listener
	tls *tls.Config
}

// listen opens one listener. Its errors name the field of Config.
func listen(field string, c ListenerConfig) (*listener, error) {
	conf, err := serverTLS(field, c)
	if err != nil {
		return nil, err
	}
	l := c.Listener
	if l == nil {
		if l, err = net.Listen("tcp", c.Addr); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%s: the port is in use by another process", c.Addr)
			}
			return nil, &ConfigError{Field: field + ".Addr", Err: err}
		}
	}
	return &listener{Listener: l, tls: conf}, nil
}

// limited is the listener with limits around what it accepts.
func (l *listener) limited(around func(net.Listener) net.Listener) *listener {
	return &listener{Listener: around(l.Listener), tls: l.tls}
}

// scheme is the URL scheme that the listener speaks.
func (l *listener) scheme() string {
	if l.tls != nil {
		return "https"
	}
	return "http"
}

// serverTLS loads a listener's certificate and, where there is one, the
// authorities whose client certificates it demands.
func serverTLS(field string, c ListenerConfig) (*tls.Config, error) {
	if !c.TLS() {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, badConfig(field+".CertFile", "%s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	conf := &tls.Config{MinVersion: minTLS, Certificates: []tls.Certificate{cert}}
	if c.CAFile != "" {
		pool, err := loadPool(field+".CAFile", c.CAFile)
		if err != nil {
			return nil, err
		}
		conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// dialTLS is what a node dials its peers with: its own certificate, and the
// authorities of the peer listener (the system's where none are given).
func dialTLS(c ListenerConfig) (*tls.Config, error) {
	if !c.TLS() {
		return nil, nil
	}
	conf, err := serverTLS("Peer", c)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: minTLS, Certificates: conf.Certificates, RootCAs: conf.ClientCAs}, nil
}

func loadPool(field, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, &ConfigError{Field: field, Err: err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, badConfig(field, "%s: %w", file, errNoCertificates)
	}
	return pool, nil
}
