package main

import (
	"context"
	"fmt"
)

// row is one kind of work, measured for several stacks.
type row struct {
	id     string
	title  string
	stacks []string // the first is what the others are compared with
	main   column
	more   []column
	single bool // one process
	once   bool // a count: one run is enough
	runs   func(ctx context.Context, b *bench, r *row, stack string) (sample, error)
	goals  []goal
}

// column is a metric as it is printed: divided by unit.
type column struct {
	metric, label string
	unit          float64
}

// goal is what is asked of a metric: of the ratio to another stack's where
// base is set, else of the figure itself.
type goal struct {
	text    string
	metric  string
	stack   string
	base    string
	least   float64 // 0: none
	most    float64
	rounded float64 // the figure is rounded to this before it is judged
}

var (
	requestRate  = column{rate, "requests/s", 1}
	messageRate  = column{rate, "messages/s", 1}
	bytesRate    = column{throughput, "GB/s", 1e9}
	cpuColumn    = column{cpuEach, "CPU µs each", 1}
	allocsColumn = column{allocsEach, "allocs each", 1}
	p50Column    = column{p50, "p50 µs", 1}
	p99Column    = column{p99, "p99 µs", 1}
)

func rows() []row {
	all := []row{requestRow(1)}
	for _, callers := range []int{32, 128, 1024} {
		all = append(all, requestRow(callers))
	}
	all = append(all, allocationRow(), streamRow(512), streamRow(64<<10), largeRow(), besideRow(), idleRow(), inFlightRow(), tlsRequestRow(), tlsStreamRow())
	for _, callers := range []int{1, 32, 1024} {
		r := requestRow(callers)
		r.id, r.title, r.single, r.goals = "one-"+r.id, r.title+", one process", true, nil
		r.stacks = []string{"rawmux", "rawmuxgo", "grid", "grpc"}
		all = append(all, r)
	}
	return all
}

func requestRow(callers int) row {
	r := row{
		id: fmt.Sprintf("req-%d", callers), title: fmt.Sprintf("512 B requests, callers: %d", callers),
		stacks: []string{"rawmux", "rawmuxgo", "grid", "grid-append", "grid-inline", "grpc", "drpc", "yamux", "ttrpc", "netrpc", "nats"},
		main:   requestRate,
		more:   []column{p50Column, p99Column, cpuColumn, allocsColumn},
		runs:   runRequests(load{callers, 512}),
		goals: []goal{
			{text: "≥ 0.9 × rawmuxgo", metric: rate, stack: "grid", base: "rawmuxgo", least: 0.9},
			{text: "≥ 9 × grpc", metric: rate, stack: "grid", base: "grpc", least: 9},
		},
	}
	if callers == 1 {
		r.goals = []goal{
			{text: "≥ 0.9 × rawmux", metric: rate, stack: "grid", base: "rawmux", least: 0.9},
			{text: "p50 ≤ 1.15 × rawmux", metric: p50, stack: "grid", base: "rawmux", most: 1.15},
		}
	}
	if callers > maxTimed {
		r.more = r.more[2:]
	}
	return r
}

func runRequests(ld load) func(context.Context, *bench, *row, string) (sample, error) {
	return linked(func(ctx context.Context, b *bench, l *link) (sample, error) { return b.requests(ctx, l, ld) })
}

// linked opens and closes the two ends around a measurement.
func linked(f func(ctx context.Context, b *bench, l *link) (sample, error)) func(context.Context, *bench, *row, string) (sample, error) {
	return func(ctx context.Context, b *bench, r *row, stack string) (sample, error) {
		l, err := b.open(ctx, stack, r.id, r.single)
		if err != nil {
			return nil, err
		}
		s, err := f(ctx, b, l)
		if closed := l.close(); err == nil && b.profiles != "" {
			err = closed
		}
		return s, err
	}
}

func allocationRow() row {
	return row{
		id: "allocs", title: "allocations per round trip, both ends, 512 B, callers: 32",
		stacks: []string{"rawmux", "rawmuxgo", "grid", "grid-append", "grid-inline", "grpc", "drpc", "yamux", "ttrpc", "netrpc", "nats"},
		main:   allocsColumn, more: []column{requestRate},
		once: true, single: true,
		runs: runRequests(load{32, 512}),
		goals: []goal{
			{text: "append API ≤ 1", metric: allocsEach, stack: "grid-append", most: 1, rounded: 0.1},
			{text: "plain API ≤ 4", metric: allocsEach, stack: "grid", most: 4, rounded: 0.1},
		},
	}
}

func streamRow(size int) row {
	r := row{
		id: "stream-512", title: "stream of 512 B messages, one way",
		stacks: []string{"rawmux", "grid", "grid-owned", "grid-recycle", "grid-handover", "grid-channel", "grpc", "drpc", "yamux", "ttrpc", "nats"},
		main:   messageRate, more: []column{cpuColumn, allocsColumn},
		goals: []goal{
			{text: "pull ≥ 0.5 × rawmux", metric: rate, stack: "grid", base: "rawmux", least: 0.5},
			{text: "pull ≥ 3 × grpc", metric: rate, stack: "grid", base: "grpc", least: 3},
			{text: "channel ≥ 0.6 × pull", metric: rate, stack: "grid-channel", base: "grid", least: 0.6},
		},
		runs: runStream(size),
	}
	if size > 512 {
		r.id, r.title, r.main = "stream-64k", "stream of 64 KiB messages, one way", bytesRate
		r.goals = []goal{
			{text: "≥ 0.7 × rawmux", metric: throughput, stack: "grid", base: "rawmux", least: 0.7},
			{text: "≥ 2 × grpc", metric: throughput, stack: "grid", base: "grpc", least: 2},
			{text: "SendOwned ≥ 0.7 × rawmux", metric: throughput, stack: "grid-owned", base: "rawmux", least: 0.7},
			{text: "SendOwned, Recycle ≥ 2 × grpc", metric: throughput, stack: "grid-handover", base: "grpc", least: 2},
		}
	}
	return r
}

