package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twoNodes are the two machines of the README, as two processes.
type twoNodes struct {
	dir    string
	base   int
	scheme string
	extra  []string // flags of both
}

func newTwoNodes(t *testing.T, scheme string, extra ...string) twoNodes {
	t.Helper()
	n := twoNodes{dir: t.TempDir(), base: freeBase(t, 2), scheme: scheme, extra: extra}
	n.write(t, "root.key", mustRun(t, nil, "keygen"))
	n.write(t, "mesh.secret", mustRun(t, nil, "keygen", "--mesh-secret"))
	return n
}

func (n twoNodes) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n twoNodes) path(name string) string { return filepath.Join(n.dir, name) }

// addr is a listener of node 0 (a) or 1 (b): 0 gRPC, 1 HTTP, 2 peer.
func (n twoNodes) addr(node, listener int) string {
	return fmt.Sprintf("127.0.0.1:%d", n.base+10*node+listener)
}

func (n twoNodes) start(t *testing.T, node int) *process {
	t.Helper()
	name := []string{"a", "b"}[node]
	return start(t, nil, append([]string{"serve", "--name", name,
		"--peers", fmt.Sprintf("a=%s://%s,b=%s://%s", n.scheme, n.addr(0, 2), n.scheme, n.addr(1, 2)),
		"--key-file", n.path("root.key"), "--mesh-secret-file", n.path("mesh.secret"),
		"--data", n.path("data-" + name),
		"--grpc-addr", n.addr(node, 0), "--http-addr", n.addr(node, 1), "--peer-addr", n.addr(node, 2),
	}, n.extra...)...)
}

// client runs a client command against a node.
func (n twoNodes) client(node int, flags []string, args ...string) []string {
	return append(append(args, "--endpoint", n.addr(node, 0), "--key-file", n.path("root.key")), flags...)
}

// roundTrip puts some files of every size through one node and gets them
// through the other.
func (n twoNodes) roundTrip(t *testing.T, from, to int, bucket string, flags ...string) {
	t.Helper()
	mustRun(t, nil, n.client(from, flags, "mb", bucket)...)
	for _, size := range []int{10, 100 << 10, 2 << 20} {
		content := strings.Repeat("gridloom! ", size/10)
		n.write(t, "in", content)
		key := fmt.Sprintf("%s/size-%d", bucket, size)
		mustRun(t, nil, n.client(from, flags, "put", n.path("in"), key)...)
		if got := mustRun(t, nil, n.client(to, flags, "get", key, "-")...); got != content {
			t.Errorf("%s: put through %d, got %d other bytes through %d", key, from, len(got), to)
		}
	}
}

