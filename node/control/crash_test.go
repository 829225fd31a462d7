package control

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/gridloom/gridloom/node/fault"
)

// After a crash at any moment, everything that was acknowledged is there, and
// whatever else is there is whole.
func TestCrash(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) { crashOne(t, seed) })
	}
}

func crashOne(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := vfs.NewCrashableMem()
	makeDir(t, disk, "data")
	crashed := crashDuringPuts(t, disk, rng)
	c, err := Open(t.Context(), Options{Dir: "data", Self: "a", fs: crashed.disk})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if c.Deployment() != crashed.deployment {
		t.Errorf("seed %d: mesh %s came back as %s", seed, crashed.deployment, c.Deployment())
	}
	for key, etag := range crashed.acknowledged {
		a, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: key}})
		if err != nil || a.Record.ETag < etag {
			t.Errorf("seed %d: %s was acknowledged with %s: %+v, %v", seed, key, etag, a, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}

// All nodes of a mesh lose their power at the same moment, with what wasn't
// synced: what was acknowledged is there, on all of them.
func TestCrashOfAll(t *testing.T) {
	for seed := range uint64(3) {
		virtual(t, 3, func(t *testing.T, m *mesh) {
			rng := rand.New(rand.NewPCG(seed, 2))
			var disks []*vfs.MemFS
			for i := range m.disks {
				disks = append(disks, vfs.NewCrashableMem())
				makeDir(t, disks[i], "data")
				m.disks[i] = disks[i]
			}
			inData := func(o *Options) { o.Dir = "data" }
			for i := range 3 {
				m.open(i, inData)
			}
			id := m.sameMesh()
			l := startLoad(t, m.running()...)
			for range 2 {
				pause(time.Duration(rng.Int64N(int64(2 * time.Second))))
				m.eventually("a put is acknowledged", l.begun)
				l.mu.Lock()
				for i := range disks {
					m.disks[i] = disks[i].CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				}
				seen := maps.Clone(l.acked)
				l.mu.Unlock()
				l.stop()
				l.writers.Wait()
				for i := range disks {
					m.stop(i)
				}
				for _, i := range rng.Perm(3) {
					disks[i] = m.disks[i].(*vfs.MemFS)
					m.open(i, inData)
				}
				if got := m.sameMesh(); got != id {
					t.Fatalf("seed %d: mesh %s came back as %s", seed, id, got)
				}
				l.acked = seen
				l.check(m)
				l.again(m.running()...)
			}
		})
	}
}

// makeDir makes a directory that survives a crash.
func makeDir(t *testing.T, disk vfs.FS, dir string) {
	t.Helper()
	if err := disk.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := disk.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.Sync(), root.Close()); err != nil {
		t.Fatal(err)
	}
}

type crash struct {
	disk         *vfs.MemFS
	deployment   string
	acknowledged map[string]string // key to ETag; later puts have greater ones
}

// crashDuringPuts puts from a few goroutines and clones the disk in the
// middle, as a crash would leave it. What was acknowledged before the clone
// must be in it.
func crashDuringPuts(t *testing.T, disk *vfs.MemFS, rng *rand.Rand) crash {
	t.Helper()
	c, err := Open(t.Context(), Options{Dir: "data", Self: "a", fs: disk})
	if err != nil {
		t.Fatal(err)
	}
	b := createBucket(t, c, "b")
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var count atomic.Int64
	enough := make(chan struct{})
	target := rng.Int64N(300) + 1
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key, etag := fmt.Sprintf("%d-%d", w, i%7), fmt.Sprintf("%06d", i)
				if _, err := c.Propose(t.Context(), putOf(b, key, etag)); err != nil {
					if fault.KindOf(err) != fault.Unavailable { // Close
						t.Error(err)
					}
					return
				}
				mu.Lock()
				acknowledged[key] = etag
				mu.Unlock()
				if count.Add(1) == target {
					close(enough)
				}
			}
		})
	}
	<-enough
	mu.Lock()
	seen := make(map[string]string, len(acknowledged))
	for k, v := range acknowledged {
		seen[k] = v
	}
	mu.Unlock()
	clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	return crash{disk: clone, deployment: c.Deployment(), acknowledged: seen}
}

// A crash before any single write of the first start and of the first puts
// leaves what can be started again, as the same mesh from the moment it was
// seen to have an id, with all that was acknowledged.
func TestCrashAtEveryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moments := crashMoments(t)
		if len(moments) < 30 {
			t.Errorf("only %d writes were seen", len(moments))
		}
		for i, m := range moments {
			c, err := Open(t.Context(), Options{Dir: "data", Self: "a", fs: m.disk})
			if err != nil {
				t.Errorf("write %d: %v", i, err)
				continue
			}
			if m.id != "" && c.Deployment() != m.id {
				t.Errorf("write %d: mesh %s came back as %s", i, m.id, c.Deployment())
			}
			for k := range m.keys {
				if _, err := c.Read(t.Context(), &Query{Record: &RecordQuery{Bucket: "b", Key: fmt.Sprint("k", k)}}); err != nil {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if err := c.Close(); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		}
		t.Logf("%d writes", len(moments))
	})
}

// moment is a disk as a crash would leave it, and what it must hold.
type moment struct {
	disk *vfs.MemFS
	id   string
	keys int
}

// crashMoments starts a node and puts a little, and takes down every moment
// before a write.
func crashMoments(t *testing.T) (moments []moment) {
	t.Helper()
	var mu sync.Mutex
	var now moment
	disk := vfs.NewCrashableMem()
	makeDir(t, disk, "data")
	watched := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFilePreallocate {
			mu.Lock()
			defer mu.Unlock()
			at := now
			at.disk = disk.CrashClone(vfs.CrashCloneCfg{})
			moments = append(moments, at)
		}
		return nil
	}))
	c, err := Open(t.Context(), Options{Dir: "data", Self: "a", fs: watched})
	if err != nil {
		t.Fatal(err)
	}
	acknowledge := func(id string, keys int) {
		mu.Lock()
		defer mu.Unlock()
		now.id, now.keys = id, keys
	}
	acknowledge(c.Deployment(), 0)
	b := createBucket(t, c, "b")
	for i := range 5 {
		mustPut(t, c, b, fmt.Sprint("k", i), "e")
		acknowledge(c.Deployment(), i+1)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return moments
}
