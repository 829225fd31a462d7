// Package control is the mesh's control state: which mesh this is, its nodes
// and drives, its buckets, and the record of every object. All of it is behind
// two calls, Propose and Read, which work on every node alike.
//
// The state is that of two raft groups, which package replica runs: the system
// group (identity, nodes, slots, buckets), of which every node has a copy, and
// a data group (records), of which the voters have one. docs/architecture.md
// draws how a call goes through them, docs/decisions/0003 says why it is so.
//
// # Where things are
//
//	control.go   the two calls, readiness, Close
//	open.go      what Open finds in the data directory, and what it starts
//	propose.go   a command's way to its leader, and when it is tried again
//	reads.go     ReadIndex, waiting, stale reads
//	buckets.go   names to ids, and a bucket's deletion over two groups
//	iam.go       commands and queries of users and keys; iamapply.go, iamread.go
//	iammaster.go the master that keys are sealed under, and its boxes
//	state.go     a group's store, machine and views (view.go): replica.Machine
//	machine.go   an entry is applied: deduplication, log time; apply.go, nodes.go
//	recent.go    knows of most commands that they are new, without a look
//	move.go      a record's way from one key to another, in one command
//	recopy.go    copies of segments that come and go; copies.go shows where they are
//	quota.go     what is in each bucket, and what may be; scrub.go scrubbing's place
//	row.go       the layout of the rows; slot.go the slots
//	form.go      what a blank node makes of what it hears; meet.go hears it
//	vouched.go   whom a node believes that is about to join
//	steward.go   what a leader does for its group: id, handing over
//	room.go      who leads, and who is asked, where a disk is full
//	voters.go    who is in a group and votes, and what stands in the way
//	links.go     raft's messages over the grid; snapshots.go its snapshots
//	validate.go  what may enter the log at all; wire.go errors between nodes
//
// # The life of a command
//
// Propose fills in what a caller may leave out (version, request id, a bucket's
// id) and refuses bad commands, so that every entry can be applied, for ever.
// It goes to the group's leader, here or by a call of the grid. The leader
// stamps it, puts it into the log and waits until it is applied: log time is
// max(the previous one, the stamp), so that a clock set back stops it for a
// while and never turns it. What the outcome was, a refusal included, is
// remembered under the request id for ten minutes of log time: whoever lost an
// answer repeats the command as it was, at another leader perhaps, and gets
// that answer. A try whose outcome isn't known (the leader was lost with the
// command in its log) is repeated so for at most two minutes. What a try lacks,
// a leader or a connection, is waited for, ten seconds at most. Where there is a
// leader and no way to it, another voter brings the command there.
//
// # The life of a query
//
// It needs a view that shows what was acknowledged before: ReadIndex says which
// entry that is, and the copy here soon has it applied. A node without a copy
// asks one that has, and so does one that the leader can't be reached from. Work
// is bounded by the page: a listing costs one step a record and one seek a common
// prefix, whatever lies under that. Where it has to step over many rows that are
// deleted, it has them cleared away (disk.Store.Tidy). With MaxAge a view is good enough that was complete so long
// ago.
//
// # Rows
//
// Each group's state is rows in one Pebble store, DATA/state/<group>/<n>, where
// n counts the snapshots that took its place; row.go draws them. The applied
// index, its term and the membership go in the same batch as the data. The
// batch goes into the store's memory and into no log but that in DATA/raftlog,
// which is cut only up to what the store has flushed: what a crash, or the
// process's end, takes back is applied from there once more, a memtable of it at
// most. Close flushes.
//
// A segment belongs to one record. Once no record refers to it, it is garbage
// of its drives, until Reclaim says that the file is gone; until then its id
// can't be used again. A file that no row speaks of is an abandoned put's: it
// may go two hours after its birth, since commits are refused after one.
//
// # Copies, drives, usage
//
// A record lists, for each segment, the drives that have synced it. A put that
// got fewer than it should leaves a row that says so, and Recopy changes drives
// afterwards: what is added must be synced before, what is taken away is garbage
// of its drive, and what was on a drive that the mesh no longer has is dropped.
// Each entry of it is measured by the record as it is then, wherever that has
// moved; the last copy is never taken away, and a file that is garbage is never
// listed again. Nor is one whose copy was begun before garbage of its segment was
// reclaimed: it may have found the file that was about to go. So a file that was
// listed once is listed, garbage, reclaimed, or dropped with its drive, and never
// two of these: TestCopiesAgainstModel follows every one.
//
// A drive belongs to the node that has joined with it, and stays when the node
// comes without it: it is away, and its copies may come back. MarkDrive has it
// emptied, or takes it out of the mesh. The data group knows nothing of that: who
// reads CopiesQuery brings the drives that are well.
//
// What a bucket holds is counted in the batch that changes its records, and is
// exact at every entry; so a quota decides in the log, and BeginQuery only saves
// sending what would be refused. Copies don't count.
//
// # Users and keys
//
// They are rows of the system group, of which every node has a copy; IAM gives
// all of them as one immutable value, and Hooks.IAM hears of changes. A change is
// in what a node gives before the call that made it there returns. Elsewhere it
// comes with the entry, at once as a rule, and SystemAge bounds how late it can
// be: the copy shows everything that was acknowledged up to so long ago, two
// seconds while the node and a majority reach each other. A node that is cut off
// goes on with what it has, and how long that is good enough for is its caller's
// to say. When a key was used last has a row of its own, so that noting it makes
// nobody look at anything again; IAM doesn't give it, and queries do.
//
// A user has at most 1,000 keys, so that one command deletes them all; nothing
// that takes rights away is refused for its size, or for a full disk. Names in
// certificates are unique over all users. The leader makes the master, and keeps
// a box of it for every mesh secret that nodes accept, as iammaster.go says.
//
// # Goroutines, locks, failure
//
// tend (readiness), meet (greetings), steward, keepFresh for each group, tellIAM
// (the hook), one link a node, and the engine's own; all end in Close, which hands leadership over, and waits for
// the calls in flight. state.mu guards which view is present and who waits for
// an outcome, Control.mu whether it is closed and ready; neither is held across
// I/O or with another. iamFeed.turn is held while changes are put in, and its mu,
// taken after it, is not.
//
// A store or log that can't be written is given up at once and for good: after
// a failed sync nobody knows what is on disk. Everything unanswered fails as
// Unavailable, Done is closed, and the process is expected to end. It doesn't
// come to that for a disk that fills up: below a reserve of 128 MiB a leader
// hands over to a voter that has room, within some five seconds, and doesn't stand
// again before it has 160 MiB; where no voter has room it accepts only what
// deletes, and refuses the rest as NoSpace. Below half of the reserve a follower
// takes no entries, as if it couldn't be reached, until there is room again, and
// reads from others meanwhile. A row that can't be read fails a query as Corrupted, and ends the machine: it is neither
// skipped nor guessed at, and nor is one of an unknown version. Refusals are
// *fault.Error, made in apply and kept with the outcome, so that every node and
// every retry gives the same.
//
// # Versions
//
// Nodes tell each other which command versions they apply. One that doesn't
// apply the versions this node writes is refused as a peer, by name, and an entry
// of an unknown version ends the machine: a mesh is upgraded node by node with
// a program that applies both, before any writes the newer. This one applies and
// writes 3 only: rows have changed with it, and with them the FORMAT of the data
// directory, so that one of an older program is refused by the name of its format.
//
// # Costs
//
// A put is one entry of the log and, in the state, one record row, a row per
// segment and two rows for its outcome; replacing a record costs a row per
// segment and drive more. The usage of a bucket is written once a batch, with the
// totals, and read for the first put only. A pass of CopiesQuery over a million
// records of one segment takes 1.5 s, in 50 pages (BenchmarkCopies, two
// processors). Memory: caches of 73 MiB, memtables of at most twice 64 MiB for the
// log, 16 MiB for the records and 4 MiB for the system group, up to 32 MiB of each
// group's log, 64 MiB of commands in hand, filters of request ids that are as large
// as ten minutes' commands need, two bytes each, and 16 MiB a group at most, and
// the users and keys, at most 128 MiB as they are encoded, twice while changes are
// put in. The applier only notes what has changed; putting it in copies one list of
// structs, once for all changes since somebody has asked: BenchmarkKeys has 100,000
// keys.
package control
