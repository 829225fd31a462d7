// Package datatest helps to test what keeps and sends payloads: Faults makes a
// drive fail as disks do, and Traced (Linux) tells what a piece of Go code
// asked of the kernel, so that a test can show that bytes left by sendfile(2)
// and weren't copied.
//
// Both stand outside the code under test: Faults is a dataio.Interceptor, which
// any program may give to a drive, and Traced runs the test's own binary as a
// child under ptrace(2).
package datatest
