package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gridloom/gridloom/node/iam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a node that runs until stop.
type running struct {
	*Node
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run; read after done
	once   sync.Once
}

// stop ends the node and gives everything back.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.once.Do(func() {
		r.cancel()
		<-r.done
		if r.err != nil {
			t.Fatalf("Run of %s: %v", r.cfg.Name, r.err)
		}
		if err := r.Close(); err != nil {
			t.Fatalf("Close of %s: %v", r.cfg.Name, err)
		}
	})
}

func (r *running) url(path string) string {
	return r.httpListener.scheme() + "://" + r.Addrs().HTTP + path
}

// runNode starts a node that is expected to open.
func runNode(t testing.TB, cfg Config) *running {
	t.Helper()
	n, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return run(t, n)
}

// run runs a node that is open.
func run(t testing.TB, n *Node) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, cancel: cancel, done: make(chan struct{})}
	go func() {
		r.err = n.Run(ctx)
		close(r.done)
	}()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// await waits for the node to be ready.
func (r *running) await(t testing.TB) {
	t.Helper()
	select {
	case <-r.Ready():
	case <-r.done:
		t.Fatalf("Run of %s ended: %v", r.cfg.Name, r.err)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s is not ready after 30 s: %v", r.cfg.Name, r.state())
	}
}

var testKey = iam.Generate("root")

// meshConfigs makes the configurations of n nodes, a, b, c …, that know each
// other. Their listeners are open already.
func meshConfigs(t testing.TB, dir string, n int) []Config {
	t.Helper()
	secret, err := iam.ParseMeshSecret(iam.NewMeshSecret())
	if err != nil {
		t.Fatal(err)
	}
	configs := make([]Config, n)
	var peers []Peer
	for i := range configs {
		name := string(rune('a' + i))
		peer := openListener(t)
		peers = append(peers, Peer{Name: name, URL: "http://" + peer.Addr().String()})
		configs[i] = Config{
			Name:        name,
			DataDir:     filepath.Join(dir, name, "data"),
			Drives:      []string{filepath.Join(dir, name, "drive1"), filepath.Join(dir, name, "drive2")},
			GRPC:        ListenerConfig{Listener: openListener(t)},
			HTTP:        ListenerConfig{Listener: openListener(t)},
			Peer:        ListenerConfig{Listener: peer},
			RootKeys:    rootKeys(testKey),
			MeshSecrets: func() [][]byte { return [][]byte{secret} },
			Version:     "test",
		}
	}
	for i := range configs {
		configs[i].Peers = peers
	}
	return configs
}

func rootKeys(keys ...iam.Credential) func() []iam.Credential {
	return func() []iam.Credential { return keys }
}

func openListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// startMesh starts n nodes and waits until all are ready.
func startMesh(t testing.TB, dir string, n int) []*running {
	t.Helper()
	return startNodes(t, meshConfigs(t, dir, n))
}

// startNodes starts nodes and waits for them.
func startNodes(t testing.TB, cfgs []Config) []*running {
	t.Helper()
	var nodes []*running
	for _, cfg := range cfgs {
		nodes = append(nodes, runNode(t, cfg))
	}
	for _, r := range nodes {
		r.await(t)
	}
	return nodes
}

// call makes one HTTP request with the root key on a connection of its own.
func call(t testing.TB, method, url string, body io.Reader, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey.String())
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// expect is call for an answer that must have this status.
func expect(t testing.TB, status int, method, url string, body io.Reader, header ...string) []byte {
	t.Helper()
	resp, b := call(t, method, url, body, header...)
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d\n%s", method, url, resp.Status, status, b)
	}
	return b
}

func makeBucket(t testing.TB, r *running, name string) {
	t.Helper()
	expect(t, http.StatusOK, http.MethodPost, r.url("/v1/buckets"), bytes.NewBufferString(fmt.Sprintf(`{"bucket":%q}`, name)))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// TestPutOneGetAnother is the main job, at the sizes where the way changes:
// inline, over the grid, over the bulk port.
func TestPutOneGetAnother(t *testing.T) {
	nodes := startMesh(t, t.TempDir(), 3)
	makeBucket(t, nodes[1], "photos")
	for i, size := range []int{0, 1, 8 << 10, 8<<10 + 1, 200 << 10, 3 << 20} {
		body := randomBytes(size)
		path := fmt.Sprintf("/data/photos/size/%d", size)
		expect(t, http.StatusCreated, http.MethodPut, nodes[i%3].url(path), bytes.NewReader(body))
		for _, r := range nodes {
			if got := expect(t, http.StatusOK, http.MethodGet, r.url(path), nil); !bytes.Equal(got, body) {
				t.Errorf("%d bytes through %s: other bytes came back", size, r.cfg.Name)
			}
			if size > 10 {
				got := expect(t, http.StatusPartialContent, http.MethodGet, r.url(path), nil, "Range", "bytes=3-9")
				if !bytes.Equal(got, body[3:10]) {
					t.Errorf("a range of %d bytes through %s: other bytes came back", size, r.cfg.Name)
				}
			}
		}
	}
}

// TestSurvivesRestart starts the same mesh again on its directories, with other
// ports: names are identities, addresses are not.
func TestSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	nodes := startMesh(t, dir, 3)
	makeBucket(t, nodes[0], "kept")
	body := randomBytes(300 << 10)
	expect(t, http.StatusCreated, http.MethodPut, nodes[0].url("/data/kept/it"), bytes.NewReader(body))
	deployment := nodes[0].control.Deployment()
	for _, r := range nodes {
		r.stop(t)
	}
	nodes = startMesh(t, dir, 3)
	for _, r := range nodes {
		if got := r.control.Deployment(); got != deployment {
			t.Errorf("deployment of %s: %s, before the restart %s", r.cfg.Name, got, deployment)
		}
		if got := expect(t, http.StatusOK, http.MethodGet, r.url("/data/kept/it"), nil); !bytes.Equal(got, body) {
			t.Errorf("through %s other bytes came back", r.cfg.Name)
		}
	}
}

