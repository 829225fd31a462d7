package control

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

func (c *NoteScrub) validate() error {
	s := &c.Scrub
	if s.Round == 0 || s.Started < 0 || s.Ended < 0 || s.Segments < 0 || s.Bytes < 0 || s.Bad < 0 {
		return fault.New(fault.InvalidArgument, "scrub", "has a number below what it counts from: %+v", *s)
	}
	return checkPosition(s.After, 0)
}

func (m *machine) noteScrub(_ *pebble.Batch, _ *NoteScrub) (*outcome, error) {
	return nil, fault.New(fault.Unimplemented, "command", "comes with the next change")
}
