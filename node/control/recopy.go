package control

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

func (c *Recopy) validate() error {
	if n := len(c.Entries); n == 0 || n > MaxRecopy {
		return fault.New(fault.InvalidArgument, "entries", "has %d entries, 1 to %d are allowed", n, MaxRecopy)
	}
	seen := make(map[[16]byte]bool, len(c.Entries))
	for i := range c.Entries {
		e := &c.Entries[i]
		if seen[e.ID] {
			return fault.New(fault.InvalidArgument, "entries", "has segment %x twice", e.ID)
		}
		seen[e.ID] = true
		named := len(e.Add) + len(e.Remove) + len(e.Drop)
		if named == 0 && !e.Settled || named > 3*maxSegmentDrives {
			return fault.New(fault.InvalidArgument, "entries", "number %d changes %d drives, 1 to %d are allowed", i, named, 3*maxSegmentDrives)
		}
		all := make([]string, 0, named)
		all = append(append(append(all, e.Add...), e.Remove...), e.Drop...)
		if err := checkDrives(all); err != nil {
			return err
		}
	}
	if c.Birth < 0 || c.Birth == 0 && c.adds() {
		return fault.New(fault.InvalidArgument, "birth", "is missing: copies take it from an answer before they are begun")
	}
	return nil
}

// adds tells whether a copy comes with it.
func (c *Recopy) adds() bool {
	for i := range c.Entries {
		if len(c.Entries[i].Add) > 0 {
			return true
		}
	}
	return false
}

func (m *machine) recopy(_ *pebble.Batch, _ *Recopy) (*outcome, error) {
	return nil, fault.New(fault.Unimplemented, "command", "comes with the next change")
}
