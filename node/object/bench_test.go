package object

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

// BenchmarkPut stores objects from memory: the index and the drive are both
// here, or both on the other node.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 64 << 20} {
		for _, where := range []string{"here", "elsewhere"} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, where), func(b *testing.B) {
				m := newMesh(b, meshConfig{drives: []int{1, 0}, options: func(_ int, o *Options) {
					o.SegmentBytes, o.ReclaimGrace = 0, 1
				}})
				m.bucket("bench")
				n := m.nodes[0]
				if where == "elsewhere" {
					n = m.nodes[1]
				}
				data := randomBytes(size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					req := PutRequest{Bucket: "bench", Key: "k", SizeBytes: int64(size)}
					if _, err := n.Put(b.Context(), req, bytes.NewReader(data), nil); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := m.nodes[0].reclaim(b.Context(), m.nodes[0].drives[0]); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkGet sends objects to a TCP connection whose other end reads.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 64 << 20} {
		for _, where := range []string{"here", "elsewhere"} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, where), func(b *testing.B) {
				m := newMesh(b, meshConfig{drives: []int{1, 0}, options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
				m.bucket("bench")
				n := m.nodes[0]
				if where == "elsewhere" {
					n = m.nodes[1]
				}
				n.put(b, "bench", "k", randomBytes(size), true)
				local, remote := pair(b)
				done := make(chan struct{})
				go func() {
					defer close(done)
					io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ net.Conn }{remote}, make([]byte, 256<<10))
				}()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					r, err := n.Open(b.Context(), "bench", "k", Conditions{}, 0)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := r.Send(b.Context(), local, 0, -1, dataio.Windows{}); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				local.Close()
				<-done
			})
		}
	}
}

// BenchmarkSums compares summing up in a goroutine of its own with summing up
// in the reader's, around a drive that takes the bytes.
func BenchmarkSums(b *testing.B) {
	const size = 64 << 20
	data := randomBytes(size)
	d, err := dataio.Open(b.Context(), b.TempDir(), dataio.Options{Deployment: "d", Node: "n"})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	pool := &sync.Pool{}
	pool.New = func() any { return &chunk{home: pool} }
	for _, own := range []bool{true, false} {
		b.Run(fmt.Sprintf("own goroutine %v", own), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				id := dataio.NewID()
				w, err := d.Create(b.Context(), id, size)
				if err != nil {
					b.Fatal(err)
				}
				body := &bodyReader{r: bytes.NewReader(data), declared: size, limit: size}
				sums := newSums()
				if own {
					h := newHasher(sums)
					for !body.ended {
						c := pool.Get().(*chunk)
						c.hold()
						c.n, _ = body.fill(b.Context(), c.buf[:])
						h.add(c)
						w.Write(c.bytes())
						c.release()
					}
					h.finish()
				} else {
					c := new(chunk)
					for !body.ended {
						c.n, _ = body.fill(b.Context(), c.buf[:])
						sums.add(c.bytes())
						w.Write(c.bytes())
					}
				}
				if err := w.Abort(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
