package grid

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestPooledClasses holds the lengths of pooled buffers against what Recycle
// relies upon: a buffer's capacity alone leads back to its pool.
func TestPooledClasses(t *testing.T) {
	if last, size := pooledClass(maxPooled); last != pooledClasses-1 || size != maxPooled {
		t.Fatalf("the last class is %d of %d bytes", last, size)
	}
	if first, _ := pooledClass(minPooled + 1); first != 0 {
		t.Fatalf("the first class is %d", first)
	}
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(minPooled+1, maxPooled).Draw(r, "n")
		index, size := pooledClass(n)
		if size < n || size > n+n/perOctave {
			r.Fatalf("%d bytes are given %d", n, size)
		}
		if again, same := pooledClass(size); again != index || same != size {
			r.Fatalf("%d bytes are of class %d, their buffer of %d bytes is of %d", n, index, size, again)
		}
		if size < maxPooled {
			if next, _ := pooledClass(size + 1); next != index+1 {
				r.Fatalf("after class %d comes %d", index, next)
			}
		}
		if b := newBuffer(n); len(b) != n || cap(b) != size {
			r.Fatalf("a buffer for %d bytes has %d of %d, not of %d", n, len(b), cap(b), size)
		}
	})
}

// TestRecycleLeavesForeignMemory gives Recycle what is none of its buffers.
func TestRecycleLeavesForeignMemory(t *testing.T) {
	for _, b := range [][]byte{
		nil, {}, make([]byte, 512), make([]byte, minPooled), make([]byte, 64<<10+1), make([]byte, 64<<10)[1:],
		make([]byte, 10, 70_000), make([]byte, maxPooled+4096),
	} {
		Recycle(b)
		if !bytes.Equal(b[:cap(b)], make([]byte, cap(b))) {
			t.Errorf("%d of %d bytes were taken", len(b), cap(b))
		}
	}
}

// TestRecycledMemoryIsPoisoned looks at memory that it has given back, as
// nobody else may.
func TestRecycledMemoryIsPoisoned(t *testing.T) {
	if !poisonRecycled {
		t.Log("poisoning is off in this build")
		return
	}
	b := newMessage(make([]byte, 50_000))
	Recycle(b[:10])
	if want := bytes.Repeat([]byte{0xDB}, cap(b)); !bytes.Equal(b[:cap(b)], want) {
		t.Error("recycled memory is as it was")
	}
}

// TestRecyclingHurtsNobody has callers and handlers that recycle, in every
// way there is, beside some that keep what they got.
func TestRecyclingHurtsNobody(t *testing.T) {
	nodes := newTestMesh(t, 2)
	registerAll(t, nodes[1].Manager)
	if err := nodes[1].Register(Handler{ID: blockID, Stream: &StreamHandler{InCapacity: 64, OutCapacity: 64,
		Pull: func(ctx context.Context, _ []byte, p *Pipe) error {
			for {
				msg, err := p.Recv(ctx)
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if err := p.Send(ctx, msg); err != nil {
					return err
				}
				Recycle(msg)
			}
		}}}); err != nil {
		t.Fatal(err)
	}
	c, ctx := nodes[0].Connection(nodes[1].Local()), testContext(t)
	fillWith := func(who, i, size int) []byte {
		return bytes.Repeat(fmt.Appendf(nil, "%d.%d ", who, i), size/4+1)[:size]
	}
	sizes := []int{0, 100, 4097, 16 << 10, 16<<10 + 1, 50_000, 64 << 10, 64<<10 + 1, 300_000, 1 << 20, 3 << 20}
	check := func(who, i int, got, want []byte, err error) bool {
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d.%d: %d bytes instead of %d, or others: %v", who, i, len(got), len(want), err)
		}
		return err == nil
	}
	var wg sync.WaitGroup
	for who := range 2 {
		wg.Go(func() { // keeps
			var kept [][]byte
			for i, size := range sizes {
				got, err := c.Request(ctx, echoID, fillWith(who, i, size))
				if err != nil {
					t.Error(err)
				}
				kept = append(kept, got)
			}
			for i, got := range kept {
				check(who, i, got, fillWith(who, i, sizes[i]), nil)
			}
		})
		wg.Go(func() { // recycles by hand, and by AppendRequest
			dst := []byte("before ")
			for i, size := range sizes {
				want := fillWith(who, i, size)
				got, err := c.Request(ctx, echoID, want)
				check(who, i, got, want, err)
				Recycle(got)
				dst, err = c.AppendRequest(ctx, echoID, dst[:7], want)
				check(who, i, dst, append([]byte("before "), want...), err)
			}
		})
		wg.Go(func() { // a stream whose far end recycles what it was sent
			p, err := c.OpenPipe(ctx, blockID, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Cancel()
			dst := []byte("before ")
			for i, size := range sizes {
				want := fillWith(who, i, size)
				if err := p.Send(ctx, want); err != nil {
					t.Error(err)
					return
				}
				dst, err = p.RecvAppend(ctx, dst[:7])
				if !check(who, i, dst, append([]byte("before "), want...), err) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestRecycledStreamMakesNoGarbage pins what RecvAppend and AppendRequest
// leave to the collector of large messages: both ends together, less than a
// tenth of the bytes that went through.
func TestRecycledStreamMakesNoGarbage(t *testing.T) {
	if poisonRecycled {
		t.Log("under the race detector pools drop what they are given: not judged")
		return
	}
	const size, count = 200_000, 1000 // in several frames
	nodes := newTestMesh(t, 2)
	blob := make([]byte, size)
	if err := nodes[1].Register(Handler{ID: countID, Single: func(context.Context, []byte) ([]byte, error) { return blob, nil }}); err != nil {
		t.Fatal(err)
	}
	if err := nodes[1].Register(Handler{ID: blockID, Stream: &StreamHandler{InCapacity: 64, OutCapacity: 1,
		Pull: func(ctx context.Context, _ []byte, p *Pipe) error {
			for dst, err := []byte(nil), error(nil); ; {
				if dst, err = p.RecvAppend(ctx, dst[:0]); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		}}}); err != nil {
		t.Fatal(err)
	}
	c, ctx := nodes[0].Connection(nodes[1].Local()), testContext(t)
	garbage := func(f func()) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / count / size
	}
	msg := make([]byte, size)
	p, err := c.OpenPipe(ctx, blockID, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream := garbage(func() {
		for range count {
			if err := p.Send(ctx, msg); err != nil {
				t.Fatal(err)
			}
		}
		p.CloseSend()
		if _, err := p.Recv(ctx); err != io.EOF {
			t.Fatal(err)
		}
	})
	t.Logf("stream: %.3f bytes for each that was sent", stream)
	dst := make([]byte, 0, size)
	answers := garbage(func() {
		for range count {
			if dst, err = c.AppendRequest(ctx, countID, dst[:0], nil); err != nil || len(dst) != size {
				t.Fatal(len(dst), err)
			}
		}
	})
	t.Logf("answers: %.3f bytes for each that was received", answers)
	if stream > 0.1 || answers > 0.1 {
		t.Errorf("a stream leaves %.2f bytes for each that was sent, AppendRequest %.2f for each of the answer", stream, answers)
	}
}
