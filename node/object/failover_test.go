package object

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// watched records what reads report.
type watched struct {
	mu        sync.Mutex // guards the fields below it
	failovers map[string]int
	bad       map[payloadRef]string // why
}

func (w *watched) options(o *Options) {
	o.Hooks.Failover = func(reason string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.failovers == nil {
			w.failovers = make(map[string]int)
		}
		w.failovers[reason]++
	}
	o.BadCopy = func(id dataio.ID, drive, why string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.bad == nil {
			w.bad = make(map[payloadRef]string)
		}
		w.bad[payloadRef{drive, id}] = why
	}
}

// take returns what was reported since the last call.
func (w *watched) take() (failovers map[string]int, bad map[payloadRef]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	failovers, bad = w.failovers, w.bad
	w.failovers, w.bad = nil, nil
	return failovers, bad
}

// replicated makes a mesh of a node without drives, n0, and three with one each,
// which all have a copy of everything, and drives that can be made to fail.
func replicated(t testing.TB, c meshConfig) (*testMesh, []*datatest.Faults, *watched) {
	faults := []*datatest.Faults{{}, {}, {}, {}}
	w := &watched{}
	options := c.options
	c.drives = []int{0, 1, 1, 1}
	c.options = func(node int, o *Options) {
		w.options(o)
		if options != nil {
			options(node, o)
		}
	}
	c.drive = func(node int) dataio.Options { return dataio.Options{Interceptor: faults[node]} }
	m := newMesh(t, c)
	m.bucket("copies")
	return m, faults, w
}

// putCopies stores bytes, of which every drive has a copy then.
func putCopies(t testing.TB, m *testMesh, key string, data []byte) []control.Segment {
	t.Helper()
	for range 10 {
		m.nodes[0].put(t, "copies", key, data, true)
		r, err := m.nodes[0].Open(testContext(t), "copies", key, Conditions{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.record.Segments, func(s control.Segment) bool { return len(s.Drives) < 3 }) {
			return r.record.Segments
		}
	}
	t.Fatal("a put did not reach all drives, ten times over") // it may leave out one that is late
	return nil
}

// client is the other end of a connection to which an object is sent.
type client struct {
	net.Conn
	got chan []byte
}

func newClient(t testing.TB, size int) *client {
	local, remote := pair(t)
	c := &client{local, make(chan []byte, 1)}
	go func() {
		b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead)) // never grows
		io.Copy(b, remote)
		c.got <- b.Bytes()
	}()
	return c
}

// ReadFrom hands src to the connection.
func (c *client) ReadFrom(src io.Reader) (int64, error) { return c.Conn.(*net.TCPConn).ReadFrom(src) }

