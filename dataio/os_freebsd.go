package dataio

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func fragmentBytes(s *unix.Statfs_t) int64 { return int64(s.Bsize) }

// allocate does nothing: ZFS has no way to set space aside for a file. The
// claims of the drive keep the writers within what is free.
func allocate(*os.File, int64) (bool, error) { return false, nil }

// syncData makes the content of a file durable.
func syncData(f *os.File) error { return f.Sync() }

// writeBehind leaves it to the system when to write.
func writeBehind(*os.File, int64, int64) {}

// prefetch leaves it to the kernel to read ahead.
func prefetch(io.Reader, int64, int64) {}
