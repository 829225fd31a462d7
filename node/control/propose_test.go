package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// Everything that works on one node works on every other, with the same results
// and the same errors: on the leader, a follower, and a node without a copy of
// the records.
func TestEveryNode(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		if m.node(3).hosts(dataGroup) {
			t.Fatal("the fourth node has a copy of the records")
		}
		for _, c := range m.running() {
			checkEverything(t, m, c)
		}
		m.agree()
	})
}

// checkEverything does everything once by way of c, and looks by way of all.
func checkEverything(t *testing.T, m *mesh, c *Control) {
	t.Helper()
	name := "photos-" + c.self
	bucket := createBucket(t, c, name)
	res, err := c.Propose(t.Context(), putOf(bucket, "k", "etag"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range m.running() {
		_, err := x.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: name}})
		var fe *fault.Error
		if !errors.As(err, &fe) || fe.Kind != fault.AlreadyExists || fe.Subject != fmt.Sprintf("bucket %q", name) || fe.Detail != "exists already" || !Refused(err) {
			t.Errorf("%s: %v", x.self, err)
		}
		if _, err := x.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: name, Key: "x"}}); fault.KindOf(err) != fault.ObjectNotFound {
			t.Errorf("%s: %v", x.self, err)
		}
		for _, bad := range []*Command{{}, {DeleteBucket: &DeleteBucket{}}, {Init: &Init{Deployment: uuid.NewString()}}} {
			if _, err := x.Propose(t.Context(), bad); fault.KindOf(err) != fault.InvalidArgument {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		got, err := x.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: name, Key: "k"}})
		if err != nil || got.Record.LogTime != res.Record.LogTime || string(got.Record.Inline) != "etag" || got.Bucket.ID != bucket.ID {
			t.Errorf("%+v, %v; put as %+v", got, err, res.Record)
		}
		list, err := x.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: name, Delimiter: "/"}})
		if err != nil || len(list.Records) != 1 || list.Bucket.ID != bucket.ID {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := x.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: name}}); fault.KindOf(err) != fault.BucketNotEmpty {
			t.Errorf("%s: deleting a bucket with a record: %v", x.self, err)
		}
	}
	del, err := c.Propose(t.Context(), &Command{DeleteRecords: &DeleteRecords{Bucket: name, Keys: []string{"x", "k"}}})
	if err != nil || len(del.Deleted) != 1 || del.Deleted[0] != "k" || len(del.Missing) != 1 || del.Missing[0] != "x" {
		t.Errorf("%+v, %v", del, err)
	}
	if _, err := c.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: name}}); err != nil {
		t.Error(err)
	}
	for _, x := range m.running() {
		if _, err := x.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: name}}); fault.KindOf(err) != fault.BucketNotFound {
			t.Errorf("%s: a deleted bucket: %v", x.self, err)
		}
	}
}

// Of 64 who want a key to be new there is one who gets it, and no update
// under If-Match is lost, through any mixture of nodes.
func TestConditionalPuts(t *testing.T) {
	virtualOf(t, 3, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		if err := m.node(0).AdmitNode(t.Context(), "d", m.Name(3)); err != nil {
			t.Fatal(err)
		}
		ready(t, m.open(3, nil))
		b := createBucket(t, m.node(0), "b")
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				cmd := putOf(b, "k", fmt.Sprint("e", i))
				cmd.PutRecord.IfNoneMatch = []string{"*"}
				_, err := m.node(i%4).Propose(t.Context(), cmd)
				switch {
				case err == nil:
					won.Add(1)
				case fault.KindOf(err) != fault.PreconditionFailed:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d winners", won.Load())
		}
		const writers, each = 8, 10
		mustPut(t, m.node(0), b, "n", "0")
		for w := range writers {
			wg.Go(func() { count(t, m.node(w%4), b, each) })
		}
		wg.Wait()
		for _, c := range m.running() {
			if got := etagOf(t, c, "b", "n"); got != fmt.Sprint(writers*each) {
				t.Errorf("node %s counts %s", c.self, got)
			}
		}
	})
}

