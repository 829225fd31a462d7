package dataio

import (
	"context"
	"time"
)

// Slow says when a drive counts as slow. The zero value is the defaults.
type Slow struct {
	// Degraded is how long one operation may take, or the slowest tenth of the
	// last 32, before the drive is Degraded; 0 is a second.
	Degraded time.Duration
	// Offline is how long one may take before the drive is Offline; 0 is 30 s.
	Offline time.Duration
}

// monitorEvery is how often Monitor looks at the drive.
const monitorEvery = time.Second

// Monitor looks at the drive's free space and path every second until the
// context ends, and returns its error.
func (d *Drive) Monitor(ctx context.Context) error {
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			d.Usage() // changes the state by itself
		}
	}
}
