//go:build linux

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive is recv(2). Package unix has it only with the sender's address, which
// costs an allocation.
func receive(fd int, into []byte, flags int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(into))), uintptr(len(into)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
