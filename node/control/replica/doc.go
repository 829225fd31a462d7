// Package replica runs the raft groups of one node: go.etcd.io/raft/v3 with a
// log in Pebble, a transport and state machines that its caller gives it. It
// knows nothing of what is in an entry.
//
// # Data flow
//
//	Propose, ReadIndex, Deliver ──▶ inbox ──▶ run: steps every group, takes
//	                                  ▲       what is ready (core.pump)
//	                                  │          │          │          │
//	                      responses   │      messages    appends   committed
//	                                  │          ▼          ▼      entries ▼
//	                                  │      Transport    write   apply, one a
//	                                  └───────────────◀─────┴──────◀── group
//
// The storage is asynchronous (raft.Config.AsyncStorageWrites): run never
// waits for a disk. Write takes everything that has gathered, of all groups,
// makes it durable with one sync, and only then lets go of the responses that
// promise it. While it syncs, the next batch gathers: proposals, too, so that
// what comes into one write is one message to each of the others, and one answer.
// That costs a proposal nothing, since an entry is applied only when it is in this
// node's synced log.
//
// core is deterministic: what it does follows from the calls it gets, in their
// order (and from crypto/rand, which raft takes its election timeouts from).
// Engine calls it from goroutines. A Stepper is an Engine without them, or a
// clock: a simulation says what comes next, and the same functions do it.
//
// # Membership
//
// Raft goes by a change of membership once it knows it to be committed, and not
// as soon as it is in the log (thesis, 4.1). A node that doesn't know it yet
// may so need the vote of one that has left, which gives it to nobody whose log
// is shorter than its own; and who has left may never come back. Therefore a
// leader doesn't propose that it goes but hands over first, takes nothing into
// its log while a change by which it might go is on its way, and leads on until
// another can. That a change is committed is on the leader's disk before
// anybody is told, and applied durably before Status says that it is through.
// What is left of it: a leader that is lost for good in the moment in which it
// has told only those who leave.
//
// A node without others answers reads at once (alone). Everybody else asks the
// leader, and waits for what it says to be applied.
//
// # Goroutines, locks
//
// run owns core. write owns the log, an apply each owns a machine, except
// that write installs a snapshot in it, under applyMu. Fetches of snapshots
// have a goroutine each, at most one a group. All of them end in Close, which
// waits for them; only a write that hangs in the kernel is left behind, after
// Stalled of it, and then the process has to end. No lock is held across I/O
// but applyMu. copies.mu is locked before those of the mailboxes and Engine's;
// no others together.
//
// # Bounds
//
// Messages beyond maxInbox are dropped, as raft allows, and so many proposals wait
// at most; uncommitted entries of
// a leader are bounded by maxUncommittedBytes, what is being applied by
// maxApplyingBytes. The log is kept in memory, too (the library's
// MemoryStorage), and cut back to half of Options.LogBytes: never beyond what
// the machine has made durable, as it does by itself or by Sync once the log has
// more than LogBytes, and, up to logWaits times that, not beyond the checkpoint
// that somebody fetches. Whoever is further behind gets a snapshot.
//
// # Failure
//
// A log or machine that fails is final: Done is closed, Err says why, and the
// node has to stop, since nobody knows what is on its disk. So does one whose
// log hasn't taken a write for Stalled. Pebble tells of a write that failed to
// its Logger alone: Options.LogFailed says so here before anything is promised.
//
// Sources: Ongaro, "Consensus: Bridging Theory and Practice" (2014), 3 to 6 for
// the protocol, 4.2.1 for learners, 6.4 for ReadIndex, 9.6 for PreVote.
package replica
