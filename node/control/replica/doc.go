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
// promise it. While it syncs, the next batch gathers. An entry is applied only
// when it is in this node's synced log.
//
// core is deterministic: what it does follows from the calls it gets, in their
// order (and from crypto/rand, which raft takes its election timeouts from).
// Engine calls it from goroutines, a simulation from a seeded scheduler.
//
// # Goroutines, locks
//
// run owns core. write owns the log, an apply each owns a machine, except
// that write installs a snapshot in it, under applyMu. Fetches of snapshots
// have a goroutine each, at most one a group. All of them end in Close, which
// waits for them; only a write that hangs in the kernel is left behind, after
// Stalled of it, and then the process has to end. No lock is held across I/O
// but applyMu, and none together with another.
//
// # Bounds
//
// Messages beyond maxInbox are dropped, as raft allows; uncommitted entries of
// a leader are bounded by maxUncommittedBytes, what is being applied by
// maxApplyingBytes. The log is kept in memory, too (the library's
// MemoryStorage), and cut back to keepLogBytes once it has maxLogBytes: never
// beyond what the machine has made durable. Whoever is further behind gets a
// snapshot.
//
// # Failure
//
// A log or machine that fails is final: Done is closed, Err says why, and the
// node has to stop, since nobody knows what is on its disk. So does one whose
// log hasn't taken a write for Stalled.
//
// Sources: Ongaro, "Consensus: Bridging Theory and Practice" (2014), 3 to 6 for
// the protocol, 4.2.1 for learners, 6.4 for ReadIndex, 9.6 for PreVote.
package replica
