package grid

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
)

func heapInUse() int {
	for range 3 {
		runtime.GC()
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return int(ms.HeapAlloc)
}

// TestIdleConnectionIsCheap pins what an idle connection costs at each end.
func TestIdleConnectionIsCheap(t *testing.T) { tryIdle(t, 16) }

// tryIdle has n nodes: n(n-1)/2 connections, with two ends each.
func tryIdle(t *testing.T, n int) {
	if poisonRecycled {
		t.Log("the race detector's own memory is in these figures: not judged")
	}
	heap, goroutines := heapInUse(), runtime.NumGoroutine()
	nodes := newTestMesh(t, n)
	for _, a := range nodes { // past the handshakes, with every first ping answered
		for _, b := range nodes {
			for a.Connection(b.Local()).Stats().RTT == 0 {
				yield()
			}
		}
	}
	ends := n * (n - 1)
	heap, goroutines = (heapInUse()-heap)/ends, runtime.NumGoroutine()-goroutines
	// Each node's loopback and listener have goroutines of their own.
	perEnd := float64(goroutines-6*n) / float64(ends)
	t.Logf("%d connections: %d bytes of heap and %.1f goroutines at each end", ends/2, heap, perEnd)
	if !poisonRecycled && heap > 32<<10 {
		t.Errorf("%d bytes of heap at each end, 32 KiB allowed", heap)
	}
	if perEnd > 4 {
		t.Errorf("%.1f goroutines at each end, 4 allowed", perEnd)
	}
}

// waitingHeap is what n goroutines that are there already cost on the heap by
// waiting: a closure and a place in a channel's queue each.
func waitingHeap(n int) int {
	before := heapInUse()
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { <-release })
	}
	after := heapInUse()
	close(release)
	wg.Wait()
	return (after - before) / n
}

// TestManyCallsInFlight has very many requests wait in their handlers at once
// on one connection.
func TestManyCallsInFlight(t *testing.T) {
	if poisonRecycled {
		tryInFlight(t, 5_000)
		return
	}
	tryInFlight(t, 20_000)
}

func tryInFlight(t *testing.T, n int) {
	nodes := newTestMesh(t, 2)
	var entered sync.WaitGroup
	entered.Add(n)
	release := make(chan struct{})
	if err := nodes[1].Register(Handler{ID: blockID, Single: func(ctx context.Context, req []byte) ([]byte, error) {
		entered.Done()
		<-release
		return req, nil
	}}); err != nil {
		t.Fatal(err)
	}
	waitingHeap(2 * n)        // the runtime keeps the descriptors of ended goroutines
	waiting := waitingHeap(n) // what the test's own callers and handlers cost
	before := heapInUse()
	var stacksBefore runtime.MemStats
	runtime.ReadMemStats(&stacksBefore)
	c, ctx := nodes[0].Connection(nodes[1].Local()), context.Background()
	var wg sync.WaitGroup
	req := make([]byte, 64)
	for range n {
		wg.Go(func() {
			if _, err := c.Request(ctx, blockID, req); err != nil {
				t.Error(err)
			}
		})
	}
	entered.Wait()
	var ms runtime.MemStats
	each := (heapInUse() - before) / n
	runtime.ReadMemStats(&ms)
	each -= waiting + len(req)
	t.Logf("%d calls: %d bytes of heap for each call in flight, beside its payload and two goroutines with stacks of together %d",
		n, each, int(ms.StackInuse-stacksBefore.StackInuse)/n)
	if !poisonRecycled && n >= 20_000 && each > 1<<10 { // with fewer the fixed costs show
		t.Errorf("%d bytes of heap for each call in flight", each)
	}
	close(release)
	wg.Wait()
}

