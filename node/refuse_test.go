package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// copiesIndex is an index of segments, each on some drives.
type copiesIndex struct {
	segments [][]string
	bytes    int64 // of all objects
	fail     error
	proposed []*control.Command
}

func (i *copiesIndex) Read(_ context.Context, q *control.Query) (*control.Answer, error) {
	a := &control.Answer{}
	switch {
	case i.fail != nil:
		return nil, i.fail
	case q.Totals != nil:
		a.Totals = &control.Totals{Bytes: i.bytes}
	case q.Usage != nil && q.Usage.After == "": // the first page has looked at nothing yet
		a.More, a.Next = true, "1"
	case q.Usage != nil:
		on := func(d string) bool { return slices.Contains(q.Usage.Drives, d) }
		for _, drives := range i.segments {
			if q.Usage.Sole {
				a.Used = a.Used || !slices.ContainsFunc(drives, func(d string) bool { return !on(d) })
			} else {
				a.Used = a.Used || slices.ContainsFunc(drives, on)
			}
		}
	default:
		return nil, errors.New("an unexpected query")
	}
	return a, nil
}

func (i *copiesIndex) Propose(_ context.Context, c *control.Command) (*control.Result, error) {
	i.proposed = append(i.proposed, c)
	return &control.Result{}, i.fail
}

// drivesAre makes drives of descriptions: node, pool, zone ("-" for none), used
// and free bytes, and words for what is unusual.
func drivesAre(t *testing.T, descriptions ...string) (all []object.DriveHealth) {
	t.Helper()
	for i, text := range descriptions {
		f := strings.Fields(text)
		d := object.DriveHealth{
			ID: "d" + string(rune('1'+i)), Node: f[0], Pool: f[1], Zone: strings.TrimPrefix(f[2], "-"),
			UsedBytes: int64(len(f[3])), FreeBytes: int64(len(strings.Trim(f[4], "0"))), Reachable: true,
		}
		for _, word := range f[5:] {
			switch word {
			case "away":
				d.Reachable, d.State = false, dataio.Offline
			case "suspect":
				d.State = dataio.Suspect
			case "full":
				d.State = dataio.ReadOnly
			case "slow":
				d.State = dataio.Degraded
			case "draining":
				d.Draining = true
			default:
				t.Fatalf("%q is no word", word)
			}
		}
		all = append(all, d)
	}
	return all
}

// three are three nodes of one pool; sizes are written as so many characters.
func three(zones ...string) []string {
	all := []string{"a p - xxxx xxxx", "b p - xxxx xxxx", "c p - xxxx xxxx"}
	for i, z := range zones {
		all[i] = strings.Replace(all[i], " - ", " "+z+" ", 1)
	}
	return all
}

