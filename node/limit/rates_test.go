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

// TestGuessingIsSlow: an address that fails too often isn't even heard with the
// right credential, but with one that was right before; others are.
func TestGuessingIsSlow(t *testing.T) {
	var count tally
	f := NewFailures(3, count.refused)
	const guesser, neighbour = "192.0.2.1:1", "192.0.2.2:1"
	f.Passed(guesser, "known")
	for range 3 {
		if err := f.Check(guesser, "guess", start); err != nil {
			t.Fatal(err)
		}
		f.Failed(guesser, start)
	}
	wait := checkOverloaded(t, f.Check("192.0.2.1:999", "right", start))
	if wait != 20*time.Second || count.of("failures") != 1 {
		t.Errorf("try again in %v, %d counted; want 20s, 1", wait, count.of("failures"))
	}
	for what, err := range map[string]error{
		"what was right before": f.Check(guesser, "known", start),
		"another address":       f.Check(neighbour, "right", start),
		"after the wait":        f.Check(guesser, "right", start.Add(wait)),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	checkOverloaded(t, f.Check(guesser, "known there", start))
	f.Passed(neighbour, "elsewhere")
	checkOverloaded(t, f.Check(guesser, "elsewhere", start))
}

// TestAdmit: only a wrong credential is a failure of its address.
func TestAdmit(t *testing.T) {
	c := Callers{Failures: NewFailures(1, nil), Identities: NewIdentities(1, nil)}
	say := func(err error) func() (string, error) { return func() (string, error) { return "a", err } }
	wrong := fault.New(fault.Unauthenticated, "", "no")
	for what, err := range map[string]error{
		"nothing given": c.Admit("192.0.2.1:1", "", say(wrong)),
		"not ready":     c.Admit("192.0.2.1:1", "x", say(fault.New(fault.Waiting, "", "soon"))),
		"wrong":         c.Admit("192.0.2.1:1", "x", say(wrong)),
	} {
		if kind := fault.KindOf(err); kind == fault.Overloaded || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	called := false
	checkOverloaded(t, c.Admit("192.0.2.1:1", "y", func() (string, error) { called = true; return "a", nil }))
	if called {
		t.Error("the credential was looked at")
	}
	for range 2 {
		if err := c.Admit("192.0.2.2:1", "y", say(nil)); err != nil {
			t.Fatal(err)
		}
	}
	checkOverloaded(t, c.Admit("192.0.2.3:1", "y", say(nil)))
	if err := (Callers{}).Admit("", "x", say(nil)); err != nil {
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
