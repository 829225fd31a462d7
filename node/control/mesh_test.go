package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
	"github.com/gridloom/gridloom/node/control/replica"
)

// mesh is nodes a, b, … on a grid in memory, each with a disk in memory. It is
// meant for the virtual time of testing/synctest.
type mesh struct {
	*gridtest.Mesh
	t        *testing.T
	founders int
	disks    []vfs.FS
	fetched  atomic.Int64 // bytes of snapshots

	mu    sync.Mutex // guards nodes: their snapshots are fetched from goroutines
	nodes []*Control // nil: it isn't running
}

// virtual runs a test on virtual time, with a mesh of n founders.
func virtual(t *testing.T, n int, f func(t *testing.T, m *mesh)) { virtualOf(t, n, n, f) }

// virtualOf is virtual with more places than founders.
func virtualOf(t *testing.T, founders, places int, f func(t *testing.T, m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, places, nil)
		m.founders = founders
		f(t, m)
	})
}

func newMesh(t *testing.T, n int, change func(i int, o *grid.ManagerOptions)) *mesh {
	m := &mesh{t: t, founders: n, nodes: make([]*Control, n)}
	m.Mesh = gridtest.New(t, n, func(i int, o *grid.ManagerOptions) {
		o.Realm = func() string {
			if c := m.node(i); c != nil {
				return c.Realm()
			}
			return ""
		}
		if change != nil {
			change(i, o)
		}
	})
	for range n {
		m.disks = append(m.disks, vfs.NewMem())
	}
	return m
}

func nodeName(i int) string { return string(rune('a' + i)) }

// peers are the nodes of these numbers.
func (m *mesh) peers(all ...int) map[string]string {
	peers := map[string]string{}
	for _, i := range all {
		peers[nodeName(i)] = m.Name(i)
	}
	return peers
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// options are those of node i, with its own disk. One that isn't a founder
// names itself beside them.
func (m *mesh) options(i int) Options {
	peers := upTo(m.founders)
	if i >= m.founders {
		peers = append(peers, i)
	}
	o := Options{Self: nodeName(i), Grid: m.Node(i), fs: m.disks[i], Peers: m.peers(peers...)}
	o.Fetch = func(ctx context.Context, node, path string, offset, size int64, to io.Writer) error {
		return m.fetch(node, path, offset, size, to)
	}
	return o
}

// fetch reads size bytes of a file of another node's snapshot.
func (m *mesh) fetch(node, path string, offset, size int64, to io.Writer) (err error) {
	from := m.node(int(node[0] - 'a'))
	if from == nil {
		return fmt.Errorf("node %s isn't there", node)
	}
	name, release, err := from.SnapshotFile(path)
	if err != nil {
		return err
	}
	defer release()
	f, err := from.fs.Open(name)
	if err != nil {
		return err
	}
	defer closeInto(&err, f)
	n, err := io.Copy(to, io.NewSectionReader(f, offset, size))
	m.fetched.Add(n)
	return err
}

func (m *mesh) node(i int) *Control {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[i]
}

// index finds a node's number.
func (m *mesh) index(c *Control) int { return int(c.self[0] - 'a') }

// open opens node i; it is closed with the test, or before.
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
	m.mu.Lock()
	m.nodes[i] = c
	m.mu.Unlock()
	m.t.Cleanup(func() {
		if err := c.Close(); err != nil && c.Err() == nil {
			m.t.Error(err)
		}
	})
	return c
}

// openAll opens the founders and waits until they are ready.
func (m *mesh) openAll() []*Control {
	m.t.Helper()
	for i := range m.founders {
		m.open(i, nil)
	}
	all := m.running()
	ready(m.t, all...)
	return all
}

// stop stops node i in good order.
func (m *mesh) stop(i int) {
	m.t.Helper()
	c := m.node(i)
	if err := c.Close(); err != nil && c.Err() == nil {
		m.t.Error(err)
	}
	m.mu.Lock()
	m.nodes[i] = nil
	m.mu.Unlock()
	m.Restart(i)
}

// kill stops node i as a loss of power does, as far as the others can tell:
// it says nothing to anyone.
func (m *mesh) kill(i int) {
	m.t.Helper()
	m.isolate(i)
	m.stop(i)
	m.rejoin(i)
}

// restart stops node i in good order and opens it again.
func (m *mesh) restart(i int) *Control {
	m.t.Helper()
	m.stop(i)
	return m.open(i, nil)
}

// isolate cuts the links of nodes with all others.
func (m *mesh) isolate(nodes ...int) {
	var others []int
	for i := range m.disks {
		if !slices.Contains(nodes, i) {
			others = append(others, i)
		}
	}
	m.Partition(nodes, others)
}

// rejoin ends isolate.
func (m *mesh) rejoin(nodes ...int) {
	for _, i := range nodes {
		for j := range m.disks {
			if i != j {
				m.Heal(i, j)
			}
		}
	}
}

