package control

import (
	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=slot.go -o=slot_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// The raft groups. The system group has the mesh's id, its nodes, buckets and
// slots; data groups have the records. Which data group a record is in follows
// from its slot, so that groups can be added without touching what is there:
// at first one has all of them.
const (
	systemGroup replica.GroupID = 0
	dataGroup   replica.GroupID = 1
)

// groupName is a group's name in paths, messages and the status.
func groupName(g replica.GroupID) string {
	if g == systemGroup {
		return "system"
	}
	return "data-1"
}

// slotCount is the number of slots.
const slotCount = 1024

// slotOf is the slot of a record.
func slotOf(bucket [16]byte, key string) uint16 {
	b := make([]byte, 0, 16+MaxKeyBytes)
	b = append(append(b, bucket[:]...), key...)
	return uint16(xxh3.Hash(b) % slotCount)
}

// slotTable says which data group has which slots. The system group has the
// table; every data group has the part that is its own, with the epoch it is
// from, and refuses commands that were led by another.
type slotTable struct {
	Epoch  uint64      `msg:"e"`
	Ranges []slotRange `msg:"r"`
}

// slotRange is slots First to Last of a group.
type slotRange struct {
	First uint16 `msg:"f"`
	Last  uint16 `msg:"l"`
	Group uint32 `msg:"g"`
}

// firstSlots is the table that a mesh begins with.
func firstSlots() slotTable {
	return slotTable{Epoch: 1, Ranges: []slotRange{{First: 0, Last: slotCount - 1, Group: uint32(dataGroup)}}}
}

// group finds the group of a slot.
func (t *slotTable) group(slot uint16) (replica.GroupID, bool) {
	for _, r := range t.Ranges {
		if r.First <= slot && slot <= r.Last {
			return replica.GroupID(r.Group), true
		}
	}
	return 0, false
}

// errSlotsMoved is the refusal of what was led by another table than the
// group's own. It is Waiting: whoever asks again looks at the table again.
func errSlotsMoved(got, want uint64) error {
	return fault.New(fault.Waiting, "index", "the slot table has epoch %d, and this was led by epoch %d", want, got)
}

// owns refuses keys whose slots another group has.
func (t *slotTable) owns(g replica.GroupID, bucket [16]byte, keys ...string) error {
	for _, key := range keys {
		if owner, ok := t.group(slotOf(bucket, key)); !ok || owner != g {
			return fault.New(fault.Conflict, "index", "key %q isn't in group %s", key, groupName(g))
		}
	}
	return nil
}

// groupOf is the group that a command is for. There is one data group; with
// more, the slot of a record's key says which, and what is for several goes to
// each. What is for two keys goes to the group of the first, which refuses it
// where it doesn't have the other as well.
func groupOf(c *Command) replica.GroupID {
	switch {
	case c.PutRecord != nil, c.DeleteRecords != nil, c.MoveRecord != nil, c.CloseBucket != nil, c.Reclaim != nil,
		c.Recopy != nil, c.SetQuota != nil, c.NoteScrub != nil:
		return dataGroup
	}
	return systemGroup
}
