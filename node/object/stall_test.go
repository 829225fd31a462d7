package object

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/fault"
)

// TestStallInTheMiddle: a drive that stalls in the middle of a body, here or at
// the node that it comes from, is passed by, and asked last for a while.
func TestStallInTheMiddle(t *testing.T) {
	m, faults, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
	const size = 30 << 20
	data := randomBytes(size)
	seg := putCopies(t, m, "k", data)[0]
	for _, asker := range []*testNode{m.nodes[0], m.nodes[1]} {
		for _, verify := range []bool{false, true} {
			held := make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			t.Cleanup(release)
			asker.forgetReads()
			first := asker.replicasOf(part{&seg, 0, size}, false).all[0].drive
			owner := slices.IndexFunc(m.nodes, func(n *testNode) bool { d, _ := n.drive(first); return d != nil })
			began := time.Now()
			stalled := false
			got, err := sendTo(t, asker, "k", size, verify, func(sent int64) {
				if !stalled {
					stalled = true
					faults[owner].Add(datatest.Fault{Op: dataio.OpRead, Times: -1, Wait: held, Done: true})
					faults[owner].Add(datatest.Fault{Op: dataio.OpOpen, Times: -1, Wait: held, Done: true})
				}
			})
			took := time.Since(began)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, verify %v: %d of %d bytes, %v", asker.name, verify, len(got), size, err)
			}
			failovers, bad := w.take()
			if len(failovers) == 0 || len(bad) > 0 || took > 5*time.Second {
				t.Errorf("%s, verify %v: failovers %v, bad %v, in %v", asker.name, verify, failovers, bad, took)
			}
			// On a busy machine others may have been in trouble, too, or it is over.
			again := asker.replicasOf(part{&seg, 0, size}, false).all[0].drive
			if once := len(failovers) == 1 && slices.Contains(slices.Collect(maps.Values(failovers)), 1); again == first && once && took < troubleFor/2 {
				t.Errorf("%s asks %s first again", asker.name, first)
			}
			faults[owner].Clear()
			release()
		}
	}
}

