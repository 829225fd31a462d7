//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// printMachine says what a figure is worth nothing without.
func printMachine(out io.Writer, dir string) error {
	times := make([]time.Duration, 50)
	content := make([]byte, 4<<10)
	for i := range times {
		start := time.Now()
		if err := writeFile(dir, fmt.Sprintf("sync-%d", i), content); err != nil {
			return err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	_, err := fmt.Fprintf(out, "- %s/%s, %d processors, %s, kernel %s\n- one new file of 4 KiB, synced with its directory: %v\n- load average at the start %s\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), strings.TrimSpace(string(kernel)),
		times[len(times)/2].Round(10*time.Microsecond), loadAverage())
	return err
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
