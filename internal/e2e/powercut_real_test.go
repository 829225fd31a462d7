//go:build real && linux

//real:needs mkfs.ext4 mount umount

package e2e

import (
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestPowerCut has all three nodes lose their power at once, in the middle of
// puts: the index and the drives of each are on a file system that keeps only
// what was synced. After 2,000 acknowledgements all of what was acknowledged must
// be back, hash for hash, and whatever wasn't must be whole or absent.
func TestPowerCut(t *testing.T) {
	ownMounts(t)
	f := newFleet(t, 3)
	volumes := make([]*datatest.Volume, f.size)
	for node := range f.all() {
		if err := os.Mkdir(f.data(node), 0o700); err != nil {
			t.Fatal(err)
		}
		volumes[node-1] = datatest.NewVolume(t, f.data(node), 1<<30, "")
	}
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "kills")
	load := newLoad(f.meshUnderTest, f.size)
	load.sizes = []int{100, 9 << 10, 70 << 10}
	stop := load.start(0)
	load.waitAcknowledged(t, 2000)
	for _, v := range volumes {
		if err := v.CutPower(); err != nil {
			t.Errorf("cut the power: %v", err)
		}
	}
	for node := range f.all() {
		f.kill(node)
	}
	stop()
	for _, v := range volumes {
		v.Remount()
	}
	f.startAll(t)
	load.check(t, 1)
	t.Logf("%d puts tried, %d acknowledged", len(load.tried), len(load.acknowledged))
}

// ownMounts gives the test, and the programs that it starts, their own view of
// the mounts, which ends with them. The test's goroutine keeps its thread.
func ownMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	runtime.LockOSThread() // for ever: the thread ends with the test
	if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
		t.Fatalf("this root may not have mounts of its own (unshare: %v): the machine must allow it, for instance by docker run --privileged", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}
