package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// TestDrainWait: it goes on as long as something moves, and ends with what stops
// it.
func TestDrainWait(t *testing.T) {
	const kind = gridloomv1.DrainKind_DRAIN_KIND_NODE
	status := func(d *gridloomv1.Drain) *gridloomv1.GetHealStatusResponse {
		d.Kind, d.Name = kind, "c"
		other := &gridloomv1.Drain{Kind: gridloomv1.DrainKind_DRAIN_KIND_POOL, Name: "c", Done: true}
		return &gridloomv1.GetHealStatusResponse{Draining: []*gridloomv1.Drain{other, d}}
	}
	left := func(n int64, blocked string) *gridloomv1.Drain {
		return &gridloomv1.Drain{LeftSegments: proto.Int64(n), LeftBytes: proto.Int64(n << 20), Blocked: blocked, Eta: durationpb.New(90 * time.Second)}
	}
	synctest.Test(t, func(t *testing.T) {
		w := drainWait{kind: kind, name: "c"}
		goesOn := func(d *gridloomv1.Drain, want string) {
			t.Helper()
			if text, done, err := w.look(status(d)); text != want || done || err != nil {
				t.Errorf("%q, %v, %v; want %q", text, done, err, want)
			}
		}
		goesOn(&gridloomv1.Drain{}, "node c: not counted yet")
		goesOn(left(1000, ""), "node c: 1000 segments, 1000 MiB, about 1m30s left")
		for n := int64(60); n > 50; n-- { // blocked here and there, but it moves
			goesOn(left(n, "no room"), "node c: "+count(n, "segment")+", "+byteSize(n<<20).String()+", about 1m30s left: no room")
			time.Sleep(blockedFor)
		}
		for range 5 { // at one place, with nothing that stops it
			goesOn(left(1, ""), "node c: 1 segment, 1 MiB, about 1m30s left")
			time.Sleep(blockedFor)
		}
		goesOn(left(7, "no room"), "node c: 7 segments, 7 MiB, about 1m30s left: no room")
		time.Sleep(blockedFor)
		goesOn(left(7, "no room"), "node c: 7 segments, 7 MiB, about 1m30s left: no room")
		goesOn(left(7, "no drive"), "node c: 7 segments, 7 MiB, about 1m30s left: no drive")
		time.Sleep(blockedFor + 1)
		if _, done, err := w.look(status(left(7, "no drive"))); done || err == nil || err.Error() != "node c can't be emptied: 7 segments left: no drive" {
			t.Errorf("%v, %v", done, err)
		}
		if _, done, err := w.look(status(&gridloomv1.Drain{Done: true})); !done || err != nil || !w.last.Done || w.last.Kind != "node" {
			t.Errorf("%v, %v, %+v", done, err, w.last)
		}
		if _, done, err := w.look(&gridloomv1.GetHealStatusResponse{}); done || err == nil || !strings.Contains(err.Error(), "node c is drained no more") {
			t.Errorf("%v, %v", done, err)
		}
	})
}

// TestHealWait: the pass and the round that were asked for, and not those before.
func TestHealWait(t *testing.T) {
	w := healWait{leader: "a", pass: 4, round: 2, verify: true}
	for _, c := range []struct {
		what   string
		status *gridloomv1.GetHealStatusResponse
		text   string // its beginning; "": done
	}{
		{"the pass before", &gridloomv1.GetHealStatusResponse{Leader: "a", Pass: 4, Scrub: &gridloomv1.Scrub{Round: 2}}, "pass: 0 looked at"},
		{"the pass", &gridloomv1.GetHealStatusResponse{Leader: "a", Pass: 5, Passing: true, Scanned: 9, Done: 8, Scrub: &gridloomv1.Scrub{Round: 3, Running: true, Fast: true}}, "pass: 9 looked at, 8 in order"},
		{"the round before", &gridloomv1.GetHealStatusResponse{Leader: "a", Pass: 5, Scrub: &gridloomv1.Scrub{Round: 2}}, "scrub: 0 segments"},
		{"the round", &gridloomv1.GetHealStatusResponse{Leader: "a", Pass: 5, Scrub: &gridloomv1.Scrub{Round: 3, Running: true, Fast: true, Segments: 1, Bad: 2}}, "scrub: 1 segment, 0 read, 2 copies bad"},
		{"copying", &gridloomv1.GetHealStatusResponse{Leader: "a", Pass: 5, Pending: 3, Scrub: &gridloomv1.Scrub{Round: 3}}, "copying: 3 segments with copies missing"},
		{"another leader", &gridloomv1.GetHealStatusResponse{Leader: "b", Pass: 0, Scrub: &gridloomv1.Scrub{Round: 3}}, "pass: 0 looked at"},
		{"its first pass", &gridloomv1.GetHealStatusResponse{Leader: "b", Pass: 1, Scrub: &gridloomv1.Scrub{Round: 4, Running: true}}, ""},
	} {
		text, done, err := w.look(c.status)
		if err != nil || done != (c.text == "") || !strings.HasPrefix(text, c.text) {
			t.Errorf("%s: %q, %v, %v", c.what, text, done, err)
		}
	}
	if err := w.outcome(); err != nil {
		t.Error(err)
	}
	w.last.Stuck = []jsonStuck{{"12 segments of pool p", "no room"}}
	if err := w.outcome(); err == nil || err.Error() != "not everything could be done: 12 segments of pool p: no room" {
		t.Error(err)
	}
	w.last.Unrecoverable = 1
	if err := w.outcome(); err == nil || err.Error() != "1 segment without a good copy" {
		t.Error(err)
	}
}

// TestHealText has one of everything.
func TestHealText(t *testing.T) {
	n := int64(3)
	j := jsonHeal{
		Leader: "a", Phase: "draining", Since: "2026-01-02T03:04:05Z", Pending: 1, Endangered: 2, Unrecoverable: 3, BytesPerSecond: 1 << 20,
		Pass: jsonHealPass{Number: 2, Running: true, Scanned: 5, Total: 9, Done: 4, Failed: 1, Bytes: 2 << 20, ETA: 61},
		Lost: []jsonLost{{"photos", "a\x1b", "0d", "rotten"}}, Stuck: []jsonStuck{{"x", "y"}},
		Draining: []jsonDrain{
			{Kind: "node", Name: "c", LeftSegments: &n, LeftBytes: &n, Blocked: "no room"}, {Kind: "pool", Name: "p"}, {Kind: "drive", Name: "d", Done: true},
		},
		Scrub:     jsonScrub{Round: 7, Running: true, Segments: 1, Bytes: 1 << 10, Bad: 1},
		Rebalance: jsonRebalance{Ended: "2026-01-02T03:04:05Z", Moved: 2, Bytes: 2048, Failed: 1, Stopped: "asked to"},
	}
	const want = `Coordinated by a
Now            draining since 2026-01-02T03:04:05Z
Copies missing 1 segment
Endangered     2 segments
Unrecoverable  3 segments
Pass           5 of 9 looked at, 4 in order, 1 failed, 2 MiB copied, about 1m1s left
Rate           1 MiB/s
Scrub          round 7: 1 segment and 1 KiB read, 1 copy bad
Rebalance      ended 2026-01-02T03:04:05Z: 2 segments and 2 KiB moved, 1 failed: asked to

DRAINING  NAME  LEFT             NOTES
node      c     3 segments, 3    no room
pool      p     not counted yet
drive     d     nothing
Stuck: x: y
Unrecoverable: photos/"a\x1b", segment 0d: rotten
Unrecoverable: 2 more
`
	if got := trimmed(healText(j)); got != want {
		t.Errorf("%s", got)
	}
}
