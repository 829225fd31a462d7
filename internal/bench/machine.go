package bench

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

// unknown is what can't be found out about a machine.
const unknown = "not known"

// Platform is the operating system, the processors and Go's version.
func Platform() string {
	return fmt.Sprintf("%s/%s, %d processors: %s; kernel %s; %s",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), kernel(), runtime.Version())
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return unknown
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(release))
}

// Modules are those of the paths that the program was built with, each with its
// version.
func Modules(paths ...string) (all []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, d := range info.Deps {
		if slices.Contains(paths, d.Path) {
			all = append(all, d.Path+" "+d.Version)
		}
	}
	return all
}

// Disk is the file system that dir is on, and what a sync takes there: the
// median of a hundred appends of 4 KiB with a sync each.
func Disk(dir string) (string, error) {
	name := filepath.Join(dir, "sync")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(name) }()
	defer func() { _ = f.Close() }()
	block, times := make([]byte, 4<<10), make([]time.Duration, 100)
	for i := range times {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return "", err
		}
		if err := f.Sync(); err != nil {
			return "", err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	took := times[len(times)/2]
	disk := fmt.Sprintf("%s, where a sync of 4 KiB more in a file takes %v", fileSystem(dir), took.Round(time.Microsecond))
	if took < 20*time.Microsecond {
		disk += ": **no disk waits here; take -dir on one**"
	}
	return disk, nil
}

func fileSystem(dir string) string {
	best, name := "", "file system "+unknown
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

// LoadAverage is the run queue's length over the last minute.
func LoadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return unknown
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// BusyTime is how long the processors together have not been idle since they
// started, in steps of 10 ms; 0 where the system doesn't tell.
func BusyTime() time.Duration {
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
