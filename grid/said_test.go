package grid

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A reason is said once of a peer, until it changes or is forgotten, and of so
// many peers in a minute.
func TestSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s said
		count := 0
		say := func(peer, format string, args ...any) {
			if s.first(peer, fmt.Errorf(format, args...)) {
				count++
			}
		}
		want := func(n int, what string) {
			t.Helper()
			if count != n {
				t.Errorf("%s: said %d times, want %d", what, count, n)
			}
			count = 0
		}
		for i := range 100 {
			say("a", "read 10.0.0.1:%d: refused", 40000+i)
			say("b", "read 10.0.0.1:%d: refused", 40000+i)
		}
		want(2, "two peers, and ports")
		say("a", "unknown host")
		say("a", "unknown host")
		say("a", "read 10.0.0.1:1: refused")
		want(2, "another reason, and the first again")
		s.forget("a")
		say("a", "read 10.0.0.1:1: refused")
		want(1, "after a connection")
		for i := range 10 * maxSaid {
			say(fmt.Sprint("stranger ", i), "unknown host")
		}
		want(maxSaid-2, "strangers")
		time.Sleep(saidAgain)
		if !s.first("another", errors.New("unknown host")) || len(s.by) != 1 {
			t.Errorf("a minute later %d are known", len(s.by))
		}
	})
}
