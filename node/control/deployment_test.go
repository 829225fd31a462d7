package control

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/uuid"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// A node that has belonged to one mesh doesn't take part in another.
func TestWrongMesh(t *testing.T) {
	m := newMesh(t, 2, nil)
	a, b := m.open(0, nil), m.open(1, nil)
	ready(t, b)
	first := b.Deployment()
	m.close(a)
	m.close(b)
	m.Restart(0)
	m.Restart(1)
	m.disks[0] = vfs.NewMem() // another mesh, or the index was lost
	a, b = m.open(0, nil), m.open(1, nil)
	if b.Deployment() != first {
		t.Errorf("the node has forgotten its mesh: %q", b.Deployment())
	}
	err := b.WaitReady(t.Context())
	if fault.KindOf(err) != fault.WrongMesh || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), a.Deployment()) {
		t.Errorf("ready: %v", err)
	}
	if _, err := b.Read(t.Context(), &Query{Topology: &TopologyQuery{}}); fault.KindOf(err) != fault.WrongMesh {
		t.Errorf("a query: %v", err)
	}
	if _, err := b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "b"}}); fault.KindOf(err) != fault.WrongMesh {
		t.Errorf("a command: %v", err)
	}
	if b.Deployment() != first {
		t.Errorf("the node has changed its mesh to %s", b.Deployment())
	}
}

// The id is the grid's realm as soon as the owner has confirmed it, and not
// before: otherwise a node of another mesh could not even learn that it is.
func TestWrongMeshBehindTheRealm(t *testing.T) {
	var nodes [3]atomic.Pointer[Control]
	m := newMesh(t, 3, func(i int, o *grid.ManagerOptions) {
		o.Realm = func() string {
			if c := nodes[i].Load(); c != nil {
				return c.Realm()
			}
			return ""
		}
	})
	if err := saveDeployment(m.disks[1], "", uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		nodes[i].Store(m.open(i, nil))
	}
	a, b, c := nodes[0].Load(), nodes[1].Load(), nodes[2].Load()
	if err := b.WaitReady(t.Context()); fault.KindOf(err) != fault.WrongMesh {
		t.Errorf("a node of another mesh: %v", err)
	}
	ready(t, c)
	if a.Realm() == "" || a.Realm() != c.Realm() || b.Realm() != "" || b.Deployment() == "" {
		t.Errorf("realms %q, %q and %q", a.Realm(), b.Realm(), c.Realm())
	}
	if _, err := c.Read(t.Context(), &Query{Topology: &TopologyQuery{}}); err != nil {
		t.Errorf("its own mesh: %v", err)
	}
}