// sendTo sends an object to a client and says when how much has gone.
func sendTo(t testing.TB, n *testNode, key string, size int, verify bool, after func(sent int64)) (got []byte, err error) {
	t.Helper()
	r, err := n.Open(testContext(t), "copies", key, Conditions{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.Verify = verify
	c := newClient(t, size)
	var sum int64
	sent, err := r.Send(testContext(t), c, 0, -1, dataio.Windows{After: func(n int64) {
		sum += n
		if after != nil {
			after(sum)
		}
	}})
	c.Close()
	if got = <-c.got; int64(len(got)) != sent || sum != sent {
		t.Errorf("Send says %d bytes, the windows %d, %d came", sent, sum, len(got))
	}
	return got, err
}

// reading returns the node that a node reads from.
func (m *testMesh) reading(t testing.TB, from *testNode) *testNode {
	t.Helper()
	for _, n := range m.nodes {
		for _, d := range n.drives {
			if underWay, _ := from.reads.look(d.ID()); underWay > 0 && n != from {
				return n
			}
		}
	}
	t.Fatal("nothing is being read")
	return nil
}

// testTLS is for both ends of every connection of a mesh.
func testTLS(t *testing.T, names ...string) *tls.Config {
	cert := selfSigned(t, append(names, "localhost")...)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
}

// TestKilledInTheMiddle: the node that a body comes from is killed in the middle
// of 96 MiB, and the client gets every byte, over plaintext and TLS (half as
// much: it has to be stored over TLS first).
func TestKilledInTheMiddle(t *testing.T) {
	for name, conf := range map[string]*tls.Config{"splice": nil, "tls": testTLS(t, "n0", "n1", "n2", "n3")} {
		t.Run(name, func(t *testing.T) {
			size := 96 << 20
			if conf != nil {
				size /= 2
			}
			data := randomBytes(size)
			m, _, w := replicated(t, meshConfig{tls: conf, options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
			putCopies(t, m, "k", data)
			var killed *testNode
			got, err := sendTo(t, m.nodes[0], "k", size, false, func(sent int64) {
				if sent > 16<<20 && killed == nil {
					killed = m.reading(t, m.nodes[0])
					killed.stop(t)
				}
			})
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes, %v", len(got), size, err)
			}
			failovers, bad := w.take()
			if len(failovers) == 0 || len(bad) > 0 {
				t.Errorf("failovers %v, bad %v", failovers, bad)
			}
			sent := m.nodes[0].recorded.take()
			if path := map[bool]Path{true: PathSplice, false: PathCopy}[conf == nil]; sent[path] < int64(size)-64<<10 {
				t.Errorf("sent %v", sent)
			}
		})
	}
}

// TestKilledUnderSmallReads: objects that come over the grid, and ranges, are
// read while a node is killed.
func TestKilledUnderSmallReads(t *testing.T) {
	m, _, w := replicated(t, meshConfig{})
	data := randomBytes(2*testSegment + 1000)
	putCopies(t, m, "small", data[:GridMaxBytes])
	putCopies(t, m, "large", data)
	var wg sync.WaitGroup
	var reads atomic.Int64
	killed := make(chan struct{})
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for after := 0; after < 20; reads.Add(1) {
				key, size := "small", GridMaxBytes
				if r.IntN(4) == 0 {
					key, size = "large", len(data)
				}
				off := r.IntN(size)
				n := 1 + r.IntN(size-off)
				got, err := m.nodes[0].read(testContext(t), "copies", key, int64(off), int64(n))
				if err != nil || !bytes.Equal(got, data[off:off+n]) {
					t.Errorf("%d bytes of %s at %d: %d, %v", n, key, off, len(got), err)
					return
				}
				select {
				case <-killed:
					after++
				default:
				}
			}
		})
	}
	for reads.Load() < 50 {
		must(t, pause(testContext(t)))
	}
	// n3 is the one that the index needs least: a leader has to be found anew
	// where it is it, and reads wait for that.
	m.nodes[3].stop(t)
	close(killed)
	wg.Wait()
	failovers, bad := w.take()
	t.Logf("%d reads, failovers %v", reads.Load(), failovers)
	if len(bad) > 0 {
		t.Errorf("bad copies: %v", bad)
	}
}

// TestReadErrorInTheMiddle: wherever a drive begins to give EIO, here or at the
// node that a body comes from, another copy goes on with the next byte.
func TestReadErrorInTheMiddle(t *testing.T) {
	m, faults, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
	const size = 10 << 20
	data := randomBytes(size)
	seg := putCopies(t, m, "k", data)[0]
	for _, asker := range []*testNode{m.nodes[0], m.nodes[1]} {
		for _, verify := range []bool{false, true} {
			for _, skip := range []int{0, 1, 2, 3} {
				m.neverHedge()
				// The first that is asked fails; it is the same for all of a segment.
				first := asker.replicasOf(part{&seg, 0, size}, false).all[0].drive
				owner := slices.IndexFunc(m.nodes, func(n *testNode) bool { d, _ := n.drive(first); return d != nil })
				faults[owner].Add(datatest.Fault{Op: dataio.OpRead, Skip: skip, Times: -1, Err: syscall.EIO})
				got, err := sendTo(t, asker, "k", size, verify, nil)
				faults[owner].Clear()
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, verify %v, EIO after %d: %d of %d bytes, %v", asker.name, verify, skip, len(got), size, err)
				}
				failovers, bad := w.take()
				if failovers["unavailable"] == 0 || len(bad) != 1 || bad[payloadRef{first, seg.ID}] != badUnreadable {
					t.Errorf("%s, verify %v, EIO after %d: failovers %v, bad %v", asker.name, verify, skip, failovers, bad)
				}
			}
		}
	}
}

