package object

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// flippingConn changes one byte of what is written, once so many have gone.
type flippingConn struct {
	net.Conn
	after *atomic.Int64
}

func (c flippingConn) Write(p []byte) (int, error) {
	if left := c.after.Add(-int64(len(p))); left <= 0 && left > -int64(len(p)) {
		p = bytes.Clone(p)
		p[len(p)-1] ^= 1
	}
	return c.Conn.Write(p)
}

// TestDamagedOnTheWay: bytes that change between two nodes are noticed before
// the object is visible.
func TestDamagedOnTheWay(t *testing.T) {
	var after atomic.Int64
	m := onlyOn(t, 1, meshConfig{options: func(_ int, o *Options) {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			return flippingConn{c, &after}, err
		}
	}})
	m.bucket("damaged")
	after.Store(testSegment + testSegment/2)
	_, err := m.nodes[0].Put(testContext(t), PutRequest{Bucket: "damaged", Key: "k", SizeBytes: 2 * testSegment}, bytes.NewReader(randomBytes(2*testSegment)), nil)
	wantFault(t, err, fault.Corrupted, "payload")
	m.nodes[0].wantGone(t, "damaged", "k")
	m.wantFiles(0)
}

// TestCopyDamaged: a copy is compared with its source's checksum.
func TestCopyDamaged(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("damaged")
	m.nodes[1].put(t, "damaged", "k", randomBytes(2*testSegment), true)
	files := m.files()
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("flip"), 0)
	must(t, errors.Join(err, f.Close()))
	for _, n := range m.nodes {
		_, err = n.Copy(testContext(t), CopyRequest{SrcBucket: "damaged", SrcKey: "k", Bucket: "damaged", Key: "copy"})
		wantFault(t, err, fault.Corrupted, "source")
	}
	m.nodes[0].wantGone(t, "damaged", "copy")
	m.wantFiles(2)
	m.nodes[0].put(t, "damaged", "small", []byte("abc"), true)
	r, err := m.nodes[0].Open(testContext(t), "damaged", "small", Conditions{}, 0)
	must(t, err)
	r.record.Inline[0] ^= 1
	_, err = m.nodes[0].copyInline(testContext(t), PutRequest{Bucket: "damaged", Key: "copy"}, r.record)
	wantFault(t, err, fault.Corrupted, "source")
}

// TestFullInTheMiddle: a drive elsewhere that fills up during an upload of
// unknown size is what the client hears of, not a broken connection.
func TestFullInTheMiddle(t *testing.T) {
	var faults datatest.Faults
	m := onlyOn(t, 1, meshConfig{drive: func(int) dataio.Options { return dataio.Options{Interceptor: &faults} }})
	m.bucket("full")
	for i := range 3 {
		faults.Add(datatest.Fault{Op: dataio.OpWrite, Skip: i, Err: syscall.ENOSPC})
		// The body goes on until the answer is there.
		body := io.MultiReader(bytes.NewReader(randomBytes(GridMaxBytes+1)), io.LimitReader(zeros{}, testSegment/2),
			slow{t}, io.LimitReader(zeros{}, testSegment))
		_, err := m.nodes[0].Put(testContext(t), PutRequest{Bucket: "full", Key: "k", SizeBytes: -1}, body, nil)
		if fault.KindOf(err) != fault.NoSpace {
			t.Errorf("after %d writes: %v", i, err)
		}
		m.wantFiles(0)
	}
}

// slow is a part of a body that brings nothing and takes a moment.
type slow struct{ t *testing.T }

func (s slow) Read([]byte) (int, error) {
	must(s.t, pause(testContext(s.t)))
	return 0, io.EOF
}