// A data directory is used for what it was made for, or not at all.
func TestDataDirectories(t *testing.T) {
	disk := vfs.NewMem()
	c := openAlone(t, Options{fs: disk})
	id := c.Deployment()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	m := newMesh(t, 2, nil)
	for name, tc := range map[string]struct {
		prepare func(disk *vfs.MemFS)
		change  func(*Options)
		kind    fault.Kind
		text    string
	}{
		"the index is here and another node its owner": {
			change: func(o *Options) { o.Peers, o.Owner = []string{"0"}, "0" },
			kind:   fault.InvalidArgument, text: "state/data",
		},
		"the index was lost": {
			prepare: func(disk *vfs.MemFS) { _ = disk.RemoveAll("state") },
			kind:    fault.WrongMesh, text: id,
		},
		"the index was emptied": {
			prepare: func(disk *vfs.MemFS) {
				_ = errors.Join(disk.RemoveAll("state/data"), disk.MkdirAll("state/data", 0o700))
			},
			kind: fault.WrongMesh, text: id,
		},
		"the file with the id is of another mesh": {
			prepare: func(disk *vfs.MemFS) { _ = saveDeployment(disk, "", uuid.NewString()) },
			kind:    fault.WrongMesh, text: id,
		},
		"the file with the id isn't one": {
			prepare: func(disk *vfs.MemFS) { writeFile(t, disk, "deployment", "hello\n") },
			text:    "deployment: isn't the id of a mesh",
		},
		"the owner is no node": {
			change: func(o *Options) { o.Owner = "z" },
			kind:   fault.InvalidArgument, text: "z is none of the nodes [a]",
		},
		"no name":     {change: func(o *Options) { o.Self = "" }, kind: fault.InvalidArgument, text: "name"},
		"no grid":     {change: func(o *Options) { o.Owner, o.Peers, o.Grid = "b", []string{"b"}, nil }, kind: fault.InvalidArgument, text: "grid"},
		"in use":      {change: func(o *Options) { o.fs = lockedFS{o.fs} }, text: "state/data"},
		"a used grid": {prepare: func(*vfs.MemFS) { _ = (&Control{grid: m.Node(0)}).register() }, text: "100"},
	} {
		clone := vfs.NewMem()
		if ok, err := vfs.Clone(disk, clone, "", ""); err != nil || !ok {
			t.Fatal(ok, err)
		}
		if tc.prepare != nil {
			tc.prepare(clone)
		}
		o := Options{Self: "a", fs: clone, Grid: m.Node(0), Conn: func(string) *grid.Connection { return m.Connection(0, 1) }}
		if tc.change != nil {
			tc.change(&o)
		}
		c, err := Open(t.Context(), o)
		if err == nil {
			t.Errorf("%s: opened", name)
			m.close(c)
			continue
		}
		if tc.kind != 0 && fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
		if files, err := clone.List("state/data"); err == nil && len(files) > 0 && strings.HasPrefix(name, "the index was") {
			t.Errorf("an index was made up for old data: %q", files)
		}
	}
}

// A start with the wrong list of nodes is refused, and leaves nothing behind
// that would be in the way of the right one.
func TestStartAfterRefusedStart(t *testing.T) {
	m := newMesh(t, 2, nil)
	m.open(0, nil)
	b := m.open(1, nil)
	ready(t, b)
	id := b.Deployment()
	m.close(b)
	m.Restart(1)
	if c, err := Open(t.Context(), Options{Self: "b", fs: m.disks[1]}); fault.KindOf(err) != fault.WrongMesh {
		t.Fatalf("alone: %v, %v", c, err)
	}
	if _, err := m.disks[1].Stat("state"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the refused start has made a directory for an index: %v", err)
	}
	b = m.open(1, nil)
	ready(t, b)
	if b.Deployment() != id {
		t.Errorf("mesh %s came back as %s", id, b.Deployment())
	}
	m.close(b)
	m.Restart(1)
	// Nor is a lock without a store an index: a crash may have left it.
	if err := m.disks[1].MkdirAll("state/data", 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, m.disks[1], "state/data/LOCK", "")
	ready(t, m.open(1, nil))
}

// lockedFS is one whose locks another process holds.
type lockedFS struct{ vfs.FS }

func (lockedFS) Lock(string) (io.Closer, error) { return nil, errors.New("locked") }

func writeFile(t *testing.T, disk vfs.FS, name, text string) {
	t.Helper()
	f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// The file with the id is there whole after a crash, or not at all; once
// saving it has returned, it is there.
func TestDeploymentFileSurvivesCrashes(t *testing.T) {
	disk := vfs.NewCrashableMem()
	makeDir(t, disk, "data")
	id := uuid.NewString()
	var before []*vfs.MemFS
	watched := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			before = append(before, disk.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	}))
	if err := saveDeployment(watched, "data", id); err != nil {
		t.Fatal(err)
	}
	for i, clone := range before {
		if got, err := loadDeployment(clone, "data"); err != nil || got != "" && got != id {
			t.Errorf("after a crash before write %d of %d: %q, %v", i, len(before), got, err)
		}
	}
	if got, err := loadDeployment(disk.CrashClone(vfs.CrashCloneCfg{}), "data"); err != nil || got != id {
		t.Errorf("after it was saved: %q, %v", got, err)
	}
}
