package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
	"github.com/gridloom/gridloom/node/fault"
)

// mesh is nodes a, b, … on a grid in memory.
type mesh struct {
	*gridtest.Mesh
	t     *testing.T
	disks []vfs.FS
	nodes []*Control
}

func newMesh(t *testing.T, n int, change func(i int, o *grid.ManagerOptions)) *mesh {
	m := &mesh{Mesh: gridtest.New(t, n, change), t: t, nodes: make([]*Control, n)}
	for range n {
		m.disks = append(m.disks, vfs.NewMem())
	}
	return m
}

func name(i int) string { return string(rune('a' + i)) }

// peers are the first n nodes.
func (m *mesh) peers(n int) map[string]string {
	peers := map[string]string{}
	for i := range n {
		peers[name(i)] = m.Node(i).Local()
	}
	return peers
}

// options are those of node i, with its own disk.
func (m *mesh) options(i int) Options {
	o := Options{Self: name(i), Grid: m.Node(i), fs: m.disks[i], Peers: m.peers(len(m.disks))}
	if os.Getenv("DEBUGLOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", o.Self)
	}
	o.Fetch = func(ctx context.Context, node, path string, offset int64, to io.Writer) error {
		from := m.nodes[node[0]-'a']
		file, release, err := from.SnapshotFile(path)
		if err != nil {
			return err
		}
		defer release()
		f, err := from.fs.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(to, io.NewSectionReader(f, offset, 1<<40))
		return err
	}
	return o
}

// open opens node i; it is closed with the test, or before.
func (m *mesh) open(i int, change func(*Options)) *Control {
	m.t.Helper()
	o := m.options(i)
	if change != nil {
		change(&o)
	}
	c, err := Open(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.nodes[i] = c
	m.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			m.t.Error(err)
		}
	})
	return c
}

func ready(t *testing.T, c *Control) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatalf("node %s: %v", c.self, err)
	}
}

func createBucket(t *testing.T, x Index, name string) *Bucket {
	t.Helper()
	res, err := x.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Bucket
}

// putOf is a put of a small object.
func putOf(b *Bucket, key, etag string) *Command {
	return &Command{PutRecord: &PutRecord{BucketName: b.Name, BucketID: b.ID, Record: Record{Key: key, ETag: etag, Inline: []byte(etag), SizeBytes: int64(len(etag))}}}
}

func TestAlone(t *testing.T) {
	began := time.Now()
	c, err := Open(t.Context(), Options{Self: "a", fs: vfs.NewMem(), Dir: ""})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(began))
	defer c.Close()
	b := createBucket(t, c, "b")
	for i := range 100 {
		if _, err := c.Propose(t.Context(), putOf(b, fmt.Sprint(i), "e")); err != nil {
			t.Fatal(err)
		}
	}
	a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
	if err != nil || len(a.Records) != 100 {
		t.Fatalf("%+v %v", a, err)
	}
	t.Logf("done after %v", time.Since(began))
}

func TestThree(t *testing.T) {
	m := newMesh(t, 3, nil)
	var wg sync.WaitGroup
	for i := range 3 {
		m.open(i, nil)
	}
	for _, c := range m.nodes {
		ready(t, c)
	}
	b := createBucket(t, m.nodes[1], "b")
	for i, c := range m.nodes {
		wg.Go(func() {
			for k := range 100 {
				if _, err := c.Propose(t.Context(), putOf(b, fmt.Sprint(i, "-", k), "e")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range m.nodes {
		a, err := c.Read(t.Context(), &Query{Records: &RecordsQuery{Bucket: "b"}})
		if err != nil || len(a.Records) != 300 {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if _, err := m.nodes[2].Propose(t.Context(), &Command{DeleteBucket: &DeleteBucket{Name: "b"}}); fault.KindOf(err) != fault.BucketNotEmpty {
		t.Fatal(err)
	}
}
