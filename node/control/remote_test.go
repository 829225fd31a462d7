package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
	"github.com/gridloom/gridloom/node/fault"
)

// mesh is nodes a, b, … on a grid in memory; a holds the index.
type mesh struct {
	*gridtest.Mesh
	t     *testing.T
	disks []vfs.FS
}

func newMesh(t *testing.T, n int, change func(i int, o *grid.ManagerOptions)) *mesh {
	m := &mesh{Mesh: gridtest.New(t, n, change), t: t}
	for range n {
		m.disks = append(m.disks, vfs.NewMem())
	}
	return m
}

func (m *mesh) name(i int) string { return string(rune('a' + i)) }

// options are those of node i, with its own disk.
func (m *mesh) options(i int) Options {
	o := Options{Self: m.name(i), Grid: m.Node(i), fs: m.disks[i]}
	for j := range m.disks {
		o.Peers = append(o.Peers, m.name(j))
	}
	o.Conn = func(node string) *grid.Connection { return m.Connection(i, int(node[0]-'a')) }
	return o
}

// open opens node i; it is closed with the test, or before by close.
func (m *mesh) open(i int, change func(*Options)) *Control {
	m.t.Helper()
	o := m.options(i)
	if change != nil {
		change(&o)
	}
	c, err := Open(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { m.close(c) })
	return c
}

func (m *mesh) close(c *Control) {
	m.t.Helper()
	if err := c.Close(); err != nil {
		m.t.Error(err)
	}
}

func ready(t *testing.T, c *Control) {
	t.Helper()
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Everything that works on the owner works from elsewhere, with the same
// results and the same errors.
func TestRemote(t *testing.T) {
	m := newMesh(t, 2, nil)
	a, b := m.open(0, nil), m.open(1, nil)
	ready(t, b)
	if a.Deployment() == "" || a.Deployment() != b.Deployment() {
		t.Fatalf("mesh %q and %q", a.Deployment(), b.Deployment())
	}
	bucket := createBucket(t, b, "photos")
	for _, x := range []Index{a, b} {
		_, err := x.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "photos"}})
		var fe *fault.Error
		if !errors.As(err, &fe) || fe.Kind != fault.AlreadyExists || fe.Subject != `bucket "photos"` || fe.Detail != "exists already" || !Refused(err) {
			t.Errorf("%T: %v", x, err)
		}
		if _, err := x.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "photos", Key: "k"}}); fault.KindOf(err) != fault.ObjectNotFound || err.Error() != `object "photos/k": doesn't exist` {
			t.Errorf("%T: %v", x, err)
		}
		for _, bad := range []*Command{{}, {DeleteBucket: &DeleteBucket{}}, {Init: &Init{Deployment: uuid.NewString()}}} {
			if _, err := x.Propose(t.Context(), bad); fault.KindOf(err) != fault.InvalidArgument {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	}
	res, err := b.Propose(t.Context(), putOf(bucket, "k", "etag"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []Index{a, b} {
		got, err := x.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "photos", Key: "k"}})
		if err != nil || got.Record.LogTime != res.Record.LogTime || string(got.Record.Inline) != "etag" {
			t.Errorf("%+v, %v; put as %+v", got, err, res.Record)
		}
	}
	list, err := b.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "photos", Delimiter: "/"}})
	if err != nil || len(list.Records) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	del, err := b.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: "photos", Keys: []string{"x", "k"}}})
	if err != nil || len(del.Deleted) != 1 || del.Deleted[0] != "k" || len(del.Missing) != 1 || del.Missing[0] != "x" {
		t.Errorf("%+v, %v", del, err)
	}
}

