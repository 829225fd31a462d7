package dataio

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file is for illumos, too: its builds are Solaris's to Go.

// usageOf asks by the directory's path: there is no call for a descriptor.
func usageOf(dir *os.File) (Usage, error) {
	var s unix.Statvfs_t
	if err := unix.Statvfs(dir.Name(), &s); err != nil {
		return Usage{}, os.NewSyscallError("statvfs", err)
	}
	unit := int64(s.Frsize)
	return Usage{
		TotalBytes:  int64(s.Blocks) * unit,
		UsedBytes:   int64(s.Blocks-s.Bfree) * unit,
		FreeBytes:   int64(s.Bavail) * unit,
		TotalInodes: int64(s.Files),
		UsedInodes:  int64(s.Files - s.Ffree),
		FreeInodes:  int64(s.Favail),
	}, nil
}

// allocate does nothing: ZFS has no way to set space aside for a file. The
// claims of the drive keep the writers within what is free.
func allocate(*os.File, int64) (bool, error) { return false, nil }

// syncData makes the content of a file durable.
func syncData(f *os.File) error { return f.Sync() }

// writeBehind leaves it to the system when to write.
func writeBehind(*os.File, int64, int64) {}

// prefetch leaves it to the kernel to read ahead.
func prefetch(io.Reader, int64, int64) {}
