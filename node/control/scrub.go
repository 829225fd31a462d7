package control

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

func (c *NoteScrub) validate() error {
	s := &c.Scrub
	if s.Round == 0 || s.Started < 0 || s.Ended < 0 || s.Segments < 0 || s.Bytes < 0 || s.Bad < 0 {
		return fault.New(fault.InvalidArgument, "scrub", "has a number that is too small: %+v", *s)
	}
	return checkPosition(s.After, 0)
}

func (m *machine) noteScrub(b *pebble.Batch, c *NoteScrub) (*outcome, error) {
	var known ScrubState
	if _, err := get(b, scrubKey(), &known); err != nil {
		return nil, err
	}
	if c.Scrub.Round < known.Round { // somebody who led before, and is late
		return &outcome{}, nil
	}
	return &outcome{}, put(b, scrubKey(), &c.Scrub)
}

func (v *view) scrub(a *Answer) error {
	a.Scrub = new(ScrubState)
	_, err := get(v.rows, scrubKey(), a.Scrub)
	return err
}