// TestRefusals: each reason by its text, and what is allowed.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		what     string
		drives   []string
		segments string // drives of a segment, with a comma between segments
		bytes    int64
		drain    bool
		leave    string // node
		kind     fault.Kind
		text     string // "": allowed
	}{
		{what: "one of three with copies", drives: three(), segments: "d1 d2 d3", bytes: 100, leave: "a"},
		{what: "the last copy", drives: three(), segments: "d1 d2,d1", leave: "a", kind: fault.Conflict,
			text: "node a: has the last copy of something, which would be lost; drain it first, or force it"},
		{what: "the last copy is another's", drives: three(), segments: "d1 d2,d1", leave: "b"},
		{what: "the last that can be read", drives: append(three()[:2], "c p - xxxx xxxx away"), segments: "d1 d2,d1 d3", leave: "a", kind: fault.Conflict,
			text: "node a: may have the last copy of something that can be read now: drive d3 can't be read. Bring back what is away, wait till gridloom heal status shows that the copies are made, or force it"},
		{what: "the last on good drives", drives: append(three()[:2], "c p - xxxx xxxx suspect"), segments: "d1 d3", leave: "a", kind: fault.Conflict,
			text: "may have the last copy of something that can be read now: drive d3 can't be read"},
		{what: "the one that is away", drives: append(three()[:2], "c p - xxxx xxxx away"), segments: "d1 d3", leave: "c"},
		{what: "away with the last copy", drives: append(three()[:2], "c p - xxxx xxxx away"), segments: "d3", leave: "c", kind: fault.Conflict, text: "has the last copy"},
		{what: "no other takes payload", drives: []string{"a p - x xx", "b p - x xx full", "c p - x xx away", "e p - x xx draining"}, leave: "a", kind: fault.Conflict,
			text: "node a: has the only drives that new payload can go to; add others first, or force it"},
		{what: "a slow one takes payload", drives: []string{"a p - x xx", "b p - x xx slow"}, leave: "a"},
		{what: "none takes payload, and none did", drives: []string{"a p - x xx full", "b p - x xx full"}, leave: "a"},

		{what: "drain one of three", drives: three(), bytes: 100, drain: true, leave: "a"}, // the others have it all
		{what: "drain the only pool with room", drives: []string{"a p - x xx", "b q - x xx full"}, drain: true, leave: "a", kind: fault.Conflict,
			text: "node a: has the only drives that new payload can go to"},
		{what: "drain one of four", drives: append(three(), "e p - xxxx xxxx"), bytes: 4, drain: true, leave: "a"},
		{what: "drain one of four, no room", drives: []string{"a p - xxxxx x", "b p - x x", "c p - x x", "e p - x x"}, bytes: 10, drain: true, leave: "a", kind: fault.NoSpace,
			text: "node a: has up to 5 bytes of payload, and the other drives of pool p have room for 3 bytes; add drives first, or force it"},
		{what: "the room of another pool is no help", drives: []string{"a p - xxxxx x", "b p - x x", "c p - x x", "e p - x x", "f q - x xxxxxxxxxx"}, bytes: 10, drain: true, leave: "a",
			kind: fault.NoSpace, text: "the other drives of pool p have room for 3 bytes"},
		{what: "objects are less than drives say", drives: []string{"a p - xxxxx x", "b p - x x", "c p - x x", "e p - x x"}, bytes: 3, drain: true, leave: "a"},
		{what: "the last of a pool", drives: []string{"a p - xxxxx x", "b q - x x", "c q - x xx"}, bytes: 10, drain: true, leave: "a", kind: fault.NoSpace,
			text: "node a: has up to 5 bytes of payload, and the other pools have room for 3 bytes; add drives first, or force it"},
		{what: "the last of a pool, and room", drives: []string{"a p - xxx x", "b q - x x", "c q - x xx"}, bytes: 10, drain: true, leave: "a"},

		{what: "the only node of a zone", drives: three("z1", "z2", "z3"), drain: true, leave: "c", kind: fault.Conflict,
			text: "node c: has the only drives of zone z3 in pool p: without it copies would be in 2 of the 3 zones that they should be in; add a node to the zone first, or force it"},
		{what: "one of two of a zone", drives: append(three("z1", "z2", "z3"), "e p z3 x xxxxxxx"), drain: true, leave: "c"},
		{what: "a zone of four", drives: append(three("z1", "z2", "z3"), "e p z4 x xxxxxxx"), drain: true, leave: "c"},
		{what: "another of the zone drains already", drives: append(three("z1", "z2", "z3"), "e p z3 x xxxxxxx draining"), drain: true, leave: "c", kind: fault.Conflict, text: "zone z3"},
		{what: "nodes without a zone", drives: three(), drain: true, leave: "c"},
		{what: "the zone of another pool", drives: []string{"a p z1 x xx", "b p z2 x xx", "c q z3 x xx"}, drain: true, leave: "b", kind: fault.Conflict, text: "zone z2 in pool p"},
	} {
		var segments [][]string
		for s := range strings.SplitSeq(c.segments, ",") {
			if s != "" {
				segments = append(segments, strings.Fields(s))
			}
		}
		drives := drivesAre(t, c.drives...)
		s := &storage{
			index: &copiesIndex{segments: segments, bytes: c.bytes}, replicas: 3,
			health: func() []object.DriveHealth { return drives },
		}
		check := s.checkRemoval
		if c.drain {
			check = s.checkDrain
		}
		err := check(t.Context(), "node "+c.leave, drivesOfNode(c.leave))
		switch {
		case c.text == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.text != "" && (err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s: %v; want %v: %s", c.what, err, c.kind, c.text)
		}
	}
}

// TestRefusedNothingChanges: what is refused is not proposed, what is forced
// isn't looked at, and an index that can't be asked refuses.
func TestRefusedNothingChanges(t *testing.T) {
	drives := drivesAre(t, "a p - x xx", "b p - x xx away")
	index := &copiesIndex{segments: [][]string{{"d1"}}}
	s := &storage{index: index, replicas: 3, health: func() []object.DriveHealth { return drives }}
	ctx := t.Context()
	for what, do := range map[string]func(force bool) error{
		"drain":   func(force bool) error { return s.DrainDrive(ctx, "d1", false, force) },
		"replace": func(force bool) error { return s.ReplaceDrive(ctx, "d1", force) },
	} {
		index.proposed, index.fail = nil, nil
		if err := do(false); fault.KindOf(err) != fault.Conflict || len(index.proposed) > 0 {
			t.Errorf("%s: %v, %d proposed", what, err, len(index.proposed))
		}
		if err := do(true); err != nil || len(index.proposed) != 1 || index.proposed[0].MarkDrive == nil || index.proposed[0].MarkDrive.Drive != "d1" {
			t.Errorf("%s by force: %v, %+v", what, err, index.proposed)
		}
	}
	drives = drivesAre(t, "a p - x xx", "b p - x xx")
	index.fail = fault.New(fault.Waiting, "group data-1", "has no leader")
	index.proposed = nil
	for what, err := range map[string]error{"drain": s.DrainDrive(ctx, "d1", false, false), "replace": s.ReplaceDrive(ctx, "d1", false)} {
		if fault.KindOf(err) != fault.Waiting || len(index.proposed) > 0 {
			t.Errorf("%s without an index: %v, %d proposed", what, err, len(index.proposed))
		}
	}
}

func TestAwayText(t *testing.T) {
	for n, want := range map[int]string{
		1: "drive a can't be read", 2: "drives a, b can't be read", 3: "drives a, b, c can't be read", 5: "drives a, b, c and 2 others can't be read",
	} {
		if got := awayText(strings.Split("abcde", "")[:n]); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
