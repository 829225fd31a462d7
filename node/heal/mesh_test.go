package heal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/control/controltest"
	"github.com/gridloom/gridloom/node/object"
)

// mesh is a mesh of real parts in one process: listeners on loopback, the grid
// between them, the index on every node, payload in directories. Who coordinates
// healing is the test's to say, so that it can change without anything else.
type mesh struct {
	t         testing.TB
	nodes     []*meshNode
	snapshots controltest.Snapshots

	mu   sync.Mutex // guards lead
	lead int
}

type meshNode struct {
	name    string
	url     string
	grid    *grid.Manager
	ctl     *control.Control
	objects *object.Service
	heal    *Healer
	drives  []*dataio.Drive
	server  *http.Server
	served  chan struct{}
	stopRun context.CancelFunc
	running sync.WaitGroup
	stopped bool
}

const meshSegment = 1 << 20

var meshSecret = []byte("a mesh secret of thirty-two byte")

// newMesh makes a mesh of nodes with so many drives each, in the pools named.
func newMesh(t testing.TB, drives []int, pools []string) *mesh {
	t.Helper()
	t.TempDir() // is removed after the mesh is closed
	m := &mesh{t: t}
	t.Cleanup(m.close)
	ctx := meshContext(t)
	urls := map[string]string{}
	var hosts []string
	var listeners []net.Listener
	for i := range drives {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		n := &meshNode{name: fmt.Sprintf("n%d", i), url: "http://" + l.Addr().String()}
		m.nodes, listeners, hosts = append(m.nodes, n), append(listeners, l), append(hosts, n.url)
		urls[n.name] = n.url
	}
	for i, n := range m.nodes {
		m.start(ctx, n, hosts, urls, listeners[i])
	}
	for i, n := range m.nodes {
		must(t, n.ctl.WaitReady(ctx))
		join := &control.JoinNode{Node: n.name, URL: n.url}
		if pools != nil {
			join.Pool = pools[i]
		}
		for j := range drives[i] {
			dir := filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d", n.name, j))
			must(t, os.Mkdir(dir, 0o700))
			d, err := dataio.Open(ctx, dir, dataio.Options{Deployment: n.ctl.Deployment(), Node: n.name})
			must(t, err)
			n.drives = append(n.drives, d)
			n.objects.AddDrive(d)
			join.Drives = append(join.Drives, d.ID())
		}
		_, err := n.ctl.Propose(ctx, &control.Command{JoinNode: join})
		must(t, err)
	}
	for _, n := range m.nodes {
		run, cancel := context.WithCancel(context.Background())
		n.stopRun = cancel
		n.running.Go(func() { _ = n.objects.Run(run) })
		n.running.Go(func() { _ = n.heal.Run(run) })
	}
	m.until("all drives are seen", func() bool {
		for _, n := range m.nodes {
			h := n.objects.Health()
			if len(h) != len(m.drives()) || slices.ContainsFunc(h, func(d object.DriveHealth) bool { return !d.Since.IsZero() }) {
				return false
			}
		}
		return true
	})
	_, err := m.nodes[0].objects.CreateBucket(ctx, "bucket")
	must(t, err)
	return m
}

