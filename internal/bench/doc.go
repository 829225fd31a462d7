// Package bench is what the benchmarks node/control/bench and node/door/bench
// have in common: servers that are processes of their own (Start, Serve), the
// figures of several runs and their ratios (Runs), and what is to be said of the
// machine (Platform, Disk, …). They are modules of their own, so that what they
// measure beside is no dependency of the product; nothing but they imports this.
//
// Serve has one goroutine, and one more for the end of what it serves; both end
// with the process at the latest. The beginning and the end of a server are
// bounded at both ends.
package bench
