//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machineFacts are the lines that a figure is worth nothing without.
func machineFacts(dir string) ([]string, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	took, err := syncTime(dir)
	if err != nil {
		return nil, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	facts := []string{
		fmt.Sprintf("%s/%s, %d processors: %s, %.0f GiB of memory; kernel %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuModel(),
			float64(info.Totalram)*float64(info.Unit)/gib, strings.TrimSpace(string(kernel))),
		fmt.Sprintf("%s; grpc %s; %s", runtime.Version(), grpcVersion(), nginxVersion()),
	}
	disk := fmt.Sprintf("%s, where a sync of 4 KiB more in a file takes %v", fileSystem(dir), took.Round(time.Microsecond))
	if took < 20*time.Microsecond {
		disk += ": **no disk waits here; take -dir on one**"
	}
	return append(facts, disk, "load average at the start "+loadAverage()), nil
}

func grpcVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "google.golang.org/grpc" {
				return d.Version
			}
		}
	}
	return "of a version not known"
}

// syncTime is the median of a hundred appends of 4 KiB with a sync each.
func syncTime(dir string) (time.Duration, error) {
	name := filepath.Join(dir, "sync")
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(name) }()
	defer func() { _ = f.Close() }()
	block, times := make([]byte, 4<<10), make([]time.Duration, 100)
	for i := range times {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// fileSystem names the one that dir is on.
func fileSystem(dir string) string {
	best, name := "", "file system not known"
	dir, err := filepath.Abs(dir)
	if err != nil {
		return name
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return name
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		rel, err := filepath.Rel(fields[1], dir)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") && len(fields[1]) >= len(best) {
			best, name = fields[1], fields[2]+" on "+fields[0]
		}
	}
	return name
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "model not known"
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "model not known"
}

// loadAverage is the run queue's length over the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