func runStream(size int) func(context.Context, *bench, *row, string) (sample, error) {
	return linked(func(ctx context.Context, b *bench, l *link) (sample, error) { return b.stream(ctx, l, size) })
}

func largeRow() row {
	return row{
		id: "req-1m", title: "1 MiB requests, callers: 8 (bytes each way)",
		stacks: []string{"rawmux", "grid", "grid-append", "grpc", "drpc", "yamux", "ttrpc", "netrpc", "nats"},
		main:   bytesRate, more: []column{cpuColumn, allocsColumn},
		runs:  runRequests(load{8, 1 << 20}),
		goals: []goal{{text: "≥ 0.6 × rawmux", metric: throughput, stack: "grid", base: "rawmux", least: 0.6}},
	}
}

func besideRow() row {
	return row{
		id: "beside", title: "512 B requests of 8 callers beside a saturating 64 KiB stream",
		stacks: []string{"rawmux", "grid", "grid-recycle", "grpc", "drpc", "yamux", "ttrpc", "nats"},
		main:   column{p99Ratio, "p99 × idle", 1},
		more: []column{
			{p99Idle, "idle p99 µs", 1}, p99Column, p50Column, {rate, "requests/s", 1},
			{loneBytes, "lone GB/s", 1e9}, bytesRate, {streamRatio, "stream × lone", 1},
		},
		runs: linked(func(ctx context.Context, b *bench, l *link) (sample, error) {
			return b.beside(ctx, l, load{8, 512}, 64<<10)
		}),
		goals: []goal{
			{text: "p99 ≤ 3 × idle p99", metric: p99Ratio, stack: "grid", most: 3},
			{text: "stream ≥ 0.6 × lone", metric: streamRatio, stack: "grid", least: 0.6},
			{text: "Recycle: p99 ≤ 3 × idle p99", metric: p99Ratio, stack: "grid-recycle", most: 3},
			{text: "Recycle: stream ≥ 0.6 × lone", metric: streamRatio, stack: "grid-recycle", least: 0.6},
		},
	}
}

func idleRow() row {
	return row{
		id: "idle", title: "idle connections of one manager", once: true,
		stacks: []string{"grid"},
		main:   column{nearHeap, "heap here KiB", 1 << 10},
		more: []column{
			{farHeap, "heap there KiB", 1 << 10}, {nearStack, "stacks here KiB", 1 << 10}, {farStack, "stacks there KiB", 1 << 10},
			{nearGo, nearGo, 1}, {farGo, farGo, 1}, {seconds, "s to connect all", 1},
		},
		runs: func(ctx context.Context, b *bench, _ *row, _ string) (sample, error) { return b.idleConnections(ctx) },
		goals: []goal{
			{text: "heap here ≤ 32 KiB", metric: nearHeap, stack: "grid", most: 32 << 10},
			{text: "heap there ≤ 32 KiB", metric: farHeap, stack: "grid", most: 32 << 10},
			{text: "goroutines here ≤ 4", metric: nearGo, stack: "grid", most: 4, rounded: 0.1},
			{text: "goroutines there ≤ 4", metric: farGo, stack: "grid", most: 4, rounded: 0.1},
		},
	}
}

func inFlightRow() row {
	return row{
		id: "inflight", title: "requests in flight on one connection, 512 B", once: true,
		stacks: []string{"grid"},
		main:   column{bothHeap, "heap bytes each", 1},
		more: []column{
			{nearHeap, "of these here", 1}, {farHeap, "there", 1},
			{nearStack, "stacks here", 1}, {farStack, "stacks there", 1}, {seconds, "s for all", 1},
		},
		runs:  func(ctx context.Context, b *bench, _ *row, _ string) (sample, error) { return b.requestsInFlight(ctx) },
		goals: []goal{{text: "all complete; heap ≤ 1 KiB each", metric: bothHeap, stack: "grid", most: 1 << 10}},
	}
}

func tlsRequestRow() row {
	return row{
		id: "tls-req", title: "TLS: 512 B requests, callers: 128",
		stacks: []string{"grid", "grid-tls", "rawmux", "rawmux-tls"},
		main:   requestRate, more: []column{cpuColumn, allocsColumn},
		runs:  runRequests(load{128, 512}),
		goals: []goal{{text: "≥ 0.5 × plaintext", metric: rate, stack: "grid-tls", base: "grid", least: 0.5}},
	}
}

func tlsStreamRow() row {
	return row{
		id: "tls-stream", title: "TLS: stream of 64 KiB messages",
		stacks: []string{"grid", "grid-tls", "rawmux", "rawmux-tls"},
		main:   bytesRate, more: []column{cpuColumn, allocsColumn},
		runs:  runStream(64 << 10),
		goals: []goal{{text: "≥ 0.4 × plaintext", metric: throughput, stack: "grid-tls", base: "grid", least: 0.4}},
	}
}