// TestAllocations pins the garbage of a round trip, both ends together.
func TestAllocations(t *testing.T) {
	if poisonRecycled {
		t.Log("under the race detector pools drop what they are given: not judged")
		return
	}
	nodes := newTestMesh(t, 2)
	registerAll(t, nodes[1].Manager)
	c, ctx := nodes[0].Connection(nodes[1].Local()), context.Background()
	req, dst := make([]byte, 512), make([]byte, 0, 512)
	call := map[string]func() error{
		"append": func() error { _, err := c.AppendRequest(ctx, echoID, dst[:0], req); return err },
		"plain":  func() error { _, err := c.Request(ctx, echoID, req); return err },
	}
	for name, limit := range map[string]float64{"append": 1, "plain": 4} {
		got := testing.AllocsPerRun(5000, func() {
			if err := call[name](); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %.2f allocations", name, got)
		if got > limit+0.1 { // the runtime's own, now and then
			t.Errorf("%s: %.2f allocations a round trip, %v allowed", name, got, limit)
		}
	}
}

// TestMaskedLink runs a link whose ends have not agreed on the zero key.
func TestMaskedLink(t *testing.T) {
	nodes := newTestMesh(t, 1)
	m := nodes[0].Manager
	registerAll(t, m)
	near, far := net.Pipe()
	peer := peerParams{name: "http://peer:1", maxMessage: m.o.MaxMessage, reassembly: m.o.ReassemblyBudget, window: m.o.SessionWindow}
	c := newConnection(m, host{name: peer.name})
	dialled := newSession(m, c, near, SessionInfo{Dialled: true}, peer, featureCRC)
	accepted := newSession(m, newConnection(m, host{name: peer.name}), far, SessionInfo{}, peer, featureCRC)
	if dialled.maskKey == [4]byte{} {
		t.Fatal("the key is zero")
	}
	c.session.Store(dialled)
	var wg sync.WaitGroup
	wg.Go(func() { _ = dialled.run() })
	wg.Go(func() { _ = accepted.run() })
	for _, size := range []int{0, 1, 7, 512, 70_001, 1 << 20} {
		req := bytes.Repeat([]byte(fmt.Sprint("masked", size)), size/6+1)[:size]
		resp, err := c.Request(testContext(t), echoID, req)
		if err != nil || !bytes.Equal(resp, req) {
			t.Errorf("%d bytes: %d, %v", size, len(resp), err)
		}
	}
	dialled.fail(ErrClosed)
	wg.Wait()
}

// TestDirectWrite counts how often the writer goroutine is woken by calls on
// an idle link: the caller writes, and the reader what it owes the peer.
func TestDirectWrite(t *testing.T) {
	nodes := newTestMesh(t, 1)
	m := nodes[0].Manager
	registerAll(t, m)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	peer := peerParams{name: "http://peer:1", maxMessage: m.o.MaxMessage, reassembly: m.o.ReassemblyBudget, window: m.o.SessionWindow}
	c := newConnection(m, host{name: peer.name})
	var wg sync.WaitGroup
	caller := newSession(m, c, near, SessionInfo{Dialled: true}, peer, ourFeatures)
	if caller.direct == nil && runtime.GOOS == "linux" {
		t.Fatal("callers can't write")
	}
	woken := 0
	wg.Go(func() {
		for {
			select {
			case <-caller.writerWake:
				woken++
				caller.flushBlocking()
			case <-caller.dead:
				return
			}
		}
	})
	server := newSession(m, newConnection(m, host{name: peer.name}), far, SessionInfo{}, peer, ourFeatures)
	c.session.Store(caller)
	wg.Go(func() { _ = caller.readLoop() })
	wg.Go(func() { _ = server.run() })
	const calls = 200
	for i := range calls {
		req := bytes.Repeat([]byte{byte(i)}, 5*i)
		resp, err := c.Request(testContext(t), echoID, req)
		if err != nil || !bytes.Equal(resp, req) {
			t.Fatalf("call %d: %d bytes, %v", i, len(resp), err)
		}
	}
	caller.fail(ErrClosed)
	wg.Wait()
	t.Logf("%d of %d calls woke the writer", woken, calls)
	if caller.direct != nil && woken > calls/4 { // chance has some meet the reader's answers to pings
		t.Errorf("%d of %d calls woke the writer", woken, calls)
	}
}