// count adds one to a record so many times, by If-Match.
func count(t *testing.T, c *Control, b *Bucket, times int) {
	for done := 0; done < times; {
		a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "n"}})
		if err != nil {
			t.Error(err)
			return
		}
		var n int
		fmt.Sscan(a.Record.ETag, &n)
		cmd := putOf(b, "n", fmt.Sprint(n+1))
		cmd.PutRecord.IfMatch = []string{a.Record.ETag}
		if _, err := c.Propose(t.Context(), cmd); err == nil {
			done++
		} else if fault.KindOf(err) != fault.PreconditionFailed {
			t.Error(err)
			return
		}
	}
}

// Propose carries a delete through that takes several entries.
func TestLargeDelete(t *testing.T) {
	c := openAlone(t, Options{})
	b := createBucket(t, c, "b")
	del := &DeleteRecords{Bucket: "b", Keys: []string{"missing first"}}
	for i := range 6 {
		cmd := putOf(b, fmt.Sprint("k", i), "e")
		rec := &cmd.PutRecord.Record
		rec.Inline = nil
		for range MaxSegments {
			rec.Segments = append(rec.Segments, Segment{ID: randomID(), SizeBytes: 1, Drives: []string{"d"}})
		}
		rec.SizeBytes = MaxSegments
		res, err := c.Propose(t.Context(), cmd)
		if err != nil {
			t.Fatal(err)
		}
		if res.Record.LogTime != res.LogTime || res.Record.Version != RecordVersion || len(res.Record.Segments) != MaxSegments {
			t.Fatalf("stored as %+v", res.Record)
		}
		del.Keys = append(del.Keys, rec.Key)
	}
	del.Keys = append(del.Keys, "missing last")
	res, err := c.Propose(t.Context(), &Command{DeleteRecords: del})
	if err != nil || len(res.Deleted) != 6 || res.Deleted[5] != "k5" || len(res.Missing) != 2 || res.Missing[1] != "missing last" {
		t.Fatalf("%+v, %v", res, err)
	}
	var garbage int
	for {
		a, err := c.Read(t.Context(), &Query{Garbage: &GarbageQuery{Drive: "d", Before: 1 << 62}})
		if err != nil {
			t.Fatal(err)
		}
		if garbage += len(a.Garbage); len(a.Garbage) > 0 {
			if _, err := c.Propose(t.Context(), &Command{Reclaim: &Reclaim{Entries: a.Garbage}}); err != nil {
				t.Fatal(err)
			}
		}
		if !a.More {
			break
		}
	}
	if garbage != 6*MaxSegments {
		t.Errorf("%d segments to reclaim", garbage)
	}
	if _, err := c.Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "b"}}); err != nil {
		t.Error(err)
	}
}

// A put of any size that is allowed comes back as it was.
func TestLargestRecord(t *testing.T) {
	c := openAlone(t, Options{})
	b := createBucket(t, c, "b")
	cmd := putOf(b, strings.Repeat("k", MaxKeyBytes), "e")
	rec := &cmd.PutRecord.Record
	rec.Inline = []byte(strings.Repeat("x", MaxInlineBytes))
	rec.SizeBytes = MaxInlineBytes
	rec.Metadata = Pairs{}
	for i := range MaxMetadataBytes / 8 {
		rec.Metadata[fmt.Sprintf("%04d", i)] = "1234"
	}
	cmd = logged(t, &entry{Command: complete(cmd)}).Command
	if _, err := c.Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: rec.Key}})
	if err != nil || string(a.Record.Inline) != string(rec.Inline) || len(a.Record.Metadata) != len(rec.Metadata) {
		t.Errorf("%v", err)
	}
}

