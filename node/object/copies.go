package object

import (
	"context"

	"github.com/gridloom/gridloom/node/fault"
)

// CopyItem is a payload file that a drive is to get a copy of, as its record
// has it.
type CopyItem struct {
	ID        [16]byte
	SizeBytes int64
	CRC32C    uint32
	From      []string // drives that have one, best first
	Replace   bool     // the drive has a copy, which is bad
}

// CheckItem is a payload file that is to be looked at, as its record has it.
type CheckItem struct {
	ID        [16]byte
	SizeBytes int64
	CRC32C    uint32
}

// BadCopy is a payload file that isn't as its record says.
type BadCopy struct {
	Index  int    // of the CheckItem
	Reason string // missing, size, corrupted, unreadable
	Detail string
}

// CopyTo has a drive, here or elsewhere, get copies of payload files, and
// returns an error, or nil, for each. The second result says that nothing is
// known of any.
func (s *Service) CopyTo(context.Context, string, []CopyItem) ([]error, error) {
	return nil, fault.New(fault.Unimplemented, "copies", "can't be made yet")
}

// Check looks at payload files of a drive, here or elsewhere, and returns those
// that are bad. With verify each is read and compared with its checksums, at
// most at bytesPerSecond where that isn't 0.
func (s *Service) Check(context.Context, string, []CheckItem, bool, int64) ([]BadCopy, error) {
	return nil, fault.New(fault.Unimplemented, "copies", "can't be checked yet")
}

// serveCopy must hold receive's registration of a payload while it looks for
// one, makes it, or takes a present one as done: a put that has given a drive
// up removes its own late file under that registration, and only there.
func (s *Service) serveCopy(context.Context, *copyRequest) (*copyResponse, error) {
	return nil, fault.New(fault.Unimplemented, "copies", "can't be made yet")
}

func (s *Service) serveCheck(context.Context, *checkRequest) (*checkResponse, error) {
	return nil, fault.New(fault.Unimplemented, "copies", "can't be checked yet")
}