// TestClientGone: a client that goes away, or takes nothing more, is not taken
// for a bad copy.
func TestClientGone(t *testing.T) {
	m, _, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
	const size = 24 << 20
	seg := putCopies(t, m, "k", randomBytes(size))[0]
	m.neverHedge()
	for _, n := range []*testNode{m.nodes[0], m.nodes[1]} {
		for _, verify := range []bool{false, true} {
			for _, plain := range []bool{false, true} {
				for _, gone := range []bool{false, true} {
					r, err := n.Open(testContext(t), "copies", "k", Conditions{}, 0)
					must(t, err)
					r.Verify = verify
					local, remote := pair(t)
					if gone {
						must(t, remote.Close())
					}
					var dst io.Writer = local
					if plain {
						dst = plainWriter{local}
					}
					sent, err := r.Send(testContext(t), dst, 0, -1, dataio.Windows{Before: func() error {
						return local.SetWriteDeadline(time.Now().Add(150 * time.Millisecond))
					}})
					var timeout net.Error
					if err == nil || sent == size || fault.KindOf(err) == fault.Corrupted || !gone && (!errors.As(err, &timeout) || !timeout.Timeout()) {
						t.Errorf("%s, verify %v, plain %v, gone %v: %d bytes, %v", n.name, verify, plain, gone, sent, err)
					}
					local.Close()
					remote.Close()
				}
			}
		}
		for _, d := range seg.Drives {
			if underWay, troubled := n.reads.look(d); underWay != 0 || troubled {
				t.Errorf("%s: %d reads of %s are under way, trouble %v", n.name, underWay, d, troubled)
			}
		}
	}
	if failovers, bad := w.take(); len(failovers)+len(bad) > 0 {
		t.Errorf("failovers %v, bad %v", failovers, bad)
	}
}

// TestBoundedTries: each copy is tried twice at most, and then the read ends.
func TestBoundedTries(t *testing.T) {
	m, faults, w := replicated(t, meshConfig{})
	for _, size := range []int{GridMaxBytes, testSegment} {
		putCopies(t, m, fmt.Sprint(size), randomBytes(size))
	}
	for _, size := range []int{GridMaxBytes, testSegment} {
		for _, n := range m.nodes[:2] {
			for _, f := range faults {
				f.Add(datatest.Fault{Op: dataio.OpOpen, Times: -1, Err: syscall.EIO})
				f.Ops()
			}
			m.neverHedge()
			began := time.Now()
			got, err := n.read(testContext(t), "copies", fmt.Sprint(size), -1, 0)
			if fault.KindOf(err) != fault.Unavailable || len(got) > 0 || time.Since(began) > 10*time.Second {
				t.Errorf("%s: %d bytes, %v, after %v", n.name, len(got), err, time.Since(began))
			}
			for i, f := range faults {
				opened := 0
				for _, op := range f.Ops() {
					if op.Kind == dataio.OpOpen {
						opened++
					}
				}
				if i > 0 && (opened < 1 || opened > triesMax) {
					t.Errorf("%s: n%d was tried %d times", n.name, i, opened)
				}
				f.Clear()
			}
			if failovers, _ := w.take(); failovers["unavailable"] != 5 {
				t.Errorf("%s: %v", n.name, failovers)
			}
			if got := n.get(t, "copies", fmt.Sprint(size), -1, 0); len(got) != size {
				t.Errorf("%s: %d bytes when all is well again", n.name, len(got))
			}
		}
	}
}

