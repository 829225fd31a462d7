package control

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/uuid"

	"github.com/gridloom/gridloom/node/fault"
)

// A data directory is used for what it was made for, or not at all.
func TestDataDirectories(t *testing.T) {
	virtual(t, 2, func(t *testing.T, m *mesh) {
		disk := vfs.NewMem()
		c := openAlone(t, Options{fs: disk})
		id := c.Deployment()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			prepare func(disk *vfs.MemFS)
			change  func(*Options)
			kind    fault.Kind
			text    string
		}{
			"the state of the system group was lost": {
				prepare: func(disk *vfs.MemFS) { _ = disk.RemoveAll("state/system") },
				kind:    fault.WrongMesh, text: "state of group system is missing",
			},
			"the state of the data group was lost": {
				prepare: func(disk *vfs.MemFS) { _ = disk.RemoveAll("state/data-1") },
				kind:    fault.WrongMesh, text: "state of group data-1 is missing",
			},
			"the states were emptied": {
				prepare: func(disk *vfs.MemFS) {
					_ = errors.Join(disk.RemoveAll("state/system/1"), disk.MkdirAll("state/system/1", 0o700))
				},
				kind: fault.WrongMesh, text: "state of group system is missing",
			},
			"the raft log was lost": {
				prepare: func(disk *vfs.MemFS) { _ = disk.RemoveAll("raftlog") },
				kind:    fault.WrongMesh, text: "gridloom node replace a",
			},
			"the raft log and the mesh's id were lost": {
				prepare: func(disk *vfs.MemFS) { _ = errors.Join(disk.RemoveAll("raftlog"), disk.Remove(deploymentFile)) },
				kind:    fault.WrongMesh, text: "raft log is missing",
			},
			"the raft log was emptied": {
				prepare: func(disk *vfs.MemFS) {
					_ = errors.Join(disk.RemoveAll("raftlog"), disk.MkdirAll("raftlog", 0o700))
				},
				kind: fault.WrongMesh, text: "raft log is missing",
			},
			"the raft id was lost": {
				prepare: func(disk *vfs.MemFS) { _ = disk.Remove(raftIDFile) },
				kind:    fault.WrongMesh, text: raftIDFile,
			},
			"all but the mesh's id was lost": {
				prepare: func(disk *vfs.MemFS) {
					_ = errors.Join(disk.RemoveAll("raftlog"), disk.RemoveAll("state"), disk.Remove(raftIDFile))
				},
				kind: fault.WrongMesh, text: id,
			},
			"the file with the id is of another mesh": {
				prepare: func(disk *vfs.MemFS) { _ = saveDeployment(disk, "", uuid.NewString()) },
				kind:    fault.WrongMesh, text: id,
			},
			"the file with the id isn't one": {
				prepare: func(disk *vfs.MemFS) { writeFile(t, disk, deploymentFile, "hello\n") },
				text:    "deployment: isn't the id of a mesh",
			},
			"the file with the raft id isn't one": {
				prepare: func(disk *vfs.MemFS) { writeFile(t, disk, raftIDFile, "0000000000000000\n") },
				text:    "raft-id: isn't a raft id",
			},
			"something else lies among the states": {
				prepare: func(disk *vfs.MemFS) { _ = disk.MkdirAll("state/system/old", 0o700) },
				text:    `"old" is none of a state's names`,
			},
			"it isn't one of the nodes": {
				change: func(o *Options) { o.Self = "z" },
				kind:   fault.InvalidArgument, text: "have no node z",
			},
			"no name": {change: func(o *Options) { o.Self = "" }, kind: fault.InvalidArgument, text: "name"},
			"no grid": {change: func(o *Options) { o.Grid = nil; o.Peers = m.peers(0, 1) }, kind: fault.InvalidArgument, text: "grid"},
			"in use":  {change: func(o *Options) { o.fs = lockedFS{o.fs} }, text: "locked"},
		} {
			clone := vfs.NewMem()
			if ok, err := vfs.Clone(disk, clone, "", ""); err != nil || !ok {
				t.Fatal(ok, err)
			}
			if tc.prepare != nil {
				tc.prepare(clone)
			}
			o := Options{Self: "a", fs: clone, Grid: m.Node(0), Peers: m.peers(0)}
			if tc.change != nil {
				tc.change(&o)
			}
			c, err := Open(t.Context(), o)
			if err == nil {
				t.Errorf("%s: opened", name)
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			} else if tc.kind != 0 && fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%s: %v", name, err)
			}
			m.Restart(0)
		}
	})
}

// A start with the wrong list of nodes does no harm that would be in the way of
// the right one.
func TestStartWithTheWrongList(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		m.openAll()
		id := m.sameMesh()
		m.stop(1)
		b, err := Open(t.Context(), Options{Self: "b", fs: m.disks[1]})
		if err == nil {
			if b.Ready() == nil {
				t.Error("a node of three is ready alone")
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		m.open(1, nil)
		if got := m.sameMesh(); got != id {
			t.Errorf("mesh %s came back as %s", id, got)
		}
	})
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

// The files with the ids are there whole after a crash, or not at all; once
// saving one has returned, it is there.
func TestIDFilesSurviveCrashes(t *testing.T) {
	id, raftID := uuid.NewString(), uint64(0x1234)
	for what, of := range map[string]struct {
		save func(fs vfs.FS) error
		load func(fs vfs.FS) (string, error)
		want string
	}{
		"deployment": {
			func(fs vfs.FS) error { return saveDeployment(fs, "data", id) },
			func(fs vfs.FS) (string, error) { return loadDeployment(fs, "data") }, id,
		},
		"raft id": {
			func(fs vfs.FS) error { return saveRaftID(fs, "data", raftID) },
			func(fs vfs.FS) (string, error) {
				got, err := loadRaftID(fs, "data")
				if got == 0 {
					return "", err
				}
				return fmt.Sprint(got), err
			}, fmt.Sprint(raftID),
		},
	} {
		disk := vfs.NewCrashableMem()
		makeDir(t, disk, "data")
		var before []*vfs.MemFS
		watched := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				before = append(before, disk.CrashClone(vfs.CrashCloneCfg{}))
			}
			return nil
		}))
		if err := of.save(watched); err != nil {
			t.Fatal(err)
		}
		if len(before) < 3 {
			t.Errorf("%s: only %d writes were seen", what, len(before))
		}
		for i, clone := range before {
			if got, err := of.load(clone); err != nil || got != "" && got != of.want {
				t.Errorf("%s: after a crash before write %d of %d: %q, %v", what, i, len(before), got, err)
			}
		}
		if got, err := of.load(disk.CrashClone(vfs.CrashCloneCfg{})); err != nil || got != of.want {
			t.Errorf("%s: after it was saved: %q, %v", what, got, err)
		}
	}
}
