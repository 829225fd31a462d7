package object

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gridloom/gridloom/dataio"
)

// BenchmarkPutReplicated stores objects with three copies, on three nodes of one
// process, and beside it does what the disk does by itself: the same bytes into
// three files side by side, each synced, and its directory. The two take turns,
// as a disk gets slower with what it has been given before. An operation is a
// batch of puts, four for each client; "of-bare" is how fast it is beside the
// files, in elapsed and in processor time.
func BenchmarkPutReplicated(b *testing.B) {
	for _, c := range []struct{ size, clients int }{{4 << 10, 64}, {64 << 10, 1}, {64 << 10, 64}, {64 << 20, 1}, {64 << 20, 4}} {
		b.Run(fmt.Sprintf("%dKiB/%dclients", c.size>>10, c.clients), func(b *testing.B) {
			data := randomBytes(c.size)
			m := newMesh(b, meshConfig{drives: []int{1, 1, 1}, options: func(_ int, o *Options) {
				o.SegmentBytes, o.ReclaimGrace, o.CopyGrace = 0, 1, 0
			}})
			m.bucket("bench")
			var dirs [3]*os.Root
			for i := range dirs {
				var err error
				if dirs[i], err = os.OpenRoot(b.TempDir()); err != nil {
					b.Fatal(err)
				}
				defer dirs[i].Close()
			}
			batch := 4 * c.clients
			b.SetBytes(int64(c.size * batch))
			var put, bare cost
			for b.Loop() {
				put.of(b, batch, c.clients, func(i int) error {
					req := PutRequest{Bucket: "bench", Key: fmt.Sprint(i), SizeBytes: int64(c.size)}
					_, err := m.nodes[0].Put(b.Context(), req, bytes.NewReader(data), nil)
					return err
				})
				b.StopTimer()
				bare.of(b, batch, c.clients, func(i int) error {
					var g errgroup.Group
					for _, dir := range dirs {
						g.Go(func() error { return bareWrite(dir, dataio.NewID().String(), data) })
					}
					return g.Wait()
				})
				for i, n := range m.nodes {
					for _, d := range n.drives {
						if err := n.reclaim(b.Context(), d); err != nil {
							b.Fatal(err)
						}
					}
					names, err := fs.ReadDir(dirs[i].FS(), ".")
					for _, e := range names {
						err = errors.Join(err, dirs[i].Remove(e.Name()))
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			n := float64(b.N * batch)
			b.ReportMetric(put.wall.Seconds()*1e3/n, "put-ms")
			b.ReportMetric(bare.wall.Seconds()*1e3/n, "bare-ms")
			b.ReportMetric(bare.wall.Seconds()/put.wall.Seconds(), "of-bare")
			b.ReportMetric(put.cpu.Seconds()*1e3/n, "put-cpu-ms")
			b.ReportMetric(bare.cpu.Seconds()*1e3/n, "bare-cpu-ms")
			b.ReportMetric(float64(m.nodes[0].recorded.copiesMissing())/n, "missing/put")
		})
	}
}

// cost is what batches have taken.
type cost struct{ wall, cpu time.Duration }

// of has clients do n things together.
func (c *cost) of(b *testing.B, n, clients int, do func(i int) error) {
	cpu, start := cpuTime(b), time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := do(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c.wall += time.Since(start)
	c.cpu += cpuTime(b) - cpu
}

// cpuTime is what the process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
