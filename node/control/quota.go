package control

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/gridloom/gridloom/node/fault"
)

func (c *SetQuota) validate() error {
	if c.MaxObjects < 0 || c.MaxBytes < 0 {
		return fault.New(fault.InvalidArgument, "quota", "is %d objects and %d bytes", c.MaxObjects, c.MaxBytes)
	}
	return checkBucket(c.Bucket)
}

func (m *machine) setQuota(_ *pebble.Batch, _ *SetQuota) (*outcome, error) {
	return nil, fault.New(fault.Unimplemented, "command", "comes with the next change")
}
