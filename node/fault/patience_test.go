package fault

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := Patience(t.Context(), time.Minute); got != time.Minute {
			t.Errorf("without a deadline: %v", got)
		}
		for deadline, want := range map[time.Duration]time.Duration{
			time.Second: 900 * time.Millisecond, 4 * time.Second: 3750 * time.Millisecond,
			10 * time.Second: 9750 * time.Millisecond, time.Hour: 10 * time.Second, 0: 0,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			if got := Patience(ctx, 10*time.Second); got != want {
				t.Errorf("with a deadline of %v: %v, want %v", deadline, got, want)
			}
			cancel()
		}
	})
}
