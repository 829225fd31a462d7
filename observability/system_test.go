package observability

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
)

// TestThisHost reads the machine that the test runs on, twice.
func TestThisHost(t *testing.T) {
	h := NewHost()
	device, err := h.watch(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.take(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	// Counters of CPU time move in ticks of some 10 ms: read until they did.
	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var s *sample
	for s == nil || s.cpu == nil {
		if s, err = h.take(deadline, 0); err != nil {
			t.Fatal(err)
		}
	}
	if s.problem != nil {
		t.Errorf("problem: %v", s.problem)
	}
	if s.cores < 1 {
		t.Errorf("%d cores", s.cores)
	}
	for _, ratio := range []float64{s.cpu.busy, s.cpu.user, s.cpu.system, s.cpu.idle, s.cpu.iowait, s.cpu.steal} {
		if ratio < 0 || ratio > 1 {
			t.Errorf("cpu %+v", s.cpu)
		}
	}
	if m := s.memory; m == nil || m.total < 1<<20 || m.used <= 0 || m.used > m.total || m.resident <= 0 || m.heap <= 0 {
		t.Errorf("memory %+v", m)
	}
	if runtime.GOOS != "windows" && s.load == nil {
		t.Error("no load")
	}
	t.Logf("device of %s: %q, %+v", t.TempDir(), device, s.disks)
	if _, ok := s.disks[device]; device != "" && runtime.GOOS == "linux" && !ok {
		t.Errorf("device %s is not counted: %v", device, s.disks)
	}
}

func TestDeviceOfMissingPath(t *testing.T) {
	if device := newSystem().device(t.Context(), filepath.Join(t.TempDir(), "missing")); device != "" {
		t.Errorf("device %q", device)
	}
}

func TestDeviceOfMount(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("paths and names are Linux's")
	}
	mounts := []disk.PartitionStat{
		{Mountpoint: "/", Device: "/dev/no-such-sda2"},
		{Mountpoint: "/srv", Device: "tank/srv"},
		{Mountpoint: "/srv/drive1", Device: "/dev/no-such-sdb1"},
	}
	for path, want := range map[string]string{
		"/":                   "no-such-sda2",
		"/home/x":             "no-such-sda2",
		"/srv/other":          "",
		"/srv/drive1":         "no-such-sdb1",
		"/srv/drive1/payload": "no-such-sdb1",
		"/srv/drive10":        "",
	} {
		if got := deviceOfMount(mounts, path); got != want {
			t.Errorf("%s is on %q, want %q", path, got, want)
		}
	}
	if got := deviceOfMount(nil, "/x"); got != "" {
		t.Errorf("without mounts: %q", got)
	}
}

func TestWholeDisk(t *testing.T) {
	for device, want := range map[string]string{
		"ada0": "ada0", "ada0p2": "ada0", "da1s1a": "da1s1a", "nvd0p1": "nvd0", "vtbd0s1": "vtbd0",
		"disk0": "disk0", "disk0s1": "disk0", "disk3s1s1": "disk3", "": "", "s1": "s1", "zroot": "zroot",
	} {
		if got := wholeDisk(device); got != want {
			t.Errorf("%s is on %q, want %q", device, got, want)
		}
	}
}

func BenchmarkReading(b *testing.B) {
	s := newSystem()
	for b.Loop() {
		s.read(b.Context(), nil)
	}
}
