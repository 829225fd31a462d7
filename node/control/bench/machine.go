package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// machineFacts are the lines that a figure is worth nothing without.
func machineFacts(dir string) ([]string, error) {
	facts := []string{
		fmt.Sprintf("%s/%s, %d processors: %s; %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuModel(), runtime.Version()),
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		facts = append(facts, "kernel "+strings.TrimSpace(string(kernel)))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			switch d.Path {
			case "go.etcd.io/etcd/server/v3", "go.etcd.io/raft/v3", "github.com/cockroachdb/pebble/v2", "google.golang.org/grpc":
				facts = append(facts, d.Path+" "+d.Version)
			}
		}
	}
	took, err := syncTime(dir)
	if err != nil {
		return nil, err
	}
	disk := fmt.Sprintf("%s, where a sync of 4 KiB more in a file takes %v", fileSystem(dir), took.Round(time.Microsecond))
	if took < 20*time.Microsecond {
		disk += ": **no disk waits here; take -dir on one**"
	}
	return append(facts, disk, "load average at the start "+loadAverage()), nil
}

// syncTime is the median of a hundred appends of 4 KiB with a sync each.
func syncTime(dir string) (time.Duration, error) {
	name := filepath.Join(dir, "sync")
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer os.Remove(name)
	defer f.Close()
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
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "model not known"
}

// busyTime is how long the processors together have not been idle since they
// started, in steps of 10 ms; 0 where the system does not tell.
func busyTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	ticks := time.Duration(0)
	for i, field := range strings.Fields(line) {
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 4 && i != 5 && i < 9 { // idle, I/O wait, guests
			ticks += time.Duration(n)
		}
	}
	return ticks * 10 * time.Millisecond
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