// running are the nodes that run, in order.
func (m *mesh) running() (all []*Control) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.nodes {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// leader waits until one of the running nodes leads a group, and gives it.
func (m *mesh) leader(g replica.GroupID) (leader *Control) {
	m.t.Helper()
	m.eventually("group "+groupName(g)+" has a leader", func() bool {
		for _, c := range m.running() {
			if e := c.engine.Load(); e != nil && e.Leader(g).Leads {
				leader = c
				return true
			}
		}
		return false
	})
	return leader
}

// follower gives a node that doesn't lead the group, and has a part in it.
func (m *mesh) follower(g replica.GroupID) *Control {
	m.t.Helper()
	leader := m.leader(g)
	for _, c := range m.running() {
		if c != leader && c.hosts(g) {
			return c
		}
	}
	m.t.Fatal("there is no follower")
	return nil
}

// eventually waits until a condition holds, for two minutes of virtual time.
func (m *mesh) eventually(what string, holds func() bool) {
	m.t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		pause(20 * time.Millisecond)
	}
	m.t.Fatalf("it is not so within two minutes: %s; %s", what, m.describe())
}

// pause lets virtual time pass.
func pause(d time.Duration) { time.Sleep(d) }

// describe tells how the nodes see the groups.
func (m *mesh) describe() string {
	var b bytes.Buffer
	for _, c := range m.running() {
		s, err := c.Status(m.t.Context())
		fmt.Fprintf(&b, "\n%s: ready %v, %v", c.self, c.Ready(), err)
		if err == nil {
			fmt.Fprintf(&b, ", %+v", s.Groups)
		}
	}
	return b.String()
}

// roles gives the members of a group by role, as its leader sees them:
// "a b c, d" are three voters and a learner. It is "" on the way.
func (m *mesh) roles(g replica.GroupID) string {
	s, err := m.leader(g).Status(m.t.Context())
	if err != nil {
		return ""
	}
	for _, of := range s.Groups {
		if of.Name != groupName(g) || !of.Leads || of.Joint {
			continue
		}
		var voters, learners []string
		for _, member := range of.Members {
			if member.Role == "voter" {
				voters = append(voters, member.Node)
			} else {
				learners = append(learners, member.Node)
			}
		}
		slices.Sort(voters)
		slices.Sort(learners)
		text := strings.Join(voters, " ")
		if len(learners) > 0 {
			text += ", " + strings.Join(learners, " ")
		}
		return text
	}
	return ""
}

// settle waits until the groups have these members, and their leaders have no
// more to do.
func (m *mesh) settle(system, data string) {
	m.t.Helper()
	m.eventually("the groups have members "+system+" and "+data, func() bool {
		return m.roles(systemGroup) == system && m.roles(dataGroup) == data
	})
}

// agree waits until all copies of the groups are the same.
func (m *mesh) agree() {
	m.t.Helper()
	for _, g := range []replica.GroupID{systemGroup, dataGroup} {
		m.eventually("all copies of group "+groupName(g)+" are the same", func() bool {
			var views []*view
			for _, c := range m.running() {
				if c.hosts(g) {
					s := c.state(g)
					v := s.acquire()
					defer s.release(v)
					views = append(views, v)
				}
			}
			return m.same(views)
		})
	}
}

// same tells whether views show the same entries, and fails if those have come
// to different states.
func (m *mesh) same(views []*view) bool {
	m.t.Helper()
	for _, v := range views {
		if v.applied != views[0].applied {
			return false
		}
	}
	var first uint64
	for i, v := range views {
		sum, err := checksum(v.rows)
		if err != nil {
			m.t.Fatal(err)
		}
		if i == 0 {
			first = sum
		} else if sum != first {
			m.t.Fatalf("at entry %d of group %s the copies differ", v.applied, v.store.Dir())
		}
	}
	return true
}

// sameMesh checks that all running nodes are ready and have one id.
func (m *mesh) sameMesh() (id string) {
	m.t.Helper()
	all := m.running()
	ready(m.t, all...)
	for _, c := range all {
		if c.Deployment() == "" || c.Deployment() != all[0].Deployment() || c.Realm() != c.Deployment() {
			m.t.Fatalf("node %s has mesh %q, node %s %q", c.self, c.Deployment(), all[0].self, all[0].Deployment())
		}
	}
	return all[0].Deployment()
}

// ready waits for nodes to be ready.
func ready(t *testing.T, all ...*Control) {
	t.Helper()
	for _, c := range all {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := c.WaitReady(ctx); err != nil {
			t.Fatalf("node %s: %v", c.self, err)
		}
		cancel()
	}
}

// openAlone opens the index of a node that is alone.
func openAlone(t *testing.T, o Options) *Control {
	t.Helper()
	if o.fs == nil {
		o.fs = vfs.NewMem()
	}
	o.Self = "a"
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && c.Err() == nil {
			t.Error(err)
		}
	})
	return c
}

func createBucket(t *testing.T, x Index, name string) *Bucket {
	t.Helper()
	res, err := x.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Bucket
}

// putOf is a put of a small record that began with its bucket.
func putOf(b *Bucket, key, etag string) *Command {
	return &Command{PutRecord: &PutRecord{
		BucketName: b.Name, BucketID: b.ID, Birth: b.LogTime,
		Record: Record{Key: key, VersionID: randomID(), ETag: etag, Inline: []byte(etag), SizeBytes: int64(len(etag))},
	}}
}

// mustPut puts a small record.
func mustPut(t *testing.T, x Index, b *Bucket, key, etag string) {
	t.Helper()
	if _, err := x.Propose(t.Context(), putOf(b, key, etag)); err != nil {
		t.Fatalf("putting %s: %v", key, err)
	}
}

// etagOf reads a record's ETag.
func etagOf(t *testing.T, x Index, bucket, key string) string {
	t.Helper()
	a, err := x.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: bucket, Key: key}})
	if err != nil {
		t.Fatalf("reading %s: %v", key, err)
	}
	return a.Record.ETag
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
