//go:build real

//real:needs mkfs.ext4 mount umount

package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// These tests do to a file system of their own, on a loop device, what Faults
// only says: fill it, stop it, make it read-only, take it away, and cut its
// power. Each runs in a process of its own with its own view of the mounts, so
// that none stays, however it ends.

const mountsVariable = "GRIDLOOM_TEST_OWN_MOUNTS"

// withMounts runs the test in a process that may mount, and reports whether
// this is that process.
func withMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountsVariable) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	child.Env = append(os.Environ(), mountsVariable+"="+t.Name())
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	output, err := child.CombinedOutput()
	t.Logf("%s", output)
	if errors.Is(err, unix.EPERM) {
		t.Fatalf("this root may not have mounts of its own (unshare: %v): the machine must allow it, for instance by docker run --privileged", err)
	}
	if err != nil || !bytes.Contains(output, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a process of its own: %v", err)
	}
	return false
}

// volume is a file system with a drive in it.
type volume struct {
	*datatest.Volume
	t *testing.T
}

// newVolume makes a file system of 64 MiB and mounts it.
func newVolume(t *testing.T, options string) *volume {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "drive")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &volume{datatest.NewVolume(t, dir, 64<<20, options), t}
}

// watched opens the drive with its Monitor, and reports its states.
func (v *volume) watched(slow dataio.Slow) (*dataio.Drive, <-chan dataio.State) {
	v.t.Helper()
	states := make(chan dataio.State, 100)
	o := options()
	o.Slow = slow
	o.Events.StateChanged = func(_ *dataio.Drive, from, to dataio.State, cause error) {
		v.t.Logf("%v to %v: %v", from, to, cause)
		states <- to
	}
	d, err := dataio.Open(v.t.Context(), v.Dir, o)
	if err != nil {
		v.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(v.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Monitor(ctx) }()
	v.t.Cleanup(func() {
		cancel()
		<-ended
		d.Close() // again, for the tests that don't
	})
	return d, states
}

// await waits for a state, and returns how long it took.
func await(t *testing.T, states <-chan dataio.State, want dataio.State) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		select {
		case s := <-states:
			if s == want {
				return time.Since(began)
			}
		case <-time.After(40 * time.Second):
			t.Fatalf("the drive isn't %v after 40 s", want)
		}
	}
}

// load puts payloads from several goroutines until stop is closed, and returns
// those that were acknowledged, with the seeds of their content. acked hears how
// many there are, after each.
func load(t *testing.T, d *dataio.Drive, stop <-chan struct{}, acked func(n int)) map[dataio.ID]byte {
	return loadUntil(t, d, stop, func(so map[dataio.ID]byte) { acked(len(so)) })
}

// loadUntil is load, and tells next what was acknowledged so far.
func loadUntil(t *testing.T, d *dataio.Drive, stop <-chan struct{}, next func(so map[dataio.ID]byte)) map[dataio.ID]byte {
	var mu sync.Mutex
	done := map[dataio.ID]byte{}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id, seed := dataio.NewID(), byte(worker*60+i%60)
				if write(t.Context(), d, id, loadContent(seed), int64(len(loadContent(seed)))) != nil {
					continue
				}
				mu.Lock()
				done[id] = seed
				so := maps.Clone(done)
				mu.Unlock()
				next(so)
			}
		})
	}
	wg.Wait()
	return done
}

// loadContent is what a payload of load has: 1 byte to 60 KiB.
func loadContent(seed byte) []byte { return random(1+int(seed)*251, seed) }

