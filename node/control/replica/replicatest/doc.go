// Package replicatest is for the tests of package replica and of those who use
// it: a small Machine, and a simulation of nodes whose groups are stepped by a
// seeded scheduler, one event at a time, with everything that can go wrong
// going wrong between them.
//
//	r := replicatest.Run(t, replicatest.Options{Seed: 1, Steps: 50_000, Model: replicatest.Ledgers{}})
//
// Nothing in it reads a clock or starts a goroutine, so that a seed's run is
// always the same; Pebble's own goroutines do nothing that shows.
package replicatest
