package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/door/lean"
)

// listener is an open listener with the TLS configuration it serves with; nil
// is plaintext.
type listener struct {
	net.Listener
	name  string // "grpc", "http", "peer"
	tls   *tls.Config
	own   certs.Identity // what it shows; nil: plaintext
	files *certs.Files   // what of that, or of its clients' authorities, is in files
}

// listen opens one listener. Its errors name the field of Config. mesh is there
// where the configuration asks for it.
func listen(field string, c ListenerConfig, mesh *certs.Mesh, log *slog.Logger) (*listener, error) {
	l := &listener{Listener: c.Listener, name: strings.ToLower(field)}
	if err := l.secure(field, c, mesh, log); err != nil {
		return nil, err
	}
	if l.Listener == nil {
		var err error
		if l.Listener, err = net.Listen("tcp", c.Addr); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%s: the port is in use by another process", c.Addr)
			}
			return nil, &ConfigError{Field: field + ".Addr", Err: err}
		}
	}
	return l, nil
}

// limited is the listener with limits around what it accepts.
func (l *listener) limited(around func(net.Listener) net.Listener) *listener {
	return &listener{Listener: around(l.Listener), tls: l.tls}
}

// joined is the listener, as joining where it is plaintext. It isn't for peers:
// the grid takes their connections over, and wants them bare.
func (l *listener) joined() *listener {
	if l.tls != nil {
		return l
	}
	return &listener{Listener: joining{l.Listener}}
}

// plain is the listener with the lean door in front of server, where it is
// plaintext and joined. direct may be nil.
func (l *listener) plain(server *http.Server, direct func(net.Conn) lean.Direct) *listener {
	if l.tls != nil {
		return l
	}
	plain := lean.NewListener(l.Listener, server)
	plain.Direct = direct
	return &listener{Listener: plain}
}

// joining is a plaintext listener whose connections send the head of an answer
// together with what comes behind it (dataio.Conn).
type joining struct{ net.Listener }

// Accept implements net.Listener.
func (l joining) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if bare, ok := conn.(*net.TCPConn); ok && err == nil {
		conn = dataio.NewConn(bare)
	}
	return conn, err
}

// scheme is the URL scheme that the listener speaks.
func (l *listener) scheme() string {
	if l.tls != nil {
		return "https"
	}
	return "http"
}

// secure finds the certificate that the listener shows, and whose it takes.
func (l *listener) secure(field string, c ListenerConfig, mesh *certs.Mesh, log *slog.Logger) (err error) {
	if !c.TLS() {
		return nil
	}
	if c.CertFile != "" || c.CAFile != "" {
		l.files, err = certs.LoadFiles(c.CertFile, c.KeyFile, c.CAFile, log.With("listener", l.name))
		if err != nil {
			return blameFile(field, c, err)
		}
	}
	l.own = l.files
	if c.Auto {
		l.own = mesh
	}
	// A client's certificate is one way in. A peer's is asked for, beside its
	// knowledge of the mesh secret.
	auth, protocols := tls.VerifyClientCertIfGiven, []string{"h2", "http/1.1"}
	switch l.name {
	case "grpc":
		protocols = []string{"h2"}
	case "peer":
		auth, protocols = tls.RequireAndVerifyClientCert, []string{"http/1.1"}
	}
	l.tls = certs.Server(l.own, l.authorities(c), auth, nil, protocols...)
	return nil
}

// authorities are those that the other end's certificates are to be from; nil
// for none.
func (l *listener) authorities(c ListenerConfig) func() *x509.CertPool {
	switch {
	case c.CAFile != "":
		return l.files.Authorities
	case c.Auto && l.name == "peer":
		return l.own.Authorities
	}
	return nil
}

// blameFile says which field of the configuration named a file that is no good.
func blameFile(field string, c ListenerConfig, err error) error {
	var bad *certs.FileError
	if errors.As(err, &bad) {
		switch bad.File {
		case c.CertFile:
			field += ".CertFile"
		case c.KeyFile:
			field += ".KeyFile"
		case c.CAFile:
			field += ".CAFile"
		}
	}
	return &ConfigError{Field: field, Err: err}
}

// dialTLS is what a node dials its peers with: its own certificate, and the
// authorities of the peer listener (the system's where it has none).
func (n *Node) dialTLS() *tls.Config {
	if n.peerListener.tls == nil {
		return nil
	}
	return certs.Client(n.peerListener.own, n.peerListener.authorities(n.cfg.Peer), nil)
}

// hostCertificates says whether peers' certificates are for the hosts in their
// URLs. It is so with those of the system's authorities, which know nothing of
// the names of nodes; who a peer is follows from the mesh secret then.
func (n *Node) hostCertificates() bool {
	return n.peerListener.authorities(n.cfg.Peer) == nil
}

// certificateName is the name that the certificate of the node at a base URL
// must be for. One that no node is known to have lets nobody in.
func (n *Node) certificateName(host string) string {
	if n.hostCertificates() {
		return ""
	}
	return n.nodeName(host)
}

// nodeName gives the name of the node at a base URL of the grid's.
func (n *Node) nodeName(host string) string {
	for name, url := range n.urls() {
		if gridHost(url) == host {
			return name
		}
	}
	return host
}

// gridHost spells a base URL as the grid does: in lower case, with its port.
func gridHost(base string) string {
	u, err := url.Parse(strings.ToLower(base))
	if err != nil {
		return base
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port)
}

// certificateNames are what the certificates that the node makes are for.
func (c *Config) certificateNames() []string {
	hosts := append([]string(nil), c.CertificateNames...)
	for _, l := range []ListenerConfig{c.GRPC, c.HTTP, c.Peer} {
		addr := l.Addr
		if l.Listener != nil {
			addr = l.Listener.Addr().String()
		}
		if host, _, err := net.SplitHostPort(addr); err == nil && l.Auto {
			hosts = append(hosts, host)
		}
	}
	for _, p := range c.Peers {
		if u, err := url.Parse(p.URL); err == nil && p.Name == c.Name {
			hosts = append(hosts, u.Hostname())
		}
	}
	return certs.HostNames(c.Name, hosts...)
}
