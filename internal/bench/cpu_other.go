//go:build !unix

package bench

import "time"

// CPUTime is not known here: the columns built on it show 0.
func CPUTime() time.Duration { return 0 }
