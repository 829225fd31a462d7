package dataio

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func fragmentBytes(s *unix.Statfs_t) int64 {
	if s.Frsize > 0 {
		return int64(s.Frsize)
	}
	return int64(s.Bsize)
}

// allocate sets bytes aside for an empty file, which then has this size. It
// reports whether the file system knows how to.
func allocate(f *os.File, bytes int64) (bool, error) {
	err := control(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, bytes) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("fallocate", err)
}

// syncData makes the content and the size of a file durable; its times, which
// fsync would write as well, don't matter.
func syncData(f *os.File) error {
	return os.NewSyscallError("fdatasync", control(f, unix.Fdatasync))
}

// writeBehind has the kernel begin to write a part of a file to the disk, and
// doesn't wait for it. What goes wrong there syncData tells.
func writeBehind(f *os.File, off, bytes int64) {
	_ = control(f, func(fd int) error {
		return unix.SyncFileRange(fd, off, bytes, unix.SYNC_FILE_RANGE_WRITE)
	})
}

// prefetch asks the kernel to read the bytes that come skip bytes after the
// position of r into its cache, if r is a file. It doesn't wait for them.
func prefetch(r io.Reader, skip, bytes int64) {
	f, ok := r.(*os.File)
	if !ok {
		return
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return // a pipe
	}
	// Only advice: what goes wrong here goes wrong again when it is read.
	_ = control(f, func(fd int) error {
		return unix.Fadvise(fd, at+skip, bytes, unix.FADV_WILLNEED)
	})
}