// wantAll fails the test unless every payload is there whole.
func wantAll(t *testing.T, d *dataio.Drive, acked map[dataio.ID]byte) {
	t.Helper()
	for id, seed := range acked {
		if got, err := get(t, d, id); err != nil || !bytes.Equal(got, loadContent(seed)) {
			t.Errorf("%s was acknowledged, and has %d other bytes (%v)", id, len(got), err)
		}
	}
	torn := 0
	err := d.Walk(t.Context(), func(id dataio.ID, _ time.Time) error {
		if _, err := get(t, d, id); errors.Is(err, dataio.ErrCorrupted) {
			torn++
		} else if err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d payloads were acknowledged and are there; %d files are torn", len(acked), torn)
}

// TestExt4PowerCut cuts the power in the middle of puts.
func TestExt4PowerCut(t *testing.T) {
	if !withMounts(t) {
		return
	}
	for range 3 {
		v := newVolume(t, "")
		d, states := v.watched(dataio.Slow{})
		stop := make(chan struct{})
		cut := 50 + rand.IntN(150)
		acked := load(t, d, stop, func(n int) {
			if n == cut {
				if err := v.CutPower(); err != nil {
					t.Errorf("shut the file system down: %v", err)
				}
				close(stop)
			}
		})
		// It is not believed any more, and can't be read.
		err := write(t.Context(), d, dataio.NewID(), []byte("x"), 1)
		if err == nil {
			t.Error("a payload was acknowledged without power")
		}
		await(t, states, dataio.Suspect)
		for id := range acked {
			f, err := d.Open(t.Context(), id)
			if err == nil {
				f.Close()
			} else if errors.Is(err, dataio.ErrNotFound) || errors.Is(err, dataio.ErrCorrupted) {
				t.Errorf("what can't be read is %v", err)
			}
		}
		if err := d.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		v.Remount()
		wantAll(t, open(t, v.Dir, options()), acked)
	}
}

// TestExt4Full fills the file system, and gives space back.
func TestExt4Full(t *testing.T) {
	if !withMounts(t) {
		return
	}
	v := newVolume(t, "")
	d, states := v.watched(dataio.Slow{})
	others := filepath.Join(v.Dir, "others")
	if err := os.WriteFile(others, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := put(t, d, random(5<<20, 1))
	written := 0
	var err error
	for ; err == nil; written++ {
		err = write(t.Context(), d, dataio.NewID(), make([]byte, 1<<20), -1)
	}
	wantErr(t, err, v.Dir, dataio.ErrNoSpace)
	if written < 10 || len(files(t, d)) != written {
		t.Errorf("%d payloads, %d files", written, len(files(t, d)))
	}
	// A payload that still has room fills it up to the reserve.
	for size := int64(1 << 20); size > 0; size /= 2 {
		for write(t.Context(), d, dataio.NewID(), make([]byte, size), size) == nil {
		}
	}
	await(t, states, dataio.ReadOnly)
	expect(t, write(t.Context(), d, dataio.NewID(), nil, 0), dataio.ErrNoSpace, dataio.ErrReadOnly)
	if got, err := get(t, d, kept); !bytes.Equal(got, random(5<<20, 1)) {
		t.Errorf("a full drive gives %d bytes (%v)", len(got), err)
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	t.Logf("well %v after space came back", await(t, states, dataio.Online))
	put(t, d, random(5<<20, 2))
	if d.Errors() != 0 {
		t.Errorf("%d errors: being full is none", d.Errors())
	}
}

// TestExt4ReadOnly has the kernel find the file system damaged, whereupon it
// makes it read-only.
func TestExt4ReadOnly(t *testing.T) {
	if !withMounts(t) {
		return
	}
	v := newVolume(t, "errors=remount-ro")
	d, states := v.watched(dataio.Slow{})
	stop := make(chan struct{})
	// ext4 gives its journal up, writes that to the kernel's log, and only then
	// refuses: an fsync in between returns 0, and nothing has been written. What
	// was acknowledged before is there.
	var acked map[dataio.ID]byte
	loadUntil(t, d, stop, func(so map[dataio.ID]byte) {
		if len(so) == 50 {
			acked = so
			trigger := filepath.Join("/sys/fs/ext4", filepath.Base(v.Device), "trigger_fs_error")
			if err := os.WriteFile(trigger, []byte("a test"), 0); err != nil {
				t.Errorf("have the kernel find an error: %v", err)
			}
			close(stop)
		}
	})
	err := write(t.Context(), d, dataio.NewID(), []byte("x"), 1)
	if !errors.Is(err, dataio.ErrReadOnly) && !errors.Is(err, dataio.ErrSuspect) {
		t.Errorf("a read-only file system refuses with %v", err)
	}
	if s := <-states; s != dataio.ReadOnly && s != dataio.Suspect {
		t.Errorf("the drive is %v", s)
	}
	wantAll(t, d, acked)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	v.Remount()
	again := open(t, v.Dir, options())
	wantAll(t, again, acked)
	put(t, again, []byte("well again"))
}

// TestExt4Unmount takes the mount away in the middle of puts, and brings it
// back.
func TestExt4Unmount(t *testing.T) {
	if !withMounts(t) {
		return
	}
	v := newVolume(t, "")
	d, states := v.watched(dataio.Slow{})
	stop := make(chan struct{})
	var once sync.Once
	go func() {
		await(t, states, dataio.Offline)
		once.Do(func() { close(stop) })
	}()
	acked := load(t, d, stop, func(n int) {
		if n == 50 {
			v.Run("umount", "-l", v.Dir)
		}
	})
	expect(t, write(t.Context(), d, dataio.NewID(), []byte("x"), 1), dataio.ErrOffline)
	if left := tree(t, v.Dir); len(left) != 1 {
		t.Errorf("something was written beneath: %v", left)
	}
	wantAll(t, d, acked) // by what it holds
	v.Run("mount", v.Device, v.Dir)
	t.Logf("well %v after the mount came back", await(t, states, dataio.Online))
	wantAll(t, d, acked)
	put(t, d, []byte("well again"))
	if _, err := os.Stat(filepath.Join(v.Dir, "drive.json")); err != nil {
		t.Errorf("another file system came back: %v", err)
	}
}

// TestExt4Stall freezes the file system, so that writes hang in the kernel.
func TestExt4Stall(t *testing.T) {
	if !withMounts(t) {
		return
	}
	v := newVolume(t, "")
	d, states := v.watched(dataio.Slow{Degraded: 500 * time.Millisecond, Offline: 3 * time.Second})
	kept := put(t, d, random(100_000, 1))
	f, err := d.Open(t.Context(), kept)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// With blocks smaller than a page the end isn't whole in memory yet.
	if err := f.Prefetch(t.Context(), 0, -1); err != nil {
		t.Fatal(err)
	}
	unfreeze, err := v.Freeze()
	if err != nil {
		t.Fatalf("freeze: %v", err)
	}
	thaw := sync.OnceValue(unfreeze)
	t.Cleanup(func() { thaw() })
	hung := make(chan error, 1)
	go func() { hung <- write(t.Context(), d, dataio.NewID(), random(100, 2), 100) }()
	began := time.Now()
	await(t, states, dataio.Degraded)
	await(t, states, dataio.Offline)
	t.Logf("offline after %v", time.Since(began))
	for what, err := range map[string]error{
		"put":  write(t.Context(), d, dataio.NewID(), nil, 0),
		"open": func() error { _, err := d.Open(t.Context(), kept); return err }(),
	} {
		if !errors.Is(err, dataio.ErrOffline) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What is in memory can still be sent by who has it open; but it need not be
	// there any more.
	file := filepath.Join(v.Dir, "payload", kept.String()[:2], kept.String())
	if err := f.Prefetch(t.Context(), 0, -1); err != nil && inMemory(t, file, 100_000)*os.Getpagesize() >= 100_000 {
		t.Error(err)
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-hung; err != nil && !errors.Is(err, dataio.ErrOffline) {
		t.Errorf("the put that hung: %v", err)
	}
	t.Logf("well %v after it was thawed", await(t, states, dataio.Online))
	if got, err := get(t, d, kept); !bytes.Equal(got, random(100_000, 1)) {
		t.Errorf("%d bytes came back (%v)", len(got), err)
	}
	put(t, d, []byte("well again"))
}

// TestExt4Remount has an administrator make the file system read-only under
// puts, and writable again.
func TestExt4Remount(t *testing.T) {
	if !withMounts(t) {
		return
	}
	v := newVolume(t, "")
	d, states := v.watched(dataio.Slow{})
	stop := make(chan struct{})
	acked := load(t, d, stop, func(n int) {
		if n == 50 {
			close(stop)
		}
	})
	v.Run("mount", "-o", "remount,ro", v.Dir)
	expect(t, write(t.Context(), d, dataio.NewID(), []byte("x"), 1), dataio.ErrReadOnly)
	await(t, states, dataio.ReadOnly)
	wantAll(t, d, acked)
	v.Run("mount", "-o", "remount,rw", v.Dir)
	t.Logf("well %v after it is writable", await(t, states, dataio.Online))
	put(t, d, []byte("well again"))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	// What a drive has can be read too where it never was writable.
	v.Run("mount", "-o", "remount,ro", v.Dir)
	again := open(t, v.Dir, options())
	wantAll(t, again, acked)
	expect(t, write(t.Context(), again, dataio.NewID(), []byte("x"), 1), dataio.ErrReadOnly)
}
