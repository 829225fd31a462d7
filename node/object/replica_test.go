package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/control"
)

// driveByID finds a drive of the mesh.
func (m *testMesh) driveByID(id string) *dataio.Drive {
	for _, d := range m.drives() {
		if d.ID() == id {
			return d
		}
	}
	return nil
}

// wantCopies checks that an object is in the index, and that each copy that its
// record tells of is whole: at least so many of each segment, none of them on
// the drives that failed. It returns how many there are.
func (m *testMesh) wantCopies(t testing.TB, bucket, key string, data []byte, least int, failed ...*dataio.Drive) (copies int) {
	t.Helper()
	ctx := testContext(t)
	a, err := m.nodes[0].ctl.Read(ctx, &control.Query{Record: &control.RecordQuery{Bucket: bucket, Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Record.ETag != shaHex(data) {
		t.Fatalf("%s: the record is another one's", key)
	}
	rest := data
	for i, seg := range a.Record.Segments {
		part := rest[:seg.SizeBytes]
		rest = rest[seg.SizeBytes:]
		drives := slices.Compact(slices.Sorted(slices.Values(seg.Drives)))
		if len(drives) != len(seg.Drives) || len(drives) < least {
			t.Errorf("%s: segment %d is on %v, want %d drives at least", key, i, seg.Drives, least)
		}
		for _, id := range drives {
			copies++
			d := m.driveByID(id)
			if slices.Contains(failed, d) {
				t.Errorf("%s: segment %d is said to be on %s, which failed", key, i, id)
			}
			if err := wantFile(ctx, d, seg, part); err != nil {
				t.Errorf("%s: segment %d on %s: %v", key, i, id, err)
			}
		}
	}
	if len(rest) != 0 && len(a.Record.Inline) != len(data) {
		t.Errorf("%s: %d bytes are in no segment", key, len(rest))
	}
	return copies
}

// wantFile checks one file against its checksums and content.
func wantFile(ctx context.Context, d *dataio.Drive, seg control.Segment, data []byte) error {
	f, err := d.Open(ctx, seg.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Verify(ctx, 0, -1); err != nil {
		return err
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if f.SizeBytes() != int64(len(data)) || f.CRC32C() != seg.CRC32C || !bytes.Equal(got, data) {
		return fmt.Errorf("%d other bytes", f.SizeBytes())
	}
	return nil
}

// TestSpread: copies go to as many zones as there are, then to as many nodes,
// whoever is asked.
func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		drives       []int
		zones        []string
		copies       int
		inZones, inN int
	}{
		"one drive":                  {[]int{1}, nil, 1, 1, 1},
		"two drives of a node":       {[]int{2}, nil, 2, 1, 1},
		"two nodes":                  {[]int{2, 2}, nil, 3, 2, 2},
		"five nodes":                 {[]int{1, 1, 1, 1, 1}, nil, 3, 3, 3},
		"three zones of five nodes":  {[]int{1, 1, 1, 1, 1}, []string{"a", "a", "a", "b", "c"}, 3, 3, 3},
		"two zones of four nodes":    {[]int{2, 2, 2, 2}, []string{"a", "a", "a", "b"}, 3, 2, 3},
		"a zone and a node that has": {[]int{3, 1}, []string{"a", ""}, 3, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, meshConfig{drives: c.drives, place: func(node int) (string, string) {
				if c.zones == nil {
					return "", ""
				}
				return "somewhere", c.zones[node]
			}})
			m.bucket("spread")
			for i, size := range []int{InlineMaxBytes + 1, GridMaxBytes, testSegment, 2*testSegment + 1} {
				key, data := fmt.Sprint(size), randomBytes(size)
				m.nodes[i%len(m.nodes)].put(t, "spread", key, data, i%2 == 0)
				segs := m.segmentsOf(t, "spread", key)
				if got := m.wantCopies(t, "spread", key, data, c.copies); got != c.copies*len(segs) {
					t.Errorf("%d copies of %d segments, want %d of each", got, len(segs), c.copies)
				}
				for _, seg := range segs {
					zones, nodes := map[string]bool{}, map[string]bool{}
					for _, id := range seg.Drives {
						n, _ := m.nodes[0].ctl.Topology().Drive(id)
						zones[(&target{node: *n}).zone()], nodes[n.Name] = true, true
					}
					if len(zones) != c.inZones || len(nodes) != c.inN {
						t.Errorf("in %d zones and on %d nodes, want %d and %d", len(zones), len(nodes), c.inZones, c.inN)
					}
				}
			}
		})
	}
}

// stall is a fault that lasts until the test ends it.
type stall struct {
	wait    chan struct{}
	release func()
}

func newStall() *stall {
	s := &stall{wait: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.wait) })
	return s
}

