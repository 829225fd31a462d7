package control

import "github.com/gridloom/gridloom/node/fault"

func (q *CopiesQuery) validate() error {
	if n := len(q.Good); n > MaxQueryDrives {
		return fault.New(fault.InvalidArgument, "drives", "has %d entries, at most %d are allowed", n, MaxQueryDrives)
	}
	return checkPosition(q.After, q.Limit)
}
