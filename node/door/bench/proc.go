//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is another process, as /proc has it.
type process int

// cpu is the processor time that it has used, its threads' that ended too; in
// steps of 10 ms.
func (p process) cpu() (time.Duration, error) {
	fields, err := p.stat()
	if err != nil {
		return 0, err
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %q", p, fields)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// stat has the fields after the name, which may hold blanks itself.
func (p process) stat() ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", p, b)
	}
	return fields, nil
}

// peak is the most memory that it has had (VmHWM), in bytes, since it began or
// resetPeak was called.
func (p process) peak() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", p)
}

// resetPeak begins anew with what it has now: proc(5), clear_refs.
func (p process) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0)
}

// children are the processes that it has started.
func (p process) children() (all []process, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields, err := process(pid).stat(); err == nil && fields[1] == strconv.Itoa(int(p)) {
			all = append(all, process(pid))
		}
	}
	return all, nil
}

// cpuOf is what processes have used together.
func cpuOf(all []process) (sum time.Duration, err error) {
	for _, p := range all {
		used, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// peakOf adds up the most that each has had.
func peakOf(all []process) (sum int64, err error) {
	for _, p := range all {
		peak, err := p.peak()
		if err != nil {
			return 0, err
		}
		sum += peak
	}
	return sum, nil
}
