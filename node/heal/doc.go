// Package heal keeps every segment of every object at the number of copies
// that it is to have, on drives that are to have them: it copies again what a
// lost drive or node had, empties what drains, evens out what is fuller than
// the rest, and reads everything from time to time to find what has rotted.
//
// # Who does it
//
// One node coordinates: the one that leads the data group, since what there is
// to do follows from the records. The payload goes from drive to drive, never
// through the coordinator. Each other node watches who that is, hands requests
// on to it (peer.go) and remembers what it was asked to do, so that a successor
// goes on. Two that both believe to be coordinators for a moment do no harm: each
// change is a Recopy that names the drives it was made from (CopyChange.Seen), and
// the index refuses the second.
//
// # Data flow
//
//	topology, health ── drives.go ── a view: which drives count, which are lost
//	                                   │
//	pending rows ─ pending.go ─┐       ▼
//	records ────── pass.go ────┼─► plan.go ─► work.go ─┬─► CopyTo  (object.copy)
//	records ────── scrub.go ───┤   what one   queues   ├─► Check   (object.check)
//	records ── rebalance.go ───┤   segment    by drive └─► Recopy  (node/control)
//	bad copies ── reports.go ──┘   needs
//
// The view sorts drives by what their copies are worth:
//
//	well      its copies count; a source, and a target if it is Online
//	leaving   well, but draining: a source, its copies don't count
//	away      not well for less than Options.After: its copies count, for now
//	lost      not well for longer: its copies don't count
//	gone      not in the topology: there are no copies on it
//
// plan.go makes of a segment and a view what is to be done: copies to add (on
// which drives, PlaceCopy says), copies to write anew in their place, drives to
// take off the list. It decides nothing that it can't take back, with one rule:
// a copy on a drive that is well is taken away only when enough others are on
// drives that are well, and one of these was compared with its checksums just
// before, as the source or result of a copy or by a check of its own. That is
// what keeps the last good copy, whatever the plan was made from.
//
// # What is looked at, and when
//
// Heal rows (records that were committed with copies missing) are read all the
// time, with pauses of ten times what a reading took, two seconds at least.
// A pass over all records that aren't as they should be follows each change of
// the view, a request, and every six hours: a first run counts, and queues the
// segments with one copy left, and a second one all others. The scrub reads all
// records and has each copy verified where it is, at the rate that gets it
// round in Options.ScrubPeriod, or as fast as it may on request; its position is
// in the index (NoteScrub) and outlives the leader. Rebalancing is one run over
// all records on request. The garbage rows of drives that are gone are dropped,
// since nobody else would.
//
// # Bounds
//
// At most 10,000 segments are in hand, of which 8 batches (64 copies or 256 MiB
// each, one if a single one is larger) are under way, 4 to one drive; copies and
// checks together take BytesPerSecond. A segment that fails is tried again after
// 1, 2, 4, 8 seconds, planned anew each time, and given up as stuck after the
// fifth. A segment without any good copy is reported, once a round. Either is left
// alone for a minute then, and for twice as long each time up to six hours,
// unless drives come or go or somebody asks (hold.go): the runs that meet it
// meanwhile only say that it is still so. What has no drive to go to costs
// nothing but its place in a run.
//
// # A copy's birth
//
// Before a batch is sent, one linearizable read gives its birth and says which
// of the segments the target drive is known to have, as garbage: these are left
// for later. The index refuses a Recopy an hour of log time after its birth, and
// one that adds a copy whose file was garbage until after it. The collector of
// orphans leaves a file alone for two hours after it was seen first, and for
// another two after a copy has made it anew. So neither ever removes a file that
// a Recopy names.
//
// # Goroutines, locks, failure
//
// Run has: lead (who coordinates, and this node's term if it does) and send
// (reports of bad copies). A term has: look (the view), passes, pending, scrub,
// rebalance, sweep, and the work's start and commit, with at most 8 batches;
// they end with the term, when another node leads or ctx ends, and lead joins
// them before it begins another. work.mu guards the queues, Healer.mu what
// Status shows; neither is held across I/O or together with the other.
//
// What fails is counted and shown by Status with its reason. A read or a
// Propose that fails is tried again by the loop that made it, with a pause.
// Losing the term loses the queues, no work: what was copied and not committed
// is an orphan, and is copied again.
//
// # Costs
//
// A pass reads each record once on the leader, two if something is to be done:
// some 20,000 records a read. A segment in hand is some 500 bytes. A batch is
// one read of the index, one call to the target's node, and its share of one
// Recopy of up to 1,000 segments.
package heal
