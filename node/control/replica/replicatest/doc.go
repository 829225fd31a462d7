// Package replicatest is for the tests of package replica and of those who use
// it: Ledger, a small Machine, and a simulation of nodes whose groups are
// stepped by a seeded scheduler, one event at a time, with everything that can
// go wrong going wrong between them.
//
//	r := replicatest.Run(t, replicatest.Options{Seed: 1, Steps: 50_000, Model: replicatest.Ledgers{}})
//
// # What happens
//
// An event is a tick of one node, each at its own speed; the delivery of one
// batch of messages; what a node does with what it was sent, with one write of
// its log, or with one thing that its machine has to do, each apart from what
// led to it; a client's request, or its next try under the same number after
// the answer was lost; a linearizable read; a change of membership, a hand-over
// of leadership, a fetch; a jump of a clock.
//
// Batches are lost, doubled and overtake each other, links are cut, in one
// direction too, nodes are slow at one thing, and crash: between two events, or
// in the middle of one, with everything lost that was not synced, or, where the
// system has written it back by itself, with less. The weather changes: what
// goes wrong, and how often. Now and then everything is healed, and then all
// have to agree, and to take requests, within a bounded time. Nodes that were
// removed end for good then, and others come, blank, under new ids.
//
// # What is checked
//
// At most one node leads in a term. An entry that was applied anywhere is what
// everybody applies at its index, and the states' sums are the same where as
// much was applied. What was acknowledged has taken effect exactly once in
// every state that is read after it. A read shows at least what any read or
// answer before it has shown. Term, commit index and applied entry never go
// back while a node runs. No engine fails.
//
// # Repeating
//
// Nothing here reads a clock or starts a goroutine, and raft takes its timeouts
// from crypto/rand, which testing/cryptotest makes deterministic: the same seed
// is the same trace. A Model has to keep to that, and its stores must make
// nothing durable in the background.
package replicatest
