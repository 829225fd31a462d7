//go:build linux

package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/internal/bench"
)

// machineFacts are the lines that a figure is worth nothing without.
func machineFacts(dir string) ([]string, error) {
	disk, err := bench.Disk(dir)
	if err != nil {
		return nil, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	tcp, err := tcpFacts()
	if err != nil {
		return nil, err
	}
	return []string{
		bench.Platform(),
		fmt.Sprintf("%.0f GiB of memory; %s; %s", float64(info.Totalram)*float64(info.Unit)/gib,
			strings.Join(bench.Modules("google.golang.org/grpc"), ""), nginxVersion()),
		disk,
		tcp,
		"load average at the start " + bench.LoadAverage(),
	}, nil
}