// A change of the nodes is seen by all of them, soon and without their asking.
func TestTopologySpreads(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		var told atomic.Int64
		for i := range 3 {
			m.open(i, func(o *Options) {
				o.Hooks.Topology = func(top *Topology) { told.Store(max(told.Load(), int64(top.Epoch))) }
			})
		}
		ready(t, m.running()...)
		res, err := m.node(1).Propose(t.Context(), &Command{JoinNode: &JoinNode{Node: "b", URL: m.Name(1), Drives: []string{"d2", "d1"}}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		m.eventually("all know b's drives", func() bool {
			for _, c := range m.running() {
				if n := c.Topology().Node("b"); c.Topology().Epoch != res.Epoch || len(n.Drives) != 2 || n.Drives[0] != "d1" {
					return false
				}
			}
			return true
		})
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if told.Load() != int64(res.Epoch) {
			t.Errorf("told of epoch %d, not %d", told.Load(), res.Epoch)
		}
		a, err := m.node(2).Read(t.Context(), &Query{Topology: &TopologyQuery{}})
		if err != nil || a.Epoch != res.Epoch || a.Topology.Epoch != res.Epoch {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

// A command over real sockets, as nodes have them.
func TestRemoteOverSockets(t *testing.T) {
	var listeners []net.Listener
	var hosts []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		hosts = append(hosts, "http://"+l.Addr().String())
	}
	var nodes []*Control
	for i, name := range []string{"a", "b", "c"} {
		var self atomic.Pointer[Control]
		manager, err := grid.NewManager(t.Context(), grid.ManagerOptions{
			Local: hosts[i], Hosts: hosts,
			Secrets: func() [][]byte { return [][]byte{[]byte("a secret of this test alone")} },
			Realm: func() string {
				if c := self.Load(); c != nil {
					return c.Realm()
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
			Dir: t.TempDir(), Self: name, Grid: manager,
			Peers: map[string]string{"a": hosts[0], "b": hosts[1], "c": hosts[2]},
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
	ready(t, nodes...)
	bucket := createBucket(t, nodes[1], "b")
	cmd := putOf(bucket, "k", "e")
	cmd.PutRecord.Record.Inline = []byte(strings.Repeat("x", MaxInlineBytes))
	cmd.PutRecord.Record.SizeBytes = MaxInlineBytes
	if _, err := nodes[1].Propose(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	a, err := nodes[1].Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: "k"}})
	if err != nil || len(a.Record.Inline) != MaxInlineBytes {
		t.Errorf("%v", err)
	}
	if nodes[0].Deployment() != nodes[2].Deployment() {
		t.Error("two meshes")
	}
}

// A node that the leader can't be reached from goes by way of another, and is
// ready: a voter, and a node without a copy of the records.
func TestAroundACut(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		system := m.index(m.leader(systemGroup))
		for _, away := range []int{m.index(m.follower(systemGroup)), 3} {
			m.Cut(away, system)
			c := m.node(away)
			m.eventually("the cut is noticed", func() bool { return !c.connected(nodeName(system)) })
			pause(time.Minute) // a voter that hears nothing would be elected, were it let
			checkEverything(t, m, c)
			if err := c.Ready(); err != nil {
				t.Errorf("%s isn't ready: %v", c.self, err)
			}
			m.Heal(away, system)
			m.agree()
		}
	})
}

// A node that stops doesn't wait for what the calls that it serves are waiting
// for: the answer of a leader that is silent.
func TestStopWhileServing(t *testing.T) {
	virtual(t, 4, func(t *testing.T, m *mesh) {
		m.openAll()
		b := createBucket(t, m.node(0), "b")
		leader, asked := m.leader(dataGroup), m.follower(dataGroup)
		m.Blackhole(m.index(leader), m.index(asked))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = readCall.Call(ctx, m.node(3).conn(asked.self), &Query{Version: QueryVersion, BucketID: b.ID, Record: &RecordQuery{Bucket: "b", Key: "k"}})
		}()
		pause(50 * time.Millisecond) // it waits there
		began := time.Now()
		m.stop(m.index(asked))
		if took := time.Since(began); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
		cancel()
		<-done
		m.Heal(m.index(leader), m.index(asked))
	})
}
