package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// machineFacts are the lines that a figure is worth nothing without.
func machineFacts() []string {
	facts := []string{
		fmt.Sprintf("%s, %d processors, GOMAXPROCS %d: %s", runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), runtime.GOMAXPROCS(0), cpuModel()),
		runtime.Version(),
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		facts = append(facts, "kernel "+strings.TrimSpace(string(kernel)))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, want := range []string{"google.golang.org/grpc", "storj.io/drpc", "github.com/hashicorp/yamux", "github.com/containerd/ttrpc", "github.com/nats-io/nats.go", "github.com/nats-io/nats-server/v2"} {
			for _, d := range info.Deps {
				if d.Path == want {
					facts = append(facts, d.Path+" "+d.Version)
				}
			}
		}
	}
	return facts
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

// loadAverage is the run queue's length over the last minute; "" where the
// system does not tell. With more than a few processes of one's own running
// others were at work, and only ratios mean anything.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(b), " ")
	if _, err := strconv.ParseFloat(first, 64); err != nil {
		return ""
	}
	return first
}

// holdHeap holds memory that nobody looks at until release is called: the
// garbage collector counts it among what lives, and it costs neither pages nor
// time.
func holdHeap(mib int) (release func()) {
	held := make([]byte, mib<<20)
	return func() { runtime.KeepAlive(held) }
}
