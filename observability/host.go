package observability

// Host reads the host's counters. One per process is enough: the collectors
// of several nodes share its samples.
type Host struct{}

// NewHost returns a Host that reads this machine's counters. It starts
// nothing.
func NewHost() *Host { return &Host{} }
