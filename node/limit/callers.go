package limit

import (
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// Callers are the limits that need to know who calls. Every door has a request
// authenticated through Admit, so that there is one place for all of them.
type Callers struct {
	Identities *Identities
	Failures   *Failures
}

// Admit calls verify, which says whose request it is, and takes one of the
// identity's requests. An error of verify that is fault.Unauthenticated is a
// failure of the address where a credential was given, and is refused for that
// once there were too many; others, that nothing is known yet for one, are not.
func (c Callers) Admit(addr string, given bool, verify func() (identity string, err error)) error {
	id, err := verify()
	now := time.Now() // later than anybody has asked before: a bucket's time must not go back
	switch {
	case err == nil:
		return c.Identities.Check(id, now)
	case given && fault.KindOf(err) == fault.Unauthenticated:
		if slow := c.Failures.Check(addr, now); slow != nil {
			return slow
		}
	}
	return err
}
