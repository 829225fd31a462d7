package fault

import (
	"context"
	"time"
)

// answerTime is what a wait leaves of its caller's deadline at most: time for the
// answer, which names what is missing, to arrive before the caller has given up.
const answerTime = 250 * time.Millisecond

// Patience is how long to wait for what isn't there: most, or what ctx leaves but a
// tenth of it, answerTime at most, where that is less.
func Patience(ctx context.Context, most time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return most
	}
	left := time.Until(deadline)
	return min(most, left-min(left/10, answerTime))
}