// TestStalledDrive: while a drive stalls for ten seconds, reads of what has a
// copy there are right, and 99 of 100 take less than a second.
func TestStalledDrive(t *testing.T) {
	m, faults, _ := replicated(t, meshConfig{})
	data := randomBytes(testSegment + 1000)
	sizes := []int{InlineMaxBytes + 1, 64 << 10, GridMaxBytes, len(data)}
	for _, size := range sizes {
		putCopies(t, m, fmt.Sprint(size), data[:size])
	}
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	for _, op := range []dataio.OpKind{dataio.OpOpen, dataio.OpRead} {
		faults[1].Add(datatest.Fault{Op: op, Times: -1, Wait: held, Done: true})
	}
	until := time.Now().Add(10 * time.Second)
	var mu sync.Mutex // guards took
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			n := m.nodes[i%2] // one without a copy, and the one whose drive stalls
			for j := i; time.Now().Before(until); j++ {
				size := sizes[j%len(sizes)]
				began := time.Now()
				got, err := n.read(testContext(t), "copies", fmt.Sprint(size), -1, 0)
				d := time.Since(began)
				if err != nil || !bytes.Equal(got, data[:size]) {
					t.Errorf("%s: %d of %d bytes, %v", n.name, len(got), size, err)
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	release()
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d reads: p50 %v, p99 %v, max %v", len(took), took[len(took)/2], p99, took[len(took)-1])
	if p99 > time.Second {
		t.Errorf("p99 is %v, want at most 1 s", p99)
	}
}

// TestOneCopyStalls: what has one copy only waits for its drive.
func TestOneCopyStalls(t *testing.T) {
	var faults datatest.Faults
	m := onlyOn(t, 1, meshConfig{
		drive:   func(int) dataio.Options { return dataio.Options{Interceptor: &faults} },
		options: func(_ int, o *Options) { o.WaitTimeout = 600 * time.Millisecond },
	})
	m.bucket("one")
	data := randomBytes(GridMaxBytes + 1)
	m.nodes[0].put(t, "one", "k", data, true)
	for _, n := range m.nodes[:2] {
		for _, late := range []bool{true, false} {
			held := make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			t.Cleanup(release)
			faults.Add(datatest.Fault{Op: dataio.OpRead, Times: -1, Wait: held, Done: true})
			if late {
				time.AfterFunc(300*time.Millisecond, func() { faults.Clear(); release() })
			}
			got, err := n.read(testContext(t), "one", "k", -1, 0)
			if late && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("%s: %d bytes, %v", n.name, len(got), err)
			}
			if kind := fault.KindOf(err); !late && (kind != fault.Unavailable && kind != fault.Deadline || len(got) > 0) {
				t.Errorf("%s: %d bytes, %v", n.name, len(got), err)
			}
			faults.Clear()
			release()
		}
	}
}

// muteDialer connects by way of a proxy that passes on so many bytes of an
// answer, and then falls silent without closing.
type muteDialer struct {
	passes atomic.Int64
	wg     sync.WaitGroup
	ctx    context.Context
}

func (d *muteDialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	there, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	here, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	proxy, err := l.Accept()
	if err != nil {
		return nil, err
	}
	passes := d.passes.Load()
	stop := func() { proxy.Close(); there.Close() }
	context.AfterFunc(d.ctx, stop)
	d.wg.Go(func() { io.Copy(there, proxy); stop() })
	d.wg.Go(func() {
		io.CopyN(proxy, there, passes)
		<-d.ctx.Done()
	})
	return here, nil
}

// TestSilentPeer: a peer that falls silent, before its answer or in the middle
// of it, is passed by after a second.
func TestSilentPeer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dialer := &muteDialer{ctx: ctx}
	t.Cleanup(func() { cancel(); dialer.wg.Wait() })
	var mute atomic.Value // address of the silent one
	mute.Store("")
	m, _, w := replicated(t, meshConfig{options: func(node int, o *Options) {
		o.SegmentBytes = 0
		if node == 0 {
			o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
				if mute.Load() == addr {
					return dialer.dial(ctx, addr)
				}
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			}
		}
	}})
	const size = 16 << 20
	data := randomBytes(size)
	seg := putCopies(t, m, "k", data)[0]
	n := m.nodes[0]
	for _, passes := range []int64{0, 1 << 20, 9<<20 + 1} {
		n.bulk.closeAll(time.Now().Add(time.Hour))
		n.forgetReads()
		first := n.replicasOf(part{&seg, 0, size}, false).all[0].drive
		owner, err := n.locate(testContext(t), first)
		must(t, err)
		dialer.passes.Store(passes)
		mute.Store(owner.URL[len("http://"):])
		began := time.Now()
		got, err := sendTo(t, n, "k", size, false, nil)
		took := time.Since(began)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("silent after %d: %d of %d bytes, %v", passes, len(got), size, err)
		}
		failovers, bad := w.take()
		// Once, or again where this machine is as slow as a silent peer.
		if failovers["deadline"] < 1 || len(bad) > 0 || took < silence || took > 10*time.Second {
			t.Errorf("silent after %d: failovers %v, bad %v, in %v", passes, failovers, bad, took)
		}
	}
}

// TestHedge: how long a drive is waited for goes by how long it took.
func TestHedge(t *testing.T) {
	var r readings
	if d := r.hedge("d"); d != hedgeAtFirst {
		t.Errorf("%v at first", d)
	}
	for _, c := range []struct{ took, want time.Duration }{
		{time.Microsecond, hedgeAtFirst}, {2 * time.Millisecond, hedgeMin}, {30 * time.Millisecond, 90 * time.Millisecond}, {time.Second, hedgeMax},
	} {
		for range 64 {
			r.waited("d", c.took)
		}
		if d := r.hedge("d"); d != c.want {
			t.Errorf("%v after reads of %v, want %v", d, c.took, c.want)
		}
	}
	if _, troubled := r.look("d"); troubled {
		t.Error("in trouble")
	}
	r.failed("d")
	if _, troubled := r.look("d"); !troubled {
		t.Error("not in trouble")
	}
}