// replicaFaults is what goes wrong with one of the drives, until it is
// released.
var replicaFaults = map[string]func(f *datatest.Faults) (release func()){
	"sync fails": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpSync, Times: -1, Err: syscall.EIO})
		return f.Clear
	},
	"directory sync fails": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpSyncDir, Times: -1, Err: syscall.EIO})
		return f.Clear
	},
	"first write fails": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpWrite, Times: -1, Err: syscall.EIO})
		return f.Clear
	},
	"a later write fails": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpWrite, Skip: 2, Times: -1, Err: syscall.EIO})
		return f.Clear
	},
	"create fails": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpCreate, Times: -1, Err: syscall.EIO})
		return f.Clear
	},
	"read-only": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpCreate, Times: -1, Err: syscall.EROFS})
		return f.Clear
	},
	"full from the start": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpAllocate, Times: -1, Err: syscall.ENOSPC})
		f.Add(datatest.Fault{Op: dataio.OpWrite, Times: -1, Err: syscall.ENOSPC})
		return f.Clear
	},
	"full in the middle": func(f *datatest.Faults) func() {
		f.Add(datatest.Fault{Op: dataio.OpWrite, Skip: 1, Times: -1, Err: syscall.ENOSPC})
		return f.Clear
	},
	"create stalls":         stalls(dataio.OpCreate, 0),
	"first write stalls":    stalls(dataio.OpWrite, 0),
	"a later write stalls":  stalls(dataio.OpWrite, 2),
	"sync stalls":           stalls(dataio.OpSync, 0),
	"directory sync stalls": stalls(dataio.OpSyncDir, 0),
	"space isn't told":      stalls(dataio.OpUsage, 0),
}

func stalls(op dataio.OpKind, skip int) func(*datatest.Faults) func() {
	return func(f *datatest.Faults) func() {
		s := newStall()
		f.Add(datatest.Fault{Op: op, Skip: skip, Times: -1, Wait: s.wait, Done: true})
		return func() { f.Clear(); s.release() }
	}
}

// wantChunksBack waits until nobody holds a chunk of the node's.
func (n *testNode) wantChunksBack(t *testing.T) {
	t.Helper()
	for ctx := testContext(t); ; {
		_, held := n.recorded.chunksOf()
		if held == 0 {
			return
		}
		if pause(ctx) != nil {
			t.Fatalf("%d chunks are still held", held)
		}
	}
}

// TestReplicaFaults: one drive of three fails in every way, here or on another
// node. Each put is acknowledged all the same, soon, and rests on the others
// alone; when the drive is back nothing is left behind on it.
func TestReplicaFaults(t *testing.T) {
	for name, begin := range replicaFaults {
		for _, where := range []string{"here", "elsewhere"} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				faults := make([]datatest.Faults, 3)
				m := newMesh(t, meshConfig{
					drives:  []int{1, 1, 1},
					drive:   func(node int) dataio.Options { return dataio.Options{Interceptor: &faults[node]} },
					options: func(_ int, o *Options) { o.CopyGrace = 400 * time.Millisecond },
				})
				m.bucket("faults")
				n, bad := m.nodes[0], 0
				if where == "elsewhere" {
					bad = 2
				}
				n.put(t, "faults", "before", randomBytes(GridMaxBytes+1), true)
				before := len(m.files())
				release := begin(&faults[bad])
				t.Cleanup(release) // before the mesh's
				want := 0
				for i, size := range []int{InlineMaxBytes + 1, GridMaxBytes, 3*GridMaxBytes + 5, testSegment, 2*testSegment + GridMaxBytes + 7} {
					known := (i%2 == 0) != (bad == 0)
					key, data := fmt.Sprint(i), randomBytes(size)
					start := time.Now()
					n.put(t, "faults", key, data, known)
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("%d bytes, known %v: took %v", size, known, took)
					}
					var failed []*dataio.Drive
					if !strings.Contains(name, "later") && !strings.Contains(name, "middle") {
						failed = m.nodes[bad].drives
					}
					want += m.wantCopies(t, "faults", key, data, 2, failed...)
				}
				release()
				m.wantFiles(before + want)
				if left := n.recorded.leftBehind(); left != 0 {
					t.Errorf("%d files left behind", left)
				}
				n.wantChunksBack(t)
			})
		}
	}
}
