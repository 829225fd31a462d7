package main

import "github.com/gridloom/gridloom/internal/bench"

// machineFacts are the lines that a figure is worth nothing without.
func machineFacts(dir string) ([]string, error) {
	disk, err := bench.Disk(dir)
	if err != nil {
		return nil, err
	}
	facts := append([]string{bench.Platform()}, bench.Modules(
		"go.etcd.io/etcd/server/v3", "go.etcd.io/raft/v3", "github.com/cockroachdb/pebble/v2", "google.golang.org/grpc")...)
	return append(facts, disk, "load average at the start "+bench.LoadAverage()), nil
}
