//go:build soak

package grid

import (
	"testing"
	"time"
)

// The full figures of what make test tries with moderate ones.

// TestSoakHostile throws 100,000 malformed connections at a listener, in turn
// with quiet and with connections to a plain HTTP server in this process.
// Attackers and attacked share the machine: what the attack costs the honest
// peer is told apart from what making that many connections costs by the
// latter. Of the processor time 51 % is the attackers', a quarter is spent in
// net/http and in accepting, before the grid hears of a connection, and 10 % in
// the grid's own handler and handshakes (go test -run TestHostileConnections
// -count 8 -cpuprofile): even if they cost nothing, p99 would not be that of
// quiet. Who wants less than that to get through bounds the listener.
func TestSoakHostile(t *testing.T) {
	h := newHostility(t, 2*time.Second)
	const rounds = 20
	for range rounds {
		h.quiet.during(func() { quietFor(time.Second) })
		h.aside.during(func() { h.throw(2_000, h.bystander) })
		h.attack.during(func() { h.throw(100_000/rounds, h.victim.Local()) })
	}
	h.judge()
	if beside, under := max(h.quiet.p99(), h.aside.p99()), h.attack.p99(); under > 2*beside {
		t.Errorf("an honest peer's p99 went from %v to %v", beside, under)
	}
}

func TestSoakCallsInFlight(t *testing.T) { tryInFlight(t, 100_000) }

func TestSoakIdleConnections(t *testing.T) { tryIdle(t, 101) } // 5,050