// TestNobodyWaits: a copy that is away isn't waited for while there is another.
func TestNobodyWaits(t *testing.T) {
	m, _, _ := replicated(t, meshConfig{})
	data := randomBytes(2 * testSegment)
	putCopies(t, m, "k", data)
	forget(t, m.nodes[3], m.nodes[0])
	forget(t, m.nodes[2], m.nodes[0])
	for range 10 {
		began := time.Now()
		if got := m.nodes[0].get(t, "copies", "k", -1, 0); !bytes.Equal(got, data) {
			t.Error("other bytes")
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	}
}

// TestMovedMeanwhile: a read goes on where its segment's copies are now, if
// those that its record had are gone.
func TestMovedMeanwhile(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{0, 1, 1}, options: func(_ int, o *Options) { o.Replicas = 1 }})
	m.bucket("copies")
	n := m.nodes[0]
	data := randomBytes(testSegment)
	n.put(t, "copies", "k", data, true)
	ctx := testContext(t)
	r, err := n.Open(ctx, "copies", "k", Conditions{}, 0)
	must(t, err)
	seg := r.record.Segments[0]
	from := seg.Drives[0]
	to := m.nodes[1].drives[0].ID()
	if to == from {
		to = m.nodes[2].drives[0].ID()
	}
	a, err := n.Index().Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
	must(t, err)
	errs, err := n.CopyTo(ctx, to, []CopyItem{{ID: seg.ID, SizeBytes: seg.SizeBytes, CRC32C: seg.CRC32C, From: seg.Drives}})
	must(t, errors.Join(append(errs, err)...))
	result, err := n.ctl.Propose(ctx, &control.Command{Recopy: &control.Recopy{Birth: a.LogTime, Entries: []control.CopyChange{
		{ID: seg.ID, Add: []string{to}, Remove: []string{from}, Settled: true},
	}}})
	must(t, err)
	if !slices.Equal(result.Fates, []control.CopyFate{control.FateDone}) {
		t.Fatalf("%v", result.Fates)
	}
	node, err := n.locate(ctx, from)
	must(t, err)
	must(t, n.removeAt(ctx, node.Name, []payloadRef{{from, seg.ID}}))
	var buf bytes.Buffer
	if _, err := r.Send(ctx, &buf, 0, -1, dataio.Windows{}); err != nil || !bytes.Equal(buf.Bytes(), data) {
		t.Errorf("%d bytes, %v", buf.Len(), err)
	}
}

// TestStanding: the order in which copies are tried.
func TestStanding(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}})
	n := m.nodes[0]
	var drives []string
	for _, other := range m.nodes {
		drives = append(drives, other.drives[0].ID())
	}
	order := func(id dataio.ID) (found []string) {
		p := part{&control.Segment{ID: id, SizeBytes: 1, Drives: drives}, 0, 1}
		for _, c := range n.replicasOf(p, false).all {
			found = append(found, c.drive)
		}
		return found
	}
	second := map[string]int{}
	for range 200 {
		found := order(dataio.NewID())
		if found[0] != drives[0] {
			t.Fatalf("%v: the copy here is not the first", found)
		}
		second[found[1]]++
	}
	if second[drives[1]] < 50 || second[drives[2]] < 50 {
		t.Errorf("the others are second %v times", slices.Collect(maps.Values(second)))
	}
	id := dataio.NewID()
	busy := order(id)[1]
	n.reads.begin(busy)
	if found := order(id); found[2] != busy {
		t.Errorf("%v: the busy one is not the last", found)
	}
	n.reads.end(busy)
	if found := order(id); found[1] != busy {
		t.Errorf("%v: the idle one is not where it was", found)
	}
	n.reads.failed(drives[0])
	if found := order(id); found[2] != drives[0] {
		t.Errorf("%v: the one in trouble is not the last", found)
	}
	forget(t, m.nodes[1], n)
	if found := order(id); found[2] != drives[1] || found[1] != drives[0] {
		t.Errorf("%v: the one that is away is not the last", found)
	}
}

// neverHedge has all nodes forget what their reads know of drives, and wait for
// each of these, however busy the machine is.
func (m *testMesh) neverHedge() {
	drives := m.drives()
	for _, n := range m.nodes {
		n.forgetReads()
		n.reads.mu.Lock()
		for _, d := range drives {
			n.reads.ofLocked(d.ID()).hedge = 10 * time.Second
		}
		n.reads.mu.Unlock()
	}
}

// forgetReads has a node forget what its reads know of drives.
func (n *testNode) forgetReads() {
	n.reads.mu.Lock()
	defer n.reads.mu.Unlock()
	n.reads.drives, n.reads.told = nil, nil
}

// payloadFile is where a copy is on disk.
func (m *testMesh) payloadFile(t testing.TB, ref payloadRef) string {
	t.Helper()
	for _, d := range m.drives() {
		if d.ID() == ref.drive {
			return filepath.Join(d.Path(), "payload", ref.id.String()[:2], ref.id.String())
		}
	}
	t.Fatalf("there is no drive %s", ref.drive)
	return ""
}
