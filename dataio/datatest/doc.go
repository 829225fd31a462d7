// Package datatest helps to test what keeps and sends payloads: Faults makes a
// drive fail as disks do, Recorder tells what a loss of power could have left of
// one at any time, and Traced (Linux) tells what a piece of Go code asked of the
// kernel, so that a test can show that bytes left by sendfile(2) and weren't
// copied. A Volume (Linux, root) is a real file system that can be filled, frozen
// and have its power cut.
//
// All stand outside the code under test: Faults and Recorder are each a
// dataio.Interceptor, which any program may give to a drive, and Traced runs the
// test's own binary as a child under ptrace(2).
package datatest
