package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// handshake has a client and a server meet over a real connection, and returns
// what each end makes of it. Of a server that turns a client away in TLS 1.3 the
// client learns with its first read.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		secured := tls.Server(conn, server)
		if err = secured.Handshake(); err == nil {
			_, err = secured.Write([]byte("x"))
		}
		served <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	secured := tls.Client(conn, client)
	if clientErr = secured.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(secured, make([]byte, 1))
	}
	return <-served, clientErr
}

// at is a clock that is off.
func at(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }

// named is a client's configuration for a server of that name.
func named(c *tls.Config, name string) *tls.Config {
	c = c.Clone()
	c.ServerName = name
	return c
}

// peerConfig is a peer listener's.
func peerConfig(own Identity, now func() time.Time) *tls.Config {
	return Server(own, own.Authorities, tls.RequireAndVerifyClientCert, now, "http/1.1")
}

// TestPeers: two nodes of a mesh let each other in, and nobody else, whichever
// of them dials.
func TestPeers(t *testing.T) {
	node := func(name string, ns ...byte) *Mesh {
		return newMesh(t, MeshOptions{Names: []string{name}, Secrets: secrets(ns...)})
	}
	a := node("a", 1)
	month := 31 * 24 * time.Hour
	for _, c := range []struct {
		what               string
		other              *Mesh
		meant              string        // the name that who dials b means
		now                time.Duration // on a's clock
		fromOther, toOther bool          // let in
	}{
		{"the same mesh", node("b", 1), "b", 0, true, true},
		{"a mesh that is changing its secret", node("b", 2, 1), "b", 0, false, false}, // a doesn't know the new one yet
		{"a mesh that will change its secret", node("b", 1, 2), "b", 0, true, true},
		{"another mesh", node("b", 3), "b", 0, false, false},
		{"another node", node("c", 1), "b", 0, true, false}, // its name is for whoever accepts to compare
		{"an expired certificate", node("b", 1), "b", month, false, false},
		{"a clock ten minutes fast", node("b", 1), "b", 10 * time.Minute, true, true},
		{"a clock ten minutes slow", node("b", 1), "b", -10 * time.Minute, true, true},
	} {
		now := at(c.now)
		// a's own certificate is of a's own clock
		own := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: a.o.Secrets, Now: now})
		serverErr, clientErr := handshake(t, peerConfig(own, now), named(Client(c.other, c.other.Authorities, at(c.now)), "a"))
		if in := serverErr == nil && clientErr == nil; in != c.fromOther {
			t.Errorf("from %s: server %v, client %v", c.what, serverErr, clientErr)
		}
		serverErr, clientErr = handshake(t, peerConfig(c.other, nil), named(Client(own, own.Authorities, now), c.meant))
		if in := serverErr == nil && clientErr == nil; in != c.toOther {
			t.Errorf("to %s: server %v, client %v", c.what, serverErr, clientErr)
		}
	}
	if serverErr, _ := handshake(t, peerConfig(a, nil), &tls.Config{InsecureSkipVerify: true}); serverErr == nil {
		t.Error("a client without a certificate is let in")
	}
	if _, clientErr := handshake(t, peerConfig(a, nil), Client(a, a.Authorities, nil)); clientErr == nil {
		t.Error("a client that means nobody in particular is content")
	}
	old := named(Client(a, a.Authorities, nil), "a")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if serverErr, _ := handshake(t, peerConfig(a, nil), old); serverErr == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// TestClientCertificateIsOneWayIn: where it may be left out it is still looked
// at if it is shown.
func TestClientCertificateIsOneWayIn(t *testing.T) {
	a, pool := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: secrets(1)}), x509.NewCertPool()
	pool.AddCert(newAuthority(t, 2).cert)
	conf := Server(a, func() *x509.CertPool { return pool }, tls.VerifyClientCertIfGiven, nil, "h2")
	var names []string
	conf.VerifyConnection = nil
	inner := conf.GetConfigForClient
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := inner(h)
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if names = nil; len(s.VerifiedChains) > 0 {
				names = s.VerifiedChains[0][0].DNSNames
			}
			return nil
		}
		return c, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	plain := &tls.Config{RootCAs: roots, ServerName: "a"}
	if serverErr, clientErr := handshake(t, conf, plain); serverErr != nil || clientErr != nil || names != nil {
		t.Errorf("without one: %v, %v, %v", serverErr, clientErr, names)
	}
	with := plain.Clone()
	with.Certificates = []tls.Certificate{*issue(t, newAuthority(t, 2), time.Hour, "alice")}
	if serverErr, clientErr := handshake(t, conf, with); serverErr != nil || clientErr != nil || len(names) != 1 || names[0] != "alice" {
		t.Errorf("with one: %v, %v, %v", serverErr, clientErr, names)
	}
	with.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return issue(t, newAuthority(t, 3), time.Hour, "alice"), nil
	}
	if serverErr, _ := handshake(t, conf, with); serverErr == nil {
		t.Error("one of another authority is let in")
	}
}

// TestSystemAuthorities: without authorities of its own a client has the
// system's, which know nothing of the mesh.
func TestSystemAuthorities(t *testing.T) {
	a := newMesh(t, MeshOptions{Names: []string{"a"}, Secrets: secrets(1)})
	_, clientErr := handshake(t, Server(a, nil, tls.NoClientCert, nil), named(Client(a, nil, nil), "a"))
	var unknown x509.UnknownAuthorityError
	if !errors.As(clientErr, &unknown) {
		t.Errorf("got %v", clientErr)
	}
}