// start makes everything of a node but its drives.
func (m *mesh) start(ctx context.Context, n *meshNode, hosts []string, urls map[string]string, l net.Listener) {
	t := m.t
	t.Helper()
	secrets := func() [][]byte { return [][]byte{meshSecret} }
	var err error
	n.grid, err = grid.NewManager(context.Background(), grid.ManagerOptions{
		Local: n.url, Hosts: hosts, Secrets: secrets, BackoffMax: 100 * time.Millisecond,
	})
	must(t, err)
	conn := func(node string) *grid.Connection { return n.grid.Connection(urls[node]) }
	dir := filepath.Join(t.TempDir(), n.name)
	must(t, os.Mkdir(dir, 0o700))
	n.ctl, err = control.Open(ctx, control.Options{Dir: dir, Self: n.name, Peers: urls, Grid: n.grid, Fetch: m.snapshots.Fetch})
	must(t, err)
	m.snapshots.Offer(n.name, n.ctl)
	n.objects, err = object.New(object.Options{
		Self: n.name, Deployment: n.ctl.Deployment, Index: n.ctl, Topology: n.ctl.Topology, Grid: n.grid, Conn: conn,
		Secrets: secrets, SegmentBytes: meshSegment, HealthEvery: 100 * time.Millisecond, WaitTimeout: 2 * time.Second,
		ReclaimGrace: 100 * time.Millisecond, ReclaimEvery: 100 * time.Millisecond, CopyGrace: 10 * time.Second,
		BadCopy: func(id dataio.ID, drive, why string) { n.heal.BadCopy(id, drive, why) },
	})
	must(t, err)
	n.heal, err = New(Options{
		Self: n.name, Index: n.ctl, Topology: n.ctl.Topology, Objects: n.objects, Grid: n.grid, Conn: conn,
		Leader: func() (string, bool) {
			name := m.nodes[m.leader()].name
			return name, name == n.name
		},
		After: 3 * time.Second, LookEvery: 100 * time.Millisecond, PendingEvery: 200 * time.Millisecond, DrainEvery: time.Second,
		SweepEvery: time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	must(t, err)
	mux := http.NewServeMux()
	mux.Handle(grid.RoutePath, n.grid.Handler())
	mux.Handle(object.BulkPath, n.objects.BulkHandler())
	n.server = &http.Server{Handler: mux}
	n.served = make(chan struct{})
	go func() {
		defer close(n.served)
		n.server.Serve(l)
	}()
}

// stop ends a node as a crash would, for the others.
func (n *meshNode) stop(t testing.TB) {
	if n.stopped {
		return
	}
	n.stopped = true
	if n.stopRun != nil {
		n.stopRun()
		n.running.Wait()
	}
	if n.server != nil {
		n.server.Close()
		<-n.served
	}
	if n.objects != nil {
		must(t, n.objects.Close())
	}
	if n.ctl != nil {
		must(t, n.ctl.Close())
	}
	if n.grid != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		n.grid.Close(ctx)
	}
	for _, d := range n.drives {
		must(t, d.Close())
	}
}

func (m *mesh) close() {
	for _, n := range slices.Backward(m.nodes) {
		n.stop(m.t)
	}
}

func (m *mesh) leader() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lead
}

func (m *mesh) elect(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lead = i
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func meshContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until waits until ok, a minute at most.
func (m *mesh) until(what string, ok func() bool) {
	m.t.Helper()
	ctx := meshContext(m.t)
	for !ok() {
		if rest(ctx, 20*time.Millisecond) != nil {
			s, err := m.nodes[m.leader()].heal.Status(context.Background())
			m.t.Fatalf("not in time: %s; %+v (%v)", what, s, err)
		}
	}
}

func (m *mesh) drives() []*dataio.Drive {
	var all []*dataio.Drive
	for _, n := range m.nodes {
		all = append(all, n.drives...)
	}
	return all
}

func (m *mesh) drive(id string) *dataio.Drive {
	for _, d := range m.drives() {
		if d.ID() == id {
			return d
		}
	}
	return nil
}

// put puts an object, and returns the hash of what is in it.
func (m *mesh) put(node int, key string, data []byte) [32]byte {
	m.t.Helper()
	req := object.PutRequest{Bucket: "bucket", Key: key, SizeBytes: int64(len(data))}
	if _, err := m.nodes[node].objects.Put(meshContext(m.t), req, bytes.NewReader(data), nil); err != nil {
		m.t.Fatalf("put %s: %v", key, err)
	}
	return sha256.Sum256(data)
}

func randomData(r *rand.Rand, n int) []byte {
	b := make([]byte, n, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:i+8:i+8+min(8, cap(b)-i-8)], r.Uint64())
	}
	return b[:n]
}

