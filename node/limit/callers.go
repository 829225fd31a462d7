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

// Admit calls verify, which says whose request it is, unless the address has
// failed too often, and then takes one of the identity's requests. credential is
// what verify goes by, in whatever form; it is not kept. An error of verify that
// is fault.Unauthenticated, of a credential, is a failure of the address; others,
// that nothing is known yet for one, are not.
func (c Callers) Admit(addr, credential string, verify func() (identity string, err error)) error {
	now := time.Now()
	if err := c.Failures.Check(addr, credential, now); err != nil {
		return err
	}
	id, err := verify()
	if err != nil {
		if credential != "" && fault.KindOf(err) == fault.Unauthenticated {
			c.Failures.Failed(addr, now)
		}
		return err
	}
	c.Failures.Passed(addr, credential)
	return c.Identities.Check(id, now)
}
