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