// wantAll reads all objects through a node, and compares them.
func (m *mesh) wantAll(node int, want map[string][32]byte) {
	m.t.Helper()
	for key, sum := range want {
		r, err := m.nodes[node].objects.Open(meshContext(m.t), "bucket", key, object.Conditions{}, 0)
		if err != nil {
			m.t.Fatalf("open %s: %v", key, err)
		}
		r.Verify = true
		var buf bytes.Buffer
		_, err = r.Send(meshContext(m.t), &buf, 0, -1, dataio.Windows{})
		r.Close()
		if err != nil || sha256.Sum256(buf.Bytes()) != sum {
			m.t.Fatalf("%s: %d bytes (%v), which are others than those put", key, buf.Len(), err)
		}
	}
}

// segments lists all segments.
func (m *mesh) segments() (all []control.SegmentCopies) {
	m.t.Helper()
	for after := ""; ; {
		a, err := m.nodes[m.leader()].ctl.Read(meshContext(m.t), &control.Query{Copies: &control.CopiesQuery{After: after}})
		must(m.t, err)
		if all, after = append(all, a.Copies...), a.Next; !a.More {
			return all
		}
	}
}

// wrong says what is wrong with the copies: each segment has as many as its pool
// allows for, on drives that are there and don't drain, and each is good.
func (m *mesh) wrong() string {
	m.t.Helper()
	n := m.nodes[m.leader()]
	v := newView(n.ctl.Topology(), n.objects.Health(), sight{}, 3, 3*time.Second, time.Now())
	for _, seg := range m.segments() {
		if need, _ := v.assess(&seg); need {
			return fmt.Sprintf("%s: segment %x is on %v", seg.Key, seg.ID, seg.Drives)
		}
		for _, id := range seg.Drives {
			if err := verifyFile(m.drive(id), seg); err != nil {
				return fmt.Sprintf("%s: segment %x on %s: %v", seg.Key, seg.ID, id, err)
			}
		}
	}
	a, err := n.ctl.Read(meshContext(m.t), &control.Query{Copies: &control.CopiesQuery{Pending: true}})
	must(m.t, err)
	if len(a.Copies) > 0 {
		return fmt.Sprintf("%d heal rows are left", len(a.Copies))
	}
	return ""
}

func verifyFile(d *dataio.Drive, seg control.SegmentCopies) error {
	ctx := context.Background()
	f, err := d.Open(ctx, seg.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.SizeBytes() != seg.SizeBytes || f.CRC32C() != seg.CRC32C {
		return fmt.Errorf("it has %d bytes with CRC32C %08x", f.SizeBytes(), f.CRC32C())
	}
	return f.Verify(ctx, 0, -1)
}

func (m *mesh) well() {
	m.t.Helper()
	last := ""
	m.until("all is as it should be", func() bool {
		if now := m.wrong(); now != last {
			m.t.Logf("still wrong: %s", now)
			last = now
		}
		return last == ""
	})
}

// fileOf is where a copy is.
func fileOf(d *dataio.Drive, id [16]byte) string {
	name := dataio.ID(id).String()
	return filepath.Join(d.Path(), "payload", name[:2], name)
}

// damage does something to a copy's file.
func (m *mesh) damage(r *rand.Rand, drive string, seg control.SegmentCopies) string {
	m.t.Helper()
	path := fileOf(m.drive(drive), seg.ID)
	data, err := os.ReadFile(path)
	must(m.t, err)
	how := []string{"a bit of the payload", "a bit of the footer", "its end", "all of it"}[r.IntN(4)]
	switch how {
	case "a bit of the payload":
		data[r.IntN(int(seg.SizeBytes))] ^= 1 << r.IntN(8)
	case "a bit of the footer":
		data[int(seg.SizeBytes)+r.IntN(len(data)-int(seg.SizeBytes))] ^= 1 << r.IntN(8)
	case "its end":
		data = data[:r.IntN(len(data))]
	case "all of it":
		must(m.t, os.Remove(path))
		return how
	}
	must(m.t, os.WriteFile(path, data, 0o600))
	return how
}

// files counts the payload files on a drive.
func files(t testing.TB, d *dataio.Drive) (n int) {
	t.Helper()
	must(t, d.Walk(context.Background(), func(dataio.ID, time.Time) error { n++; return nil }))
	return n
}
