package limit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestIdentities(t *testing.T) {
	var count tally
	i := NewIdentities(10, count.refused)
	for n := range 20 {
		if _, ok := i.Allow("a", start); !ok {
			t.Fatalf("request %d was refused", n)
		}
	}
	wait := checkOverloaded(t, i.Check("a", start))
	if wait != 100*time.Millisecond || count.of("requests") != 1 {
		t.Errorf("try again in %v, %d counted; want 100ms, 1", wait, count.of("requests"))
	}
	if i.Room("a", start) || i.Take("a", start) || count.of("requests") != 1 {
		t.Error("there is room for one that is refused, or somebody was told")
	}
	for range 30 {
		if !i.Room("b", start) {
			t.Error("looking takes some of the room")
		}
	}
	if !i.Take("b", start) {
		t.Error("there is no room for the first")
	}
	if _, ok := i.Allow("b", start); !ok {
		t.Error("one identity's requests count for another")
	}
	if _, ok := i.Allow("a", start.Add(wait)); !ok {
		t.Error("refused when it should be tried again")
	}
	for n := range 2 * maxIdentities {
		i.Allow(fmt.Sprint(n), start)
	}
	if n := i.buckets.order.Len(); n != maxIdentities || len(i.buckets.byKey) != n {
		t.Errorf("%d and %d entries; want %d", n, len(i.buckets.byKey), maxIdentities)
	}
}

// TestFailures: who fails too often is told to wait, each address for itself.
func TestFailures(t *testing.T) {
	var count tally
	f := NewFailures(3, count.refused)
	const guesser, neighbour = "192.0.2.1:1", "192.0.2.2:1"
	for range 3 {
		if err := f.Check(guesser, start); err != nil {
			t.Fatal(err)
		}
	}
	wait := checkOverloaded(t, f.Check("192.0.2.1:999", start))
	if wait != 20*time.Second || count.of("failures") != 1 {
		t.Errorf("try again in %v, %d counted; want 20s, 1", wait, count.of("failures"))
	}
	if err := errors.Join(f.Check(neighbour, start), f.Check(guesser, start.Add(wait))); err != nil {
		t.Error(err)
	}
	for n := range 2 * maxAddresses {
		_ = f.Check(fmt.Sprintf("10.%d.%d.%d:1", n>>16&255, n>>8&255, n&255), start)
	}
	if n := f.spent.order.Len(); n != maxAddresses || len(f.spent.byKey) != n {
		t.Errorf("%d and %d entries; want %d", n, len(f.spent.byKey), maxAddresses)
	}
}

// TestAdmit: only a wrong credential is a failure of its address, and no failures
// there keep out who has a right one.
func TestAdmit(t *testing.T) {
	c := Callers{Failures: NewFailures(1, nil), Identities: NewIdentities(1, nil)}
	const shared = "192.0.2.1:1"
	say := func(id string, err error) func() (string, error) { return func() (string, error) { return id, err } }
	wrong := fault.New(fault.Unauthenticated, "", "no")
	for what, err := range map[string]error{
		"nothing given": c.Admit(shared, false, say("", wrong)),
		"not ready":     c.Admit(shared, true, say("", fault.New(fault.Waiting, "", "soon"))),
		"wrong":         c.Admit(shared, true, say("", wrong)),
	} {
		if kind := fault.KindOf(err); kind == fault.Overloaded || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	checkOverloaded(t, c.Admit(shared, true, say("", wrong)))
	if err := c.Admit(shared, false, say("", wrong)); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("nothing given: %v", err)
	}
	for _, given := range []bool{true, false} { // by a credential; by a certificate
		if err := c.Admit(shared, given, say(fmt.Sprint("b ", given), nil)); err != nil {
			t.Errorf("a neighbour of who fails is kept out: %v", err)
		}
	}
	for range 2 {
		if err := c.Admit("192.0.2.2:1", true, say("a", nil)); err != nil {
			t.Fatal(err)
		}
	}
	checkOverloaded(t, c.Admit("192.0.2.3:1", true, say("a", nil)))
	if err := (Callers{}).Admit("", true, say("a", nil)); err != nil {
		t.Errorf("without limits: %v", err)
	}
}

func TestUploads(t *testing.T) {
	var count tally
	u := NewUploads(UploadOptions{Max: 3, MaxPerIdentity: 2, Bytes: 100, BytesPerIdentity: 60, Refused: count.refused})
	begin := func(id string) *Upload {
		t.Helper()
		up, err := u.Begin(id)
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	a1, a2 := begin("a"), begin("a")
	_, err := u.Begin("a")
	checkOverloaded(t, err)
	b := begin("b")
	_, err = u.Begin("c")
	checkOverloaded(t, err)
	if err := errors.Join(a1.Add(40), a2.Add(20), b.Add(40)); err != nil {
		t.Fatal(err)
	}
	checkOverloaded(t, a1.Add(1))
	checkOverloaded(t, b.Add(1))
	a1.End()
	a1.End()
	if err := b.Add(20); err != nil {
		t.Error(err)
	}
	for _, limit := range []string{"uploads", "uploads_per_identity", "upload_bytes", "upload_bytes_per_identity"} {
		if count.of(limit) != 1 {
			t.Errorf("%s counted %d times, want 1", limit, count.of(limit))
		}
	}
	a2.End()
	b.End()
	if u.all != (held{}) || len(u.by) != 0 {
		t.Errorf("left behind: %+v, %d identities", u.all, len(u.by))
	}
	var none *Uploads
	up, err := none.Begin("a")
	if err = errors.Join(err, up.Add(1<<60)); err != nil {
		t.Errorf("without limits: %v", err)
	}
	up.End()
}
