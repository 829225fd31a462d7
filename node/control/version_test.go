package control

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
)

// A node that starts refuses a peer whose program doesn't apply the commands
// that it writes, and one that is part of its mesh goes on beside it.
func TestPeerOfAnotherVersion(t *testing.T) {
	c, err := newControl(&Options{Self: "a", fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.cancel()
	for _, versions := range [][2]uint8{{CommandVersion + 1, CommandVersion + 2}, {0, CommandVersion - 1}, {oldestCommand + 1, CommandVersion + 1}} {
		heard := map[string]*greeting{"b": {Name: "b", Oldest: versions[0], Newest: versions[1]}}
		err := c.sameMesh(heard)
		if fault.KindOf(err) != fault.Unimplemented || !strings.Contains(err.Error(), "node b") {
			t.Errorf("versions %v: %v", versions, err)
		}
		c.confirmed.Store(true)
		if err := c.sameMesh(heard); err != nil {
			t.Errorf("versions %v, in the mesh already: %v", versions, err)
		}
		c.confirmed.Store(false)
	}
	if err := c.sameMesh(map[string]*greeting{"b": {Oldest: oldestCommand, Newest: CommandVersion + 1}}); err != nil {
		t.Error(err)
	}
}

// Each command is written in the version that first had it, so that a node of
// an older program goes on for as long as it knows all there is; and what such
// a program has written is applied.
func TestCommandsOfOlderVersions(t *testing.T) {
	a := newApplier(t, dataGroup, vfs.NewMem())
	defer a.close(t)
	bucket := &Bucket{Name: "b", ID: [16]byte{1}}
	put := complete(putOf(bucket, "k", "e"))
	if put.Version != 1 {
		t.Errorf("a put is written in version %d", put.Version)
	}
	if out := a.next(t, 1, put); out.Refused {
		t.Errorf("a put of version 1: %+v", out)
	}
	move := complete(moveOf(bucket, "k", bucket, "l"))
	if move.Version != 2 {
		t.Errorf("a move is written in version %d", move.Version)
	}
	if out := a.next(t, 1, move); out.Refused {
		t.Errorf("a move: %+v", out)
	}
}
