package dataio

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// lockFile takes the lock without waiting. The system gives it back when the
// process ends, however it does.
func lockFile(f *os.File) (bool, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var inner error
	err = c.Control(func(handle uintptr) {
		const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
		inner = windows.LockFileEx(windows.Handle(handle), flags, 0, 1, 0, new(windows.Overlapped))
	})
	if errors.Is(inner, windows.ERROR_LOCK_VIOLATION) || errors.Is(inner, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	err = errors.Join(err, inner)
	return err == nil, err
}

// syncDir does nothing: Windows can't sync a directory that is open for
// reading, and NTFS journals the names.
func syncDir(*os.File) error { return nil }

// sameDevice is true: a mounted volume is a reparse point, which os.Root
// doesn't follow.
func sameDevice(_, _ *os.File) (bool, error) { return true, nil }

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED) || errors.Is(err, syscall.ENOSPC)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// isDeviceError reports whether the device, not the request, is at fault.
func isDeviceError(err error) bool {
	return errors.Is(err, windows.ERROR_IO_DEVICE) || errors.Is(err, windows.ERROR_CRC) ||
		errors.Is(err, windows.ERROR_NOT_READY) || errors.Is(err, syscall.EIO)
}

func usageOf(dir *os.File) (Usage, error) {
	path, err := windows.UTF16PtrFromString(dir.Name())
	if err != nil {
		return Usage{}, err
	}
	var available, total, free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &available, &total, &free); err != nil {
		return Usage{}, os.NewSyscallError("GetDiskFreeSpaceEx", err)
	}
	return Usage{TotalBytes: int64(total), UsedBytes: int64(total - free), FreeBytes: int64(available)}, nil
}

// allocate sets bytes aside for an empty file, which then has this size.
func allocate(f *os.File, bytes int64) (bool, error) {
	err := f.Truncate(bytes)
	return err == nil, err
}

// syncData makes the content of a file durable.
func syncData(f *os.File) error { return f.Sync() }

// writeBehind leaves it to the system when to write.
func writeBehind(*os.File, int64, int64) {}

// prefetch leaves it to the system to read ahead.
func prefetch(io.Reader, int64, int64) {}