// A command over real sockets, as nodes have them.
func TestRemoteOverSockets(t *testing.T) {
	var listeners []net.Listener
	var hosts []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		hosts = append(hosts, "http://"+l.Addr().String())
	}
	var nodes []*Control
	for i, name := range []string{"a", "b"} {
		var self atomic.Pointer[Control]
		manager, err := grid.NewManager(t.Context(), grid.ManagerOptions{
			Local: hosts[i], Hosts: hosts,
			Secrets: func() [][]byte { return [][]byte{[]byte("a secret of this test alone")} },
			Realm: func() string {
				if c := self.Load(); c != nil {
					return c.Deployment()
				}
				return ""
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(grid.RoutePath, manager.Handler())
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(listeners[i]) })
		c, err := Open(t.Context(), Options{
			Dir: t.TempDir(), Self: name, Peers: []string{"a", "b"}, Grid: manager,
			Conn: func(node string) *grid.Connection { return manager.Connection(hosts[node[0]-'a']) },
		})
		if err != nil {
			t.Fatal(err)
		}
		self.Store(c)
		nodes = append(nodes, c)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := errors.Join(c.Close(), manager.Close(ctx), server.Close()); err != nil {
				t.Error(err)
			}
			served.Wait()
		})
	}
	ready(t, nodes[1])
	bucket := createBucket(t, nodes[1], "b")
	cmd := putOf(bucket, "k", "e")
	cmd.PutRecord.Record.Inline = bytes.Repeat([]byte("x"), MaxInlineBytes)
	cmd.PutRecord.Record.SizeBytes = MaxInlineBytes
	if _, err := nodes[1].Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	a, err := nodes[1].Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "k"}})
	if err != nil || len(a.Record.Inline) != MaxInlineBytes {
		t.Errorf("%v", err)
	}
	if nodes[0].Deployment() != nodes[1].Deployment() {
		t.Error("two meshes")
	}
}

// A node that joins is seen by all others, soon and without their asking.
func TestTopologySpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 3, nil)
		a, b, c := m.open(0, nil), m.open(1, nil), m.open(2, nil)
		ready(t, b)
		ready(t, c)
		before := c.Topology()
		join := &Command{JoinNode: &JoinNode{Node: "b", URL: "http://b:7402", Drives: []string{"d2", "d1"}}}
		for i := range 2 {
			res, err := b.Propose(t.Context(), join)
			if err != nil || res.Epoch != 1 {
				t.Fatalf("join %d: %+v, %v", i, res, err)
			}
		}
		synctest.Wait()
		for _, x := range []*Control{a, b} {
			top := x.Topology()
			if top.Epoch != 1 || len(top.Nodes) != 1 || top.Nodes[0].Name != "b" || top.Nodes[0].Drives[0] != "d1" {
				t.Errorf("node %s sees %+v", x.self, top)
			}
		}
		// c has had no reason to ask yet; its interval tells it.
		time.Sleep(followInterval)
		synctest.Wait()
		if top := c.Topology(); top.Epoch != 1 {
			t.Errorf("node c sees %+v", top)
		}
		if before.Epoch != 0 || len(before.Nodes) != 0 {
			t.Errorf("a view has changed under its reader: %+v", before)
		}
		// Any answer that speaks of a newer epoch tells it too.
		join.JoinNode.URL = "http://b:1"
		if _, err := a.Propose(t.Context(), join); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(t.Context(), &Query{Deployment: &DeploymentQuery{}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if top := c.Topology(); top.Epoch != 2 || top.Nodes[0].URL != "http://b:1" {
			t.Errorf("node c sees %+v", top)
		}
	})
}

// lines collects log lines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

// Calls wait ten seconds for an owner that isn't there, or as long as their
// deadline allows, then name it; the log has one line for all of them.
func TestWaitingForTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 2, nil)
		m.Cut(0, 1)
		log := &lines{}
		b := m.open(1, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for _, tc := range []struct {
			ctx  context.Context
			want time.Duration
		}{{t.Context(), 10 * time.Second}, {short, 3 * time.Second}} {
			for _, call := range []func() error{
				func() error { _, err := b.Read(tc.ctx, &Query{Topology: &TopologyQuery{}}); return err },
				func() error {
					_, err := b.Propose(tc.ctx, &Command{CreateBucket: &CreateBucket{Name: "b"}})
					return err
				},
			} {
				wg.Go(func() {
					begun := time.Now()
					err := call()
					var fe *fault.Error
					if !errors.As(err, &fe) || fe.Kind != fault.Waiting || fe.Subject != "node a" || fe.RetryAfter() != time.Second {
						t.Errorf("%v", err)
					}
					if took := time.Since(begun); took != tc.want {
						t.Errorf("waited for %v, want %v", took, tc.want)
					}
				})
			}
		}
		wg.Wait()
		if err := b.Ready(); fault.KindOf(err) != fault.Waiting || !strings.Contains(err.Error(), "node a") {
			t.Errorf("ready: %v", err)
		}
		if n := log.count("waiting for the node that holds the index"); n != 1 {
			t.Errorf("%d log lines", n)
		}
		// A node that is there without its index is waited for no longer.
		m.Heal(0, 1)
		if err := m.Connection(1, 0).WaitConnected(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err := b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}})
		if took := time.Since(begun); fault.KindOf(err) != fault.Waiting || took < patience-retryMax || took > patience {
			t.Errorf("%v after %v", err, took)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, err := b.Read(gone, &Query{Topology: &TopologyQuery{}}); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left: %v", err)
		}
		m.close(b)
	})
}

