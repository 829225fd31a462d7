//go:build linux || darwin || freebsd

package dataio

import (
	"os"

	"golang.org/x/sys/unix"
)

func usageOf(dir *os.File) (Usage, error) {
	var s unix.Statfs_t
	err := control(dir, func(fd int) error { return unix.Fstatfs(fd, &s) })
	if err != nil {
		return Usage{}, os.NewSyscallError("fstatfs", err)
	}
	// The types of the fields differ between the systems, and free ones may be
	// negative on FreeBSD, where root has eaten into its own share.
	unit := fragmentBytes(&s)
	return Usage{
		TotalBytes:  int64(s.Blocks) * unit,
		UsedBytes:   (int64(s.Blocks) - int64(s.Bfree)) * unit,
		FreeBytes:   max(0, int64(s.Bavail)) * unit,
		TotalInodes: int64(s.Files),
		UsedInodes:  int64(s.Files) - int64(s.Ffree),
		FreeInodes:  max(0, int64(s.Ffree)),
	}, nil
}
