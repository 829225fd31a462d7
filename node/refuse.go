package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// What is refused unless it is forced: what would lose the last copy of
// something, and what could not come to its end. Nothing is changed by looking.
// Between the look and the change things may change, too: these are to keep an
// operator from a mistake, not the index from a race. What keeps the last copy
// in any case is how package heal works.

// drivesByID chooses the drives with these ids.
func drivesByID(ids ...string) func(*object.DriveHealth) bool {
	return func(d *object.DriveHealth) bool { return slices.Contains(ids, d.ID) }
}

// checkDrain refuses to drain drives whose payload has nowhere to go, or would
// be in fewer zones than it should.
func (s *storage) checkDrain(ctx context.Context, subject string, leaves func(*object.DriveHealth) bool) error {
	all := s.health()
	if err := checkLastRoom(subject, all, leaves); err != nil {
		return err
	}
	if err := s.checkZones(subject, all, leaves); err != nil {
		return err
	}
	return s.checkFits(ctx, subject, all, leaves)
}

// checkRemoval refuses to take away drives with the last copy of something, or
// the only ones that take new payload.
func (s *storage) checkRemoval(ctx context.Context, subject string, leaves func(*object.DriveHealth) bool) error {
	all := s.health()
	if err := checkLastRoom(subject, all, leaves); err != nil {
		return err
	}
	return s.checkLastCopies(ctx, subject, all, leaves)
}

// checkLastRoom refuses to do without the only drives that new payload can go to.
func checkLastRoom(subject string, all []object.DriveHealth, leaves func(*object.DriveHealth) bool) error {
	takes := false
	for i := range all {
		switch d := &all[i]; {
		case !takesPayload(d):
		case !leaves(d):
			return nil
		default:
			takes = true
		}
	}
	if !takes { // nothing gets worse
		return nil
	}
	return fault.New(fault.Conflict, subject, "has the only drives that new payload can go to; add others first, or force it")
}

// checkLastCopies refuses to do without drives that something is on and nowhere
// else; copies on drives that can't be read now don't count.
func (s *storage) checkLastCopies(ctx context.Context, subject string, all []object.DriveHealth, leaves func(*object.DriveHealth) bool) error {
	var leaving, away []string
	for i := range all {
		switch d := &all[i]; {
		case leaves(d):
			leaving = append(leaving, d.ID)
		case !d.Reachable || d.State == dataio.Offline || d.State == dataio.Suspect:
			away = append(away, d.ID)
		}
	}
	if len(leaving) == 0 {
		return nil
	}
	sole, err := s.holds(ctx, leaving, true)
	if err != nil {
		return err
	}
	if sole {
		return fault.New(fault.Conflict, subject, "has the last copy of something, which would be lost; drain it first, or force it")
	}
	if len(away) == 0 {
		return nil
	}
	// What is on drives that are away alone is no better off either way. Where
	// there is some of that, what else there is can't be told from it.
	sole, err = s.holds(ctx, slices.Concat(leaving, away), true)
	if err != nil || !sole {
		return err
	}
	return fault.New(fault.Conflict, subject, "may have the last copy of something that can be read now: %s. Bring back what is away, wait till gridloom heal status shows that the copies are made, or force it",
		awayText(away))
}

func awayText(ids []string) string {
	if len(ids) == 1 {
		return "drive " + ids[0] + " can't be read"
	}
	shown := ids
	if len(shown) > 3 {
		shown = shown[:3]
	}
	text := "drives " + strings.Join(shown, ", ")
	if more := len(ids) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d others", more)
	}
	return text + " can't be read"
}

// checkFits refuses to empty drives whose payload is more than the others of
// their pool have room for; those of the other pools, where it has none left.
func (s *storage) checkFits(ctx context.Context, subject string, all []object.DriveHealth, leaves func(*object.DriveHealth) bool) error {
	a, err := s.index.Read(ctx, &control.Query{Totals: &control.TotalsQuery{}})
	if err != nil {
		return err
	}
	objects := int64(0) // bytes of all of them: no drive has more than one copy of each
	if a.Totals != nil {
		objects = a.Totals.Bytes
	}
	type pool struct {
		leaving, staying int   // drives
		used, free       int64 // of those that leave; of those that stay and take payload
	}
	pools, freeOfAll := map[string]*pool{}, int64(0)
	for i := range all {
		d := &all[i]
		p := pools[d.Pool]
		if p == nil {
			p = &pool{}
			pools[d.Pool] = p
		}
		switch {
		case leaves(d):
			p.leaving++
			p.used += min(d.UsedBytes, objects)
		case !d.Draining:
			p.staying++
			if takesPayload(d) {
				p.free, freeOfAll = p.free+d.FreeBytes, freeOfAll+d.FreeBytes
			}
		}
	}
	for _, name := range sortedKeys(pools) {
		p := pools[name]
		// What has all its copies has some on drives that stay.
		copies := min(s.replicas, p.leaving+p.staying)
		missing := min(p.staying, copies) - max(0, copies-p.leaving)
		if p.staying == 0 { // they go to another pool, all of them
			missing = copies
		}
		need := min(p.used, objects*int64(missing))
		room, where := p.free, "the other drives of pool "+name
		if p.staying == 0 {
			room, where = freeOfAll, "the other pools"
		}
		if room < need {
			return fault.New(fault.NoSpace, subject, "has up to %s of payload, and %s have room for %s; add drives first, or force it",
				sizeText(need), where, sizeText(room))
		}
	}
	return nil
}

// checkZones refuses to empty the last drives of a zone with a name, where its
// pool has not enough others to keep the copies apart.
func (s *storage) checkZones(subject string, all []object.DriveHealth, leaves func(*object.DriveHealth) bool) error {
	type pool struct {
		before, after map[string]bool // zones; a node without one is its own
		drives, stay  int
	}
	pools := map[string]*pool{}
	for i := range all {
		d := &all[i]
		if d.Draining && !leaves(d) {
			continue
		}
		p := pools[d.Pool]
		if p == nil {
			p = &pool{before: map[string]bool{}, after: map[string]bool{}}
			pools[d.Pool] = p
		}
		zone := "zone " + d.Zone
		if d.Zone == "" {
			zone = "node " + d.Node
		}
		p.before[zone] = true
		p.drives++
		if !leaves(d) {
			p.after[zone] = true
			p.stay++
		}
	}
	for _, name := range sortedKeys(pools) {
		p := pools[name]
		asked := min(s.replicas, p.drives, len(p.before))
		if p.stay == 0 || len(p.after) >= asked {
			continue
		}
		for _, zone := range sortedKeys(p.before) {
			if !p.after[zone] && strings.HasPrefix(zone, "zone ") {
				return fault.New(fault.Conflict, subject, "has the only drives of %s in pool %s: without it copies would be in %d of the %d zones that they should be in; add a node to the zone first, or force it",
					zone, name, len(p.after), asked)
			}
		}
	}
	return nil
}
