package grid_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/grid"
)

// authority issues certificates for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	own  func() tls.Certificate // for 127.0.0.1 and "node"
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key, a.cert = a.sign(template, template, nil)
	a.pool.AddCert(a.cert)
	a.own = sync.OnceValue(func() tls.Certificate { return a.issue("127.0.0.1", "node") })
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if key == nil {
		key = own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return own, cert
}

// issue makes a certificate for both uses, for IP addresses and names.
func (a *authority) issue(all ...string) tls.Certificate {
	a.t.Helper()
	var ips []net.IP
	var names []string
	for _, name := range all {
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, name)
		}
	}
	key, cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: all[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: ips, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// tlsPair starts two nodes at 127.0.0.1 and 127.0.0.2 that know each other by
// their certificates alone. serving and dialling are node 1's certificates.
func tlsPair(t *testing.T, a *authority, serving, dialling tls.Certificate) [2]*grid.Manager {
	t.Helper()
	own := a.issue("127.0.0.1")
	return tlsNodes(t, a, [2][2]tls.Certificate{{own, own}, {serving, dialling}}, nil)
}

// tlsNodes is tlsPair with the certificates of both nodes, each for serving and
// for dialling, and what they are to be valid for, if not the addresses.
func tlsNodes(t *testing.T, a *authority, certificates [2][2]tls.Certificate, names []string) [2]*grid.Manager {
	t.Helper()
	var listeners [2]net.Listener
	var hosts []string
	for i, ip := range []string{"127.0.0.1:0", "127.0.0.2:0"} {
		ln, err := net.Listen("tcp", ip)
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{certificates[i][0]},
			ClientCAs:    a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		})
		hosts = append(hosts, "https://"+ln.Addr().String())
	}
	var nodes [2]*grid.Manager
	for i := range nodes {
		m, err := grid.NewManager(context.Background(), grid.ManagerOptions{
			Local: hosts[i], Hosts: hosts, BackoffMax: 100 * time.Millisecond,
			TLS:             &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{certificates[i][1]}},
			CertificateName: byPosition(hosts, names),
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = m
		server := &http.Server{Handler: m.Handler(), ErrorLog: log.New(io.Discard, "", 0)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(listeners[i])
		}()
		t.Cleanup(func() {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if err := m.Close(ended); err != nil {
				t.Error(err)
			}
			server.Close()
			<-done
		})
	}
	return nodes
}

// byPosition is a CertificateName that has a name for each host; nil without
// names.
func byPosition(hosts, names []string) func(string) string {
	if names == nil {
		return nil
	}
	return func(host string) string { return names[slices.Index(hosts, host)] }
}

// TestCertificateName: with names of their own for the certificates, nodes are
// who they are wherever they are, and a certificate for the address proves
// nothing any more, at either end.
func TestCertificateName(t *testing.T) {
	a := newAuthority(t)
	names := []string{"node-a", "node-b"}
	own := [2]tls.Certificate{a.issue("node-a"), a.issue("node-a")}
	for what, other := range map[string]tls.Certificate{
		"its own name":            a.issue("node-b"),
		"its address":             a.issue("127.0.0.2"),
		"the other node's name":   own[0],
		"the name of neither":     a.issue("node-c"),
		"its name, of a stranger": newAuthority(t).issue("node-b"),
	} {
		t.Run(what, func(t *testing.T) {
			right := a.issue("node-b")
			// Which of the two dials follows from their ports: the wrong
			// certificate is node 1's when it serves, and when it dials.
			for use, certificates := range map[string][2]tls.Certificate{
				"serving": {other, right}, "dialling": {right, other}, "both": {other, other},
			} {
				nodes := tlsNodes(t, a, [2][2]tls.Certificate{own, certificates}, names)
				c := nodes[0].Connection(nodes[1].Local())
				dials := nodes[1].Connection(nodes[0].Local()).Stats().Dialler
				used := use == "both" || (use == "dialling") == dials
				if what == "its own name" || !used {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
					if err := c.WaitConnected(ctx); err != nil {
						t.Errorf("%s: %v", use, err)
					}
					cancel()
					continue
				}
				waitAttempts(t, nodes)
				if st := c.Stats(); st.Sessions != 0 {
					t.Errorf("%s: %d sessions", use, st.Sessions)
				}
			}
		})
	}
}

// waitAttempts waits until the dialling end has tried three times.
func waitAttempts(t *testing.T, nodes [2]*grid.Manager) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for nodes[0].Connection(nodes[1].Local()).Stats().DialAttempts+nodes[1].Connection(nodes[0].Local()).Stats().DialAttempts < 3 {
		if time.Now().After(deadline) {
			t.Fatal("the dialling end does not try")
		}
		<-tick.C
	}
}

func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	nodes := tlsPair(t, a, a.issue("127.0.0.2"), a.issue("127.0.0.2"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i, m := range nodes {
		register(t, nodes[1-i], echo())
		c := m.Connection(nodes[1-i].Local())
		if err := c.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 512, 1 << 20} {
			resp, err := c.Request(ctx, echoID, make([]byte, size))
			if err != nil || len(resp) != size {
				t.Errorf("%d bytes: %d, %v", size, len(resp), err)
			}
		}
	}
}

func TestWrongCertificateIsRefused(t *testing.T) {
	a := newAuthority(t)
	wrong := a.issue("127.0.0.3") // of the authority, but for another name
	nodes := tlsPair(t, a, wrong, wrong)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	for i, m := range nodes {
		c := m.Connection(nodes[1-i].Local())
		wantIs(t, "WaitConnected", c.WaitConnected(ctx), context.DeadlineExceeded)
	}
}

func TestProofIsAskedFor(t *testing.T) {
	_, err := grid.NewManager(context.Background(), grid.ManagerOptions{Local: "http://127.0.0.1:1"})
	if err == nil {
		t.Fatal("a manager without any proof of its peers")
	}
	m, err := grid.NewManager(context.Background(), grid.ManagerOptions{Local: "http://127.0.0.1:1", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
