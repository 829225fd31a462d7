package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gridloom/gridloom/node/fault"
)

// maxAgeOf reads how old the answer to a read may be. That it is in bounds is
// for package object to say.
func maxAgeOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fault.New(fault.InvalidArgument, "max_age", "is no duration: %v", err)
	}
	return d.AsDuration(), nil
}