// What waited is served when the owner comes up, without a restart, whether
// it was the network that was missing, the node, or only its index.
func TestLateOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 2, nil)
		m.Cut(0, 1)
		log := &lines{}
		b := m.open(1, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		served := make(chan error, 1)
		go func() {
			_, err := b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}})
			served <- err
		}()
		time.Sleep(2 * time.Second)
		m.Heal(0, 1)
		time.Sleep(3 * time.Second) // connected, and nobody answers
		synctest.Wait()
		if b.Deployment() != "" || b.Ready() == nil {
			t.Error("ready without an owner")
		}
		opened := time.Now()
		a := m.open(0, nil)
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		ready(t, b)
		if took := time.Since(opened); took > 3*time.Second {
			t.Errorf("served %v after the owner came up", took)
		}
		if a.Deployment() != b.Deployment() {
			t.Error("two meshes")
		}
		if waits, ends := log.count("waiting for the node"), log.count("is there"); waits != 1 || ends != 1 {
			t.Errorf("%d lines say that the owner is waited for, %d that it is there", waits, ends)
		}
		m.close(b)
		m.close(a)
	})
}

// The connection is lost after the owner has committed and before its answer
// arrives: the retry has the same request id, so the command is carried out
// once, and its caller learns what it came to.
func TestRetryAfterLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 2, nil)
		var armed atomic.Bool
		var lost atomic.Int64
		a := m.open(0, func(o *Options) {
			o.Hooks.Committed = func(int, int, time.Duration) {
				if armed.Swap(false) {
					lost.Add(1)
					m.Reset(0, 1)
				}
			}
		})
		b := m.open(1, nil)
		ready(t, b)
		for i := range 20 {
			armed.Store(true)
			createBucket(t, b, fmt.Sprint("bucket-", i)) // AlreadyExists if it were carried out twice
		}
		if lost.Load() != 20 {
			t.Errorf("%d answers were lost", lost.Load())
		}
		list, err := b.Read(t.Context(), &Query{Buckets: &BucketsQuery{}})
		if err != nil || len(list.Buckets) != 20 {
			t.Errorf("%d buckets, %v", len(list.Buckets), err)
		}
		// An owner that doesn't come back leaves the outcome open, and the
		// error says so.
		a.local.hooks = Hooks{} // no command is on its way
		_, err = func() (*Result, error) {
			time.AfterFunc(time.Second, func() { m.Cut(0, 1) })
			m.Blackhole(0, 1)
			return b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "open"}})
		}()
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "whether it was carried out isn't known") {
			t.Errorf("%v", err)
		}
		m.close(b)
		m.close(a)
	})
}

// The owner's restart is a pause for the others, and no more.
func TestOwnerRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 2, nil)
		a, b := m.open(0, nil), m.open(1, nil)
		ready(t, b)
		id := b.Deployment()
		done := make(chan error, 1)
		stop := make(chan struct{})
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if _, err := b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: fmt.Sprint("b", i)}}); err != nil {
					done <- err
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for range 3 {
			time.Sleep(time.Second)
			m.close(a)
			m.Restart(0)
			time.Sleep(time.Second)
			a = m.open(0, nil)
			if a.Deployment() != id {
				t.Fatalf("mesh %s came back as %s", id, a.Deployment())
			}
		}
		time.Sleep(5 * time.Second)
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
		ready(t, b)
		m.close(b)
		m.close(a)
	})
}

// A node that is asked for an index it doesn't have says so at once: the two
// lists of nodes differ.
func TestAskingTheWrongNode(t *testing.T) {
	m := newMesh(t, 3, nil)
	b := m.open(1, nil) // of a, b, c: it takes a for the owner
	c := m.open(2, func(o *Options) { o.Peers = []string{"b", "c"} })
	if err := m.Connection(2, 1).WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(t.Context(), &Query{Topology: &TopologyQuery{}})
	if fault.KindOf(err) != fault.Conflict || err.Error() != "peers: node b was asked for the index, and by its own list of nodes it is on a" {
		t.Error(err)
	}
	m.close(b)
}