// TestLostDuringWrite: a node that goes away while a small payload is on its
// way to it costs the put nothing, and its file is removed when it is done.
func TestLostDuringWrite(t *testing.T) {
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	var faults datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}, drive: func(node int) dataio.Options {
		if node == 2 {
			return dataio.Options{Interceptor: &faults}
		}
		return dataio.Options{}
	}})
	m.bucket("lost")
	n, other := m.nodes[0], m.nodes[2]
	faults.Add(datatest.Fault{Op: dataio.OpSync, Times: -1, Wait: held})
	t.Cleanup(release) // before the mesh's, which waits for the write
	ctx := testContext(t)
	data := randomBytes(GridMaxBytes)
	done := make(chan error, 1)
	go func() {
		_, err := n.Put(ctx, PutRequest{Bucket: "lost", Key: "k", SizeBytes: -1}, bytes.NewReader(data), nil)
		done <- err
	}()
	for writing := 0; writing == 0; must(t, pause(ctx)) {
		other.mu.Lock()
		writing = len(other.incoming)
		other.mu.Unlock()
	}
	must(t, other.grid.RemoveHost(n.url))
	must(t, <-done)
	release()
	must(t, other.grid.AddHost(n.url))
	m.wantFiles(2)
	if got := n.get(t, "lost", "k", -1, 0); !bytes.Equal(got, data) {
		t.Error("other bytes")
	}
}

// TestRemoveUnreachable: files on a node that is away are reported.
func TestRemoveUnreachable(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}})
	n := m.nodes[0]
	drive := m.nodes[2].drives[0].ID()
	m.nodes[2].stop(t)
	ctx, cancel := context.WithTimeout(testContext(t), 2*time.Second)
	defer cancel()
	for connected(n.o.Conn("n2")) {
		must(t, pause(testContext(t)))
	}
	n.removeFiles(ctx, []placed{{"n2", payloadRef{drive, dataio.NewID()}}, {"n1", payloadRef{m.nodes[1].drives[0].ID(), dataio.NewID()}}})
	if left := n.recorded.leftBehind(); left != 1 {
		t.Errorf("%d files left behind, want 1", left)
	}
}

// TestSeveralDrives: a segment on several drives is read from the nearest that
// has it, and a drive that nobody knows is an error.
func TestSeveralDrives(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}})
	ctx := testContext(t)
	data := randomBytes(1000)
	id := dataio.NewID()
	for _, n := range m.nodes[1:] {
		_, err := n.writeOwn(ctx, n.drives[0], id, data)
		must(t, err)
	}
	d := func(i int) string { return m.nodes[i].drives[0].ID() }
	seg := &control.Segment{ID: id, SizeBytes: 1000, CRC32C: 1, Drives: []string{"unknown", d(0), d(1), d(2)}}
	sums := newSums()
	sums.add(data)
	seg.CRC32C = sums.crc32c
	for i, n := range m.nodes {
		src, err := n.replicasOf(part{seg, 0, 1000}, false).open(ctx, 0)
		must(t, err)
		if local := src.data == nil; local != (i > 0) {
			t.Errorf("n%d reads %s", i, src.subject)
		}
		src.close()
	}
	_, err := m.nodes[0].replicasOf(part{&control.Segment{ID: id, SizeBytes: 1000, Drives: []string{"unknown"}}, 0, 1000}, false).open(ctx, 0)
	wantFault(t, err, fault.Unavailable, "drive unknown")
	_, err = m.nodes[0].replicasOf(part{&control.Segment{ID: id}, 0, 1000}, false).open(ctx, 0)
	wantFault(t, err, fault.Corrupted, "object")
}

// TestNewRefuses what can't work.
func TestNewRefuses(t *testing.T) {
	good := prover("a", "mesh").o
	good.Index = &lossyIndex{}
	if s, err := New(good); err != nil {
		t.Error(err)
	} else if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Options){
		"no name":       func(o *Options) { o.Self = "" },
		"no index":      func(o *Options) { o.Index = nil },
		"no topology":   func(o *Options) { o.Topology = nil },
		"no deployment": func(o *Options) { o.Deployment = nil },
		"no way":        func(o *Options) { o.Grid = new(grid.Manager) },
		"segments":      func(o *Options) { o.SegmentBytes = SegmentMaxBytes + 1 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	names := map[string]bool{}
	for p := PathInline; p <= PathGrid; p++ {
		names[p.String()] = true
	}
	if len(names) != 5 || Path(9).String() != "path(9)" {
		t.Errorf("%v", names)
	}
}
