package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

// secretBox is the mesh secrets of a node, which a test changes.
type secretBox struct{ now atomic.Pointer[[][]byte] }

func (b *secretBox) get() [][]byte         { return *b.now.Load() }
func (b *secretBox) set(secrets ...[]byte) { b.now.Store(&secrets) }

func newSecret(t testing.TB) []byte {
	t.Helper()
	secret, err := iam.ParseMeshSecret(iam.NewMeshSecret())
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// secured puts configurations on TLS: change says how.
func secured(configs []Config, change func(i int, c *Config)) []Config {
	var peers []Peer
	for _, p := range configs[0].Peers {
		peers = append(peers, Peer{Name: p.Name, URL: strings.Replace(p.URL, "http:", "https:", 1)})
	}
	for i := range configs {
		configs[i].Peers = peers
		change(i, &configs[i])
	}
	return configs
}

func auto(_ int, c *Config) { c.GRPC.Auto, c.HTTP.Auto, c.Peer.Auto = true, true, true }

// trusting makes a client that trusts what is in PEM, "" being nobody.
func trusting(t testing.TB, ca []byte) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// request makes one with the root key.
func request(client *http.Client, method, url string, body []byte) (int, []byte, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+testKey.String())
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

func mustRequest(t testing.TB, client *http.Client, status int, method, url string, body []byte) []byte {
	t.Helper()
	got, b, err := request(client, method, url, body)
	if err != nil || got != status {
		t.Fatalf("%s %s: %d, %v, %s; want %d", method, url, got, err, b, status)
	}
	return b
}

// TestAuto: without a certificate from anywhere all listeners speak TLS, the
// nodes trust each other, and a client needs one file of any of them.
func TestAuto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var nodes []*running
	for _, cfg := range secured(meshConfigs(t, dir, 3), auto) {
		nodes = append(nodes, runNode(t, cfg))
	}
	for _, r := range nodes {
		r.await(t)
	}
	ca, err := os.ReadFile(CAFile(nodes[0].cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	client := trusting(t, ca)
	mustRequest(t, client, http.StatusOK, http.MethodPost, nodes[0].url("/v1/buckets"), []byte(`{"bucket":"photos"}`))
	for i, size := range []int{0, 8 << 10, 200 << 10, 3 << 20} {
		body, path := randomBytes(size), fmt.Sprintf("/data/photos/%d", size)
		mustRequest(t, client, http.StatusCreated, http.MethodPut, nodes[i%3].url(path), body)
		for _, r := range nodes {
			if got := mustRequest(t, client, http.StatusOK, http.MethodGet, r.url(path), nil); !bytes.Equal(got, body) {
				t.Errorf("%d bytes through %s: other bytes came back", size, r.cfg.Name)
			}
		}
	}
	for _, r := range nodes {
		if other, err := os.ReadFile(CAFile(r.cfg.DataDir)); err != nil || !bytes.Equal(other, ca) {
			t.Errorf("%s has another authority: %v", r.cfg.Name, err)
		}
		if _, _, err := request(trusting(t, nil), http.MethodGet, r.url("/livez"), nil); err == nil {
			t.Errorf("%s is trusted by who trusts nobody", r.cfg.Name)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("gRPC with %s: %v", r.cfg.Name, err)
		}
		_ = conn.Close()
		metrics := string(mustRequest(t, client, http.StatusOK, http.MethodGet, r.url("/metrics"), nil))
		for _, listener := range []string{"grpc", "http", "peer"} {
			if !strings.Contains(metrics, `gridloom_certificate_expiry_timestamp_seconds{issuer="Gridloom mesh `) || !strings.Contains(metrics, `listener="`+listener+`"`) {
				t.Errorf("%s has no metric of the certificate at %s", r.cfg.Name, listener)
			}
		}
	}
	checkCertificates(t, mustRequest(t, client, http.StatusOK, http.MethodGet, nodes[1].url("/v1/cluster/certificates"), nil))
}

func checkCertificates(t *testing.T, reply []byte) {
	t.Helper()
	var got struct {
		Nodes []struct {
			Node, State  string
			Certificates []struct {
				Listener, Issuer    string
				Names               []string
				NotBefore, NotAfter time.Time
			}
		}
	}
	if err := json.Unmarshal(reply, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Nodes) != 3 {
		t.Fatalf("certificates of %d nodes: %s", len(got.Nodes), reply)
	}
	for _, n := range got.Nodes {
		if len(n.Certificates) != 3 || n.State != "NODE_STATE_UP" {
			t.Errorf("%s has %d certificates, state %s", n.Node, len(n.Certificates), n.State)
		}
		for _, c := range n.Certificates {
			if left := time.Until(c.NotAfter); c.Names[0] != n.Node || left < 29*24*time.Hour || left > 30*24*time.Hour || !strings.HasPrefix(c.Issuer, "Gridloom mesh ") {
				t.Errorf("%s at %s: %+v", n.Node, c.Listener, c)
			}
		}
	}
}

// TestAutoIsTurnedOff: clients on the machine don't go on using TLS with a node
// that has given it up.
func TestAutoIsTurnedOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := meshConfigs(t, dir, 1)[0]
	cfg.Peers = nil
	auto(0, &cfg)
	r := runNode(t, cfg)
	r.await(t)
	r.stop(t)
	if _, err := os.Stat(CAFile(cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	again := meshConfigs(t, dir, 1)[0]
	again.Peers = nil
	runNode(t, again).await(t)
	if _, err := os.Stat(CAFile(cfg.DataDir)); err == nil {
		t.Error("the authority is still there")
	}
}

// writeCertificate writes a certificate for a node from an authority that n
// stands for, with that authority.
func writeCertificate(t *testing.T, dir string, n byte, names ...string) (cert, key, ca string) {
	t.Helper()
	m, err := certs.NewMesh(certs.MeshOptions{Names: names, Secrets: func() [][]byte { return [][]byte{bytes.Repeat([]byte{n}, 32)} }})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cert, key, ca = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	for name, data := range map[string][]byte{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		ca:   m.PEM(),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, ca
}

// TestPeersByName: with certificates of one's own, too, a peer is who its
// certificate names, wherever it is.
func TestPeersByName(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		names [2]string // in the certificates of a and b
		from  [2]byte   // their authorities
		ready bool
	}{
		"their own names":              {[2]string{"a", "b"}, [2]byte{1, 1}, true},
		"a name that is another's":     {[2]string{"a", "a"}, [2]byte{1, 1}, false},
		"an address instead of a name": {[2]string{"a", "127.0.0.1"}, [2]byte{1, 1}, false},
		"two authorities":              {[2]string{"a", "b"}, [2]byte{1, 2}, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			configs := secured(meshConfigs(t, dir, 2), func(i int, cfg *Config) {
				cert, key, ca := writeCertificate(t, filepath.Join(dir, "tls", cfg.Name), c.from[i], c.names[i])
				cfg.Peer.CertFile, cfg.Peer.KeyFile, cfg.Peer.CAFile = cert, key, ca
			})
			a, b := runNode(t, configs[0]), runNode(t, configs[1])
			if c.ready {
				a.await(t)
				b.await(t)
				return
			}
			conns := [2]interface {
				attempts() (uint64, uint64, error)
			}{link{a, b}, link{b, a}}
			waitFor(t, "an attempt to connect", func() bool {
				x, _, _ := conns[0].attempts()
				y, _, _ := conns[1].attempts()
				return x+y >= 3
			})
			for _, conn := range conns {
				if _, sessions, err := conn.attempts(); sessions != 0 {
					t.Errorf("they are connected, %v", err)
				}
			}
		})
	}
}

// link is one node's end of its connection with another.
type link struct{ from, to *running }

func (l link) attempts() (attempts, sessions uint64, err error) {
	st := l.from.conn(l.to.cfg.Name).Stats()
	return st.DialAttempts, st.Sessions, st.LastError
}

// runSecured runs a node that makes its certificates itself, with a client that
// trusts them.
func runSecured(t *testing.T) (*running, *http.Client) {
	t.Helper()
	r := runNode(t, secured(meshConfigs(t, t.TempDir(), 1), auto)[0])
	r.await(t)
	ca, err := os.ReadFile(CAFile(r.cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	return r, trusting(t, ca)
}

// waitFor waits for a condition.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// TestCertificateIsTakenOver: a node at work shows the certificate that its
// files have now.
func TestCertificateIsTakenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := meshConfigs(t, dir, 1)[0]
	cfg.Peers = nil
	files := filepath.Join(dir, "tls")
	cfg.HTTP.CertFile, cfg.HTTP.KeyFile, _ = writeCertificate(t, files, 1, "localhost", "127.0.0.1")
	r := runNode(t, cfg)
	r.await(t)
	issuer := func() string {
		conn, err := tls.Dial("tcp", r.Addrs().HTTP, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Issuer.CommonName
	}
	before := issuer()
	writeCertificate(t, files, 2, "localhost", "127.0.0.1")
	waitFor(t, "the new certificate", func() bool { return issuer() != before })
}

// cutListener can end every connection that it has accepted.
type cutListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *cutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

func (l *cutListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}
