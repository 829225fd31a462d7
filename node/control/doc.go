// Package control is the mesh's control state: which mesh this is, its nodes
// and drives, its buckets, and the record of every object. All of it is behind
// two calls, Propose and Read, which work on every node alike.
//
// In this form one node, the owner, holds the state: the first of the sorted
// names. It is a single point of failure, and the only one: the others hold
// nothing but the mesh's id. The state is a log's, not a database's: commands
// carry all that is random, are stamped with a time where they enter, and are
// applied by a deterministic machine, so that a consensus log goes between
// propose and apply without anything being converted.
//
// # The life of a command
//
//	Propose ─ complete, validate ─┬─ on the owner ──────────────┐
//	                              └─ elsewhere: ask ~~grid~~ serve
//	                                                            │
//	     answer ◄─ publish ◄─ commit, synced ◄─ apply ◄─ stamp ◄─ queue
//	                          └────────── run, one goroutine ──┘
//
// Propose fills in what a caller may leave out (version, request id, a new
// bucket's id) and refuses bad commands, so that every entry can be applied,
// for ever. Run takes what is waiting, up to 256 commands or 4 MiB, applies it
// to one batch, adds the applied index and commits with one sync: while it
// syncs the next batch gathers. Nobody is answered before that, and the state
// is shown to readers only then, too. A caller may leave while its command is
// queued, and it never happens; once it was taken, it completes.
//
// Log time is max(the previous one, the stamp): a clock that is set back stops
// it for a while, and never turns it. What an outcome was is remembered under
// the command's request id for ten minutes of log time, refusals included:
// whoever lost an answer repeats the command as it was, and gets that answer.
// A command over the wire is repeated so for at most two minutes.
//
// # The life of a query
//
// A read takes the present view: a snapshot of the store with the facts that
// everybody asks for beside it. That shows every command that was acknowledged
// before, and nothing that a crash could take back, so reads are linearizable
// and never wait for a sync. Work is bounded by the page: a listing costs one
// seek an entry, whatever lies under a common prefix. Every answer carries the
// epoch of the topology, so that nodes notice when theirs has aged.
//
// # Away from the owner
//
// One goroutine, follow, asks the owner how things stand when the connection
// comes up, when an answer spoke of a newer epoch, and every five seconds. It
// publishes the mesh's id, once that is in a file of the data directory, and
// the topology, and says whether the node is ready. Calls while the owner is
// away wait min(their deadline, 10 s), with jitter, and one line in the log
// for all; then they fail as Waiting, naming the owner, or as Unavailable
// where a command may have been carried out. An answer of the owner, refusals
// included, is never repeated.
//
// A call is made only once the owner has confirmed the id in this run, and
// from then on it is the grid's realm, too: a node of another mesh finds out,
// asks nothing, and stays unready as WrongMesh.
//
// The id decides what a data directory may be used for. An owner makes up an
// id, the first command of all, in a directory that has none; one that has an
// id and no index, or another node's id, is refused as WrongMesh. A node that
// finds an index in its directory and another node's name first in the list
// refuses to start, since there would be two.
//
// # Rows
//
// The state is rows in one Pebble store, DATA/state/data; row.go draws them.
// The first byte of a key is its kind, and every kind belongs to one group:
// when the system group gets a store of its own, its kinds (identity, buckets,
// nodes) move to DATA/state/system by a copy of their ranges, and m, q and Q
// exist in both. What a command touches then is in one group but for a put's
// and a bucket deletion's look at the other: those become an epoch-checked
// fence of bucket ids in the data group.
//
// A segment belongs to one record. Once no record refers to it, it is garbage
// of its drives, until Reclaim says that the file is gone; until then its id
// can't be used again. A file that no row speaks of is an abandoned put's: it
// may go two hours after its birth, since commits are refused after one.
//
// # Goroutines, locks, failure
//
// On the owner run, elsewhere follow; both end in Close, which waits for the
// calls in flight, too. owner.mu guards which view is present, Control.mu
// whether it is closed and ready; neither is held across I/O or with another.
//
// A store that can't be written is given up at once and for good: after a
// failed sync nobody knows what is on disk. Everything unanswered fails as
// Unavailable, Done is closed, and the process is expected to end. It doesn't
// come to that for a disk that fills up: below a reserve of 128 MiB only what
// deletes is accepted, and the rest refused as NoSpace. A row that
// can't be read fails a query as Corrupted, and ends run: it is neither
// skipped nor guessed at, and nor is one of an unknown version. Refusals are
// *fault.Error, made in apply and kept with the outcome, so that every node
// and every retry gives the same.
//
// # Costs
//
// A put is one record row, a row per segment, two rows for its outcome and a
// share of a sync; replacing a record costs a row per segment and drive more.
// Memory: a 32 MiB cache and up to 32 MiB of memtables on the owner, 64 MiB of
// queued commands; elsewhere next to nothing.
package control