// TestWaitsForTheIndex starts the node without the index first: it answers, says
// what it waits for, and a request that came early is served when the owner
// comes up, without a restart.
func TestWaitsForTheIndex(t *testing.T) {
	configs := meshConfigs(t, t.TempDir(), 2)
	late := runNode(t, configs[1])
	expect(t, http.StatusOK, http.MethodGet, late.url("/livez"), nil)
	if b := expect(t, http.StatusServiceUnavailable, http.MethodGet, late.url("/readyz"), nil); !bytes.Contains(b, []byte("node a")) {
		t.Errorf("/readyz does not say that it waits for node a: %s", b)
	}
	early := make(chan struct {
		status int
		err    error
	}, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodGet, late.url("/v1/buckets"), nil)
		req.Header.Set("Authorization", "Bearer "+testKey.String())
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		status := 0
		if err == nil {
			status = resp.StatusCode
			_ = resp.Body.Close()
		}
		early <- struct {
			status int
			err    error
		}{status, err}
	}()
	owner := runNode(t, configs[0])
	owner.await(t)
	late.await(t)
	if got := <-early; got.err != nil || got.status != http.StatusOK {
		t.Errorf("the request that came early: status %d, error %v", got.status, got.err)
	}
	expect(t, http.StatusOK, http.MethodGet, late.url("/readyz"), nil)
}

// TestSaysWhatIsMissing asks a node whose index never comes, with little time.
func TestSaysWhatIsMissing(t *testing.T) {
	configs := meshConfigs(t, t.TempDir(), 2)
	lonely := runNode(t, configs[1])
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := lonely.waitReady(ctx)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("node a")) {
		t.Errorf("the error does not name what is missing: %v", err)
	}
}

// TestOpenRefuses gives Open what it must refuse, naming the thing.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	cfg := meshConfigs(t, dir, 1)[0]
	first := runNode(t, cfg)
	first.await(t)

	t.Run("a second process on the data directory", func(t *testing.T) {
		second := meshConfigs(t, t.TempDir(), 1)[0]
		second.DataDir = cfg.DataDir
		refused(t, second, "DataDir", cfg.DataDir)
	})
	t.Run("a port in use", func(t *testing.T) {
		second := meshConfigs(t, t.TempDir(), 1)[0]
		second.HTTP = ListenerConfig{Addr: first.Addrs().HTTP}
		refused(t, second, "HTTP.Addr", first.Addrs().HTTP)
	})
	t.Run("a certificate that is not there", func(t *testing.T) {
		second := meshConfigs(t, t.TempDir(), 1)[0]
		second.GRPC.CertFile, second.GRPC.KeyFile = "missing.pem", "missing.key"
		refused(t, second, "GRPC.CertFile", "missing.pem")
	})
}

func refused(t *testing.T, cfg Config, field, names string) {
	t.Helper()
	n, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		_ = n.Close()
		t.Fatal("it opened")
	}
	var ce *ConfigError
	if !errors.As(err, &ce) || ce.Field != field {
		t.Errorf("want an error in field %s, got %v", field, err)
	}
	if !bytes.Contains([]byte(err.Error()), []byte(names)) {
		t.Errorf("the error does not name %s: %v", names, err)
	}
}

// TestForeignDrive gives a node of one mesh the drive of another.
func TestForeignDrive(t *testing.T) {
	dir := t.TempDir()
	first := startMesh(t, dir, 1)[0]
	first.stop(t)
	other := meshConfigs(t, t.TempDir(), 1)[0]
	other.Drives = first.cfg.Drives[:1]
	n, err := Open(t.Context(), other, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = n.Run(t.Context())
	if cerr := n.Close(); cerr != nil {
		t.Error(cerr)
	}
	var ce *ConfigError
	if !errors.As(err, &ce) || ce.Field != "Drives" || !bytes.Contains([]byte(err.Error()), []byte(other.Drives[0])) {
		t.Errorf("want a refusal that names the drive, got %v", err)
	}
}

// TestReadinessIsWithdrawn stops the node with the index under another, which
// says so, and is ready again when the index is back.
func TestReadinessIsWithdrawn(t *testing.T) {
	configs := meshConfigs(t, t.TempDir(), 2)
	owner, other := runNode(t, configs[0]), runNode(t, configs[1])
	owner.await(t)
	other.await(t)
	conn, err := grpc.NewClient(other.Addrs().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	agree := func(want healthpb.HealthCheckResponse_ServingStatus, ready int) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for limit := time.After(20 * time.Second); ; {
			resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			status, body := call(t, http.MethodGet, other.url("/readyz"), nil)
			if resp.Status == want && status.StatusCode == ready {
				return
			}
			select {
			case <-limit:
				t.Fatalf("gRPC says %s and /readyz %s (%s), want %s and %d", resp.Status, status.Status, body, want, ready)
			case <-tick.C:
			}
		}
	}
	agree(healthpb.HealthCheckResponse_SERVING, http.StatusOK)
	owner.stop(t)
	agree(healthpb.HealthCheckResponse_NOT_SERVING, http.StatusServiceUnavailable)
	peer, err := url.Parse(configs[0].Peers[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	configs[0].GRPC, configs[0].HTTP = ListenerConfig{Listener: openListener(t)}, ListenerConfig{Listener: openListener(t)}
	configs[0].Peer = ListenerConfig{Addr: peer.Host}
	runNode(t, configs[0]).await(t)
	agree(healthpb.HealthCheckResponse_SERVING, http.StatusOK)
}