// TestTwoProcesses starts the node that has no vote first, puts through each and
// gets through the other, and kills and restarts the voter under it.
func TestTwoProcesses(t *testing.T) {
	n := newTwoNodes(t, "http")
	b := n.start(t, 1)
	a := n.start(t, 0)
	waitReady(t, a, n.addr(0, 1))
	waitReady(t, b, n.addr(1, 1))
	n.roundTrip(t, 0, 1, "one")
	n.roundTrip(t, 1, 0, "two")

	a.kill()
	// Without a leader b waits, says for what, and serves on when it is back.
	r := run(t, nil, nil, n.client(1, []string{"--timeout", "500ms"}, "ls")...)
	if r.code != 1 {
		t.Errorf("ls without a leader: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	a = n.start(t, 0)
	waitReady(t, a, n.addr(0, 1))
	if got := mustRun(t, nil, n.client(1, nil, "ls")...); !strings.Contains(got, "one") || !strings.Contains(got, "two") {
		t.Errorf("buckets after the restart: %s", got)
	}
	for _, p := range []*process{a, b} {
		if err := p.interrupt(t); err != nil {
			t.Errorf("after an interrupt: %v", err)
		}
	}
}

// TestTwoProcessesTLS is the same with certificates on every listener, and
// mutual TLS between the nodes.
func TestTwoProcessesTLS(t *testing.T) {
	t.Parallel()
	certs := t.TempDir()
	ca, cert, key := writeCerts(t, certs)
	n := newTwoNodes(t, "https",
		"--grpc-cert", cert, "--grpc-cert-key", key, "--http-cert", cert, "--http-cert-key", key,
		"--peer-cert", cert, "--peer-cert-key", key, "--peer-ca", ca)
	a, b := n.start(t, 0), n.start(t, 1)
	waitOutput(t, a, "ready")
	waitOutput(t, b, "ready")
	n.roundTrip(t, 0, 1, "one", "--ca", ca)
	n.roundTrip(t, 1, 0, "two", "--ca", ca)
	if r := run(t, nil, nil, n.client(0, nil, "ls")...); r.code != 1 {
		t.Errorf("a client that doesn't speak TLS: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// TestRefusals starts nodes that must not start, and says what they must name.
func TestRefusals(t *testing.T) {
	n := newTwoNodes(t, "http")
	a := n.start(t, 0)
	waitOutput(t, a, "HTTP")
	other := n.path("other")
	for name, tc := range map[string]struct {
		args []string
		says []string
	}{
		"a second process on the data directory": {
			[]string{"serve", "--data", n.path("data-a"), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"},
			[]string{"--data", n.path("data-a")}},
		"a port in use": {
			[]string{"serve", "--data", other, "--grpc-addr", "127.0.0.1:0", "--http-addr", n.addr(0, 1), "--peer-addr", "127.0.0.1:0"},
			[]string{"--http-addr", n.addr(0, 1), "in use"}},
		"a listener off loopback": {
			[]string{"serve", "--data", other, "--grpc-addr", "0.0.0.0:0"},
			[]string{"--grpc-addr", "0.0.0.0:0", "insecure"}},
		"an unknown peer": {
			[]string{"serve", "--name", "z", "--data", other, "--peers", "a=http://127.0.0.1:1,b=http://127.0.0.1:2", "--key-file", n.path("root.key"), "--mesh-secret-file", n.path("mesh.secret")},
			[]string{"--name", "z", "a, b"}},
		"a mesh without a key": {
			[]string{"serve", "--name", "a", "--data", other, "--peers", "a=http://127.0.0.1:1,b=http://127.0.0.1:2"},
			[]string{"--key-file", "GRIDLOOM_KEY"}},
		"an unknown FORMAT": {
			[]string{"serve", "--data", unknownFormat(t), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"},
			[]string{"FORMAT", "gridloom 999"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, nil, nil, tc.args...)
			if r.code == 0 {
				t.Fatal("it started")
			}
			for _, part := range tc.says {
				if !strings.Contains(r.stderr, part) {
					t.Errorf("the error does not say %q: %s", part, r.stderr)
				}
			}
			if _, err := os.Stat(other); err == nil {
				t.Errorf("left behind: %s", other)
				_ = os.RemoveAll(other)
			}
		})
	}
}

func unknownFormat(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("gridloom 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// waitOutput waits until a process has printed something.
func waitOutput(t *testing.T, p *process, what string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for !strings.Contains(p.out.String(), what) {
		select {
		case <-p.done:
			t.Fatalf("the process ended: %v\n%s", p.err, p.out)
		case <-limit:
			t.Fatalf("no %q after three minutes:\n%s", what, p.out)
		case <-tick.C:
		}
	}
}

// writeCerts makes an authority, and a certificate of it for 127.0.0.1 that
// serves and dials.
func writeCerts(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:    []string{"a", "b"}, // the names of the nodes: peers are known by them
	}
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	ca = write("ca.pem", "CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey)
	cert = write("node.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalECPrivateKey(leafKey)
	key = write("node.key", "EC PRIVATE KEY", der, err)
	return ca, cert, key
}
