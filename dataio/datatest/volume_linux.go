package datatest

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	ioctlShutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
	shutdownNoFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
	ioctlFreeze     = 0xc0045877 // FIFREEZE
	ioctlThaw       = 0xc0045878 // FITHAW
)

// Volume is an ext4 file system on a loop device, for a test that fills, stops
// or takes away a real one. Its mount belongs to the mount namespace that the
// test is in, which should be one of the test's own, so that nothing stays
// however the test ends. It needs root, mkfs.ext4, mount and umount.
type Volume struct {
	Dir    string // where it is mounted
	Device string // the loop device, which goes with the last mount of it

	t     testing.TB
	image string
}

// NewVolume makes a file system and mounts it at dir, which must exist. Options
// are those of mount(8), "" for none. It is unmounted when the test ends.
func NewVolume(t testing.TB, dir string, bytes int64, options string) *Volume {
	t.Helper()
	v := &Volume{Dir: dir, t: t, image: dir + ".image"}
	f, err := os.OpenFile(v.image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		t.Fatal(err)
	}
	v.Run("mkfs.ext4", "-q", "-F", v.image)
	v.mount(options)
	t.Cleanup(func() { _ = unix.Unmount(v.Dir, unix.MNT_DETACH) }) // it may be gone already
	mounts, err := os.Open("/proc/thread-self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[1] == v.Dir {
			v.Device = words[0]
		}
	}
	if v.Device == "" {
		t.Fatalf("%s is not among the mounts", v.Dir)
	}
	return v
}

func (v *Volume) mount(options string) {
	v.t.Helper()
	if options != "" {
		options = "," + options
	}
	v.Run("mount", "-t", "ext4", "-o", "loop"+options, v.image, v.Dir)
}

// Run runs a program that must succeed.
func (v *Volume) Run(program string, args ...string) {
	v.t.Helper()
	if output, err := exec.CommandContext(v.t.Context(), program, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, output)
	}
}

// CutPower stops the file system as a loss of power does: what hasn't come to
// the disk never will, and every further operation fails.
func (v *Volume) CutPower() error {
	dir, err := os.Open(v.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.IoctlSetPointerInt(int(dir.Fd()), ioctlShutdown, shutdownNoFlush)
}

// Freeze has everything that writes wait until thaw.
func (v *Volume) Freeze() (thaw func() error, err error) {
	dir, err := os.Open(v.Dir)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), ioctlFreeze, 0); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() error { return errors.Join(unix.IoctlSetInt(int(dir.Fd()), ioctlThaw, 0), dir.Close()) }, nil
}

// Remount unmounts the file system and mounts it again, as a start of the
// machine does. Nobody may have a file of it open.
func (v *Volume) Remount() {
	v.t.Helper()
	v.Run("umount", v.Dir)
	v.mount("")
}
