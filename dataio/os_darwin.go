package dataio

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func fragmentBytes(s *unix.Statfs_t) int64 { return int64(s.Bsize) }

// allocate sets bytes aside for an empty file, whose size stays 0. It reports
// whether the file system knows how to.
func allocate(f *os.File, bytes int64) (bool, error) {
	store := &unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: bytes}
	err := control(f, func(fd int) error {
		return unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, store)
	})
	if errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("fcntl F_PREALLOCATE", err)
}

// syncData makes the content of a file durable: by F_FULLFSYNC, as fsync
// leaves it in the disk's cache.
func syncData(f *os.File) error { return f.Sync() }

// writeBehind leaves it to the system when to write.
func writeBehind(*os.File, int64, int64) {}

// prefetch leaves it to the kernel to read ahead.
func prefetch(io.Reader, int64, int64) {}
