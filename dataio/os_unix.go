//go:build linux || darwin || freebsd || solaris

package dataio

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// control calls f with the file's descriptor, again if a signal interrupted it.
func control(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) {
		for inner = f(int(fd)); inner == unix.EINTR; inner = f(int(fd)) {
		}
	})
	return errors.Join(err, inner)
}

// lockFile takes the lock without waiting. The kernel gives it back when the
// process ends, however it does.
func lockFile(f *os.File) (bool, error) {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// syncDir makes the entries of a directory durable.
func syncDir(dir *os.File) error { return dir.Sync() }

// sameDevice reports whether two files are in one file system.
func sameDevice(a, b *os.File) (bool, error) {
	var devices [2]uint64
	for i, f := range []*os.File{a, b} {
		info, err := f.Stat()
		if err != nil {
			return false, err
		}
		devices[i] = uint64(info.Sys().(*syscall.Stat_t).Dev)
	}
	return devices[0] == devices[1], nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// isDeviceError reports whether the device, not the request, is at fault.
func isDeviceError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}
