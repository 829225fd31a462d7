package object

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/control/controltest"
	"github.com/gridloom/gridloom/node/fault"
)

// testMesh is a mesh of real parts in one process: listeners on loopback, the
// grid between them, the index on the first node, drives in directories.
type testMesh struct {
	snapshots controltest.Snapshots
	t         testing.TB
	nodes     []*testNode
}

type testNode struct {
	name string
	url  string
	*Service
	grid     *grid.Manager
	ctl      *control.Control
	drives   []*dataio.Drive
	server   *http.Server
	served   chan struct{}
	stopped  bool
	recorded recorder
}

// meshConfig changes how a mesh is made. The zero value is three nodes with
// two drives each.
type meshConfig struct {
	drives  []int                              // per node
	options func(node int, o *Options)         // of the service
	drive   func(node int) dataio.Options      // ReserveBytes, Interceptor
	place   func(node int) (pool, zone string) // where it joins; nil: "", ""
	index   func(control.Index) control.Index  // wraps node 0's
	dir     string                             // for everything on disk; "" is the test's own
	tls     *tls.Config                        // of both ends; nil: plaintext and secrets
}

func (c *meshConfig) directory(t testing.TB, name string) string {
	dir := filepath.Join(c.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

const testSegment = 1 << 20

var testSecret = []byte("a mesh secret of thirty-two byte")

func newMesh(t testing.TB, c meshConfig) *testMesh {
	t.Helper()
	if c.drives == nil {
		c.drives = []int{2, 2, 2}
	}
	m := &testMesh{t: t}
	ctx := testContext(t)
	var listeners []net.Listener
	var hosts []string
	urls := map[string]string{}
	for i := range c.drives {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		scheme := "http"
		if c.tls != nil {
			scheme = "https"
		}
		n := &testNode{name: fmt.Sprintf("n%d", i), url: scheme + "://" + l.Addr().String()}
		m.nodes = append(m.nodes, n)
		listeners, hosts = append(listeners, l), append(hosts, n.url)
		urls[n.name] = n.url
	}
	if c.dir == "" {
		c.dir = t.TempDir() // removed after the mesh is closed
	}
	t.Cleanup(m.close)
	for i, n := range m.nodes {
		m.start(ctx, c, i, n, hosts, urls, listeners[i])
	}
	for i, n := range m.nodes {
		m.form(ctx, c, i, n)
	}
	for _, n := range m.nodes {
		for name, url := range urls {
			if name != n.name {
				if err := n.grid.Connection(url).WaitConnected(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Everybody knows everybody's drives before a test begins.
		for n.usable() < len(m.drives()) {
			if _, err := n.ctl.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}}); err != nil {
				t.Fatal(err)
			}
			if err := pause(ctx); err != nil {
				t.Fatal("not every node came to know every drive")
			}
		}
	}
	return m
}

// usable is how many drives a node would put payload on.
func (n *testNode) usable() (drives int) {
	for _, p := range n.pools(n.ctl.Topology(), 0) {
		drives += len(p.found)
	}
	return drives
}

// start makes everything of a node but its drives.
func (m *testMesh) start(ctx context.Context, c meshConfig, i int, n *testNode, hosts []string, urls map[string]string, l net.Listener) {
	t := m.t
	t.Helper()
	secrets := func() [][]byte { return [][]byte{testSecret} }
	if c.tls != nil {
		secrets = nil
	}
	var err error
	n.grid, err = grid.NewManager(context.Background(), grid.ManagerOptions{
		Local: n.url, Hosts: hosts, Secrets: secrets, TLS: c.tls, BackoffMax: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := func(node string) *grid.Connection { return n.grid.Connection(urls[node]) }
	n.ctl, err = control.Open(ctx, control.Options{
		Dir: c.directory(t, n.name), Self: n.name, Peers: urls, Grid: n.grid, Fetch: m.snapshots.Fetch,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.snapshots.Offer(n.name, n.ctl)
	o := Options{
		Self: n.name, Deployment: n.ctl.Deployment, Index: n.ctl, Topology: n.ctl.Topology,
		Grid: n.grid, Conn: conn, Secrets: secrets, TLS: c.tls, SegmentBytes: testSegment,
		CopyGrace: 20 * time.Second, // so that a busy machine doesn't decide how many copies there are
		Hooks:     n.recorded.hooks(),
	}
	if c.index != nil && i == 0 {
		o.Index = c.index(n.ctl)
	}
	if c.options != nil {
		c.options(i, &o)
	}
	if n.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	n.chunks.New = func() any {
		c := &chunk{home: &n.chunks}
		n.recorded.mu.Lock()
		defer n.recorded.mu.Unlock()
		n.recorded.chunks = append(n.recorded.chunks, c)
		return c
	}
	mux := http.NewServeMux()
	mux.Handle(grid.RoutePath, n.grid.Handler())
	mux.Handle(BulkPath, n.BulkHandler())
	n.server = &http.Server{Handler: mux, TLSConfig: c.tls.Clone()}
	n.served = make(chan struct{})
	go func() {
		defer close(n.served)
		if c.tls != nil {
			n.server.ServeTLS(l, "", "")
		} else {
			n.server.Serve(l)
		}
	}()
}

// form opens a node's drives and has them known.
func (m *testMesh) form(ctx context.Context, c meshConfig, i int, n *testNode) {
	t := m.t
	t.Helper()
	if err := n.ctl.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	join := &control.JoinNode{Node: n.name, URL: n.url}
	if c.place != nil {
		join.Pool, join.Zone = c.place(i)
	}
	for j := range c.drives[i] {
		o := dataio.Options{}
		if c.drive != nil {
			o = c.drive(i)
		}
		o.Deployment, o.Node = n.ctl.Deployment(), n.name
		d, err := dataio.Open(ctx, c.directory(t, fmt.Sprintf("%s-drive-%d", n.name, j)), o)
		if err != nil {
			t.Fatal(err)
		}
		n.drives = append(n.drives, d)
		n.AddDrive(d)
		join.Drives = append(join.Drives, d.ID())
	}
	if _, err := n.ctl.Propose(ctx, &control.Command{JoinNode: join}); err != nil {
		t.Fatal(err)
	}
}

// stop ends a node as a crash would, for the others.
func (n *testNode) stop(t testing.TB) {
	if n.stopped {
		return
	}
	n.stopped = true
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n.server != nil {
		n.server.Close()
		<-n.served
	}
	if n.Service != nil {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if open, _ := n.recorded.conns(); open != 0 {
			t.Errorf("%s: %d bulk connections are still open", n.name, open)
		}
	}
	if n.ctl != nil {
		if err := n.ctl.Close(); err != nil {
			t.Error(err)
		}
	}
	if n.grid != nil {
		n.grid.Close(ctx)
	}
	for _, d := range n.drives {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (m *testMesh) close() {
	for _, n := range slices.Backward(m.nodes) {
		n.stop(m.t)
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (m *testMesh) drives() []*dataio.Drive {
	var all []*dataio.Drive
	for _, n := range m.nodes {
		all = append(all, n.drives...)
	}
	return all
}

// files lists the payload files on all drives, whatever is in them.
func (m *testMesh) files() []string {
	m.t.Helper()
	var all []string
	for _, d := range m.drives() {
		err := filepath.WalkDir(filepath.Join(d.Path(), "payload"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return all
}

// copies is how many files each segment has.
func (m *testMesh) copies() int { return min(m.nodes[0].o.Replicas, len(m.drives())) }

// wantFiles checks how many payload files there are. What a peer was at when
// an upload was cut off may take a moment to go.
func (m *testMesh) wantFiles(n int) {
	m.t.Helper()
	ctx := testContext(m.t)
	for {
		files := m.files()
		if len(files) == n {
			return
		}
		if pause(ctx) != nil {
			m.t.Fatalf("%d payload files, want %d: %v", len(files), n, files[:min(len(files), 10)])
		}
	}
}

func (m *testMesh) bucket(name string) {
	m.t.Helper()
	if _, err := m.nodes[0].CreateBucket(testContext(m.t), name); err != nil {
		m.t.Fatal(err)
	}
}

// randomBytes are the same for the same size, and differ between sizes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	r.Read(b)
	return b
}

func shaHex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// put stores bytes, which must succeed.
func (n *testNode) put(t testing.TB, bucket, key string, data []byte, known bool) *Info {
	t.Helper()
	req := PutRequest{Bucket: bucket, Key: key, SizeBytes: -1}
	if known {
		req.SizeBytes = int64(len(data))
	}
	info, err := n.Put(testContext(t), req, bytes.NewReader(data), nil)
	if err != nil {
		t.Fatalf("put %s/%s of %d bytes: %v", bucket, key, len(data), err)
	}
	return info
}

// get reads a range into memory; off -1 is all.
func (n *testNode) get(t testing.TB, bucket, key string, off, length int64) []byte {
	t.Helper()
	data, err := n.read(testContext(t), bucket, key, off, length)
	if err != nil {
		t.Fatalf("%s: get %s/%s: %v", n.name, bucket, key, err)
	}
	return data
}

func (n *testNode) read(ctx context.Context, bucket, key string, off, length int64) ([]byte, error) {
	r, err := n.Open(ctx, bucket, key, Conditions{}, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if off < 0 {
		off, length = 0, -1
	}
	return receive(ctx, r, off, length)
}

// receive has a Reader send to memory.
func receive(ctx context.Context, r *Reader, off, length int64) ([]byte, error) {
	// Memory that grows is what the race detector takes longest for.
	buf := bytes.NewBuffer(make([]byte, 0, r.record.SizeBytes+bytes.MinRead))
	sent, err := r.Send(ctx, buf, off, length, dataio.Windows{})
	if sent != int64(buf.Len()) {
		return nil, fmt.Errorf("Send says %d bytes, and wrote %d (%w)", sent, buf.Len(), err)
	}
	return buf.Bytes(), err
}

// wantGone checks that there is no such object.
func (n *testNode) wantGone(t testing.TB, bucket, key string) {
	t.Helper()
	if _, err := n.Stat(testContext(t), bucket, key, Conditions{}, 0); fault.KindOf(err) != fault.ObjectNotFound {
		t.Fatalf("%s/%s: %v, want object_not_found", bucket, key, err)
	}
}

// unread is a body that must not be read.
type unread struct{ t testing.TB }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// spell makes a key of a test's name.
func spell(name string) string { return strings.NewReplacer(" ", "-", "#", "").Replace(name) }

// Index is the index as the service sees it.
func (n *testNode) Index() control.Index { return n.o.Index }
