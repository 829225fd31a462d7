package object

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
)

// BenchmarkPutReplicated stores objects with three copies, on three nodes of one
// process, at several sizes and numbers of clients; "bare" is what the disk
// does by itself: the same bytes into three files side by side, each synced,
// and its directory.
func BenchmarkPutReplicated(b *testing.B) {
	for _, c := range []struct{ size, clients int }{{4 << 10, 64}, {64 << 10, 1}, {64 << 10, 64}, {64 << 20, 1}, {64 << 20, 4}} {
		name := fmt.Sprintf("%dKiB/%dclients", c.size>>10, c.clients)
		data := randomBytes(c.size)
		b.Run(name+"/put", func(b *testing.B) {
			m := newMesh(b, meshConfig{drives: []int{1, 1, 1}, options: func(_ int, o *Options) {
				o.SegmentBytes, o.ReclaimGrace, o.CopyGrace = 0, 1, 0
			}})
			m.bucket("bench")
			n := m.nodes[0]
			benchClients(b, c.size, c.clients, func(client int) error {
				req := PutRequest{Bucket: "bench", Key: fmt.Sprint(client), SizeBytes: int64(c.size)}
				_, err := n.Put(b.Context(), req, bytes.NewReader(data), nil)
				return err
			})
			n.recorded.mu.Lock()
			b.ReportMetric(float64(n.recorded.missing)/float64(b.N), "missing/op")
			n.recorded.mu.Unlock()
		})
		b.Run(name+"/bare", func(b *testing.B) {
			var dirs [3]*os.Root
			for i := range dirs {
				var err error
				if dirs[i], err = os.OpenRoot(b.TempDir()); err != nil {
					b.Fatal(err)
				}
				defer dirs[i].Close()
			}
			benchClients(b, c.size, c.clients, func(int) error {
				name := dataio.NewID().String()
				var g errgroup.Group
				for _, dir := range dirs {
					g.Go(func() error { return bareWrite(dir, name, data) })
				}
				return g.Wait()
			})
		})
	}
}

// benchClients has clients do one thing b.N times together.
func benchClients(b *testing.B, size, clients int, do func(client int) error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := do(client); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// bareWrite is one copy without Gridloom: in chunks, synced.
func bareWrite(dir *os.Root, name string, data []byte) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(len(data))); err != nil {
		return err
	}
	for part := range slices.Chunk(data, chunkBytes) {
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	if err := syscall.Fdatasync(int(f.Fd())); err != nil {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
