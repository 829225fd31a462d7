// Package observability measures a node: how long its requests wait for their
// first byte, what its host and drives are doing, and how that leaves the
// process. It imports nothing else of Gridloom.
//
// # Requests
//
//	client ─► Requests.HTTP ─► doors, gateway ─┐
//	client ─► gRPC server with StatsHandler ───┼─► instruments ─► /metrics
//	                   SetAPI(ctx, "GetObject")┘               └─► OTLP
//
// Each request is counted once, at the door it came by. The time to first byte
// (gridloom.request.ttfb) runs from the request's head to the first byte of
// the response's body as it is handed to the server, or, where there is no
// body, to the status and headers (gRPC without a message: the trailers).
// Requests.HTTP and Requests.StatsHandler say which event that is. A client
// sees the byte later by what the server's buffer and the network add: a
// small Write leaves with the next flush, at the latest when its handler
// returns.
//
// The labels are api, proto and class, all from fixed sets: what has no name
// of its own is "other". Buckets, keys and peers' addresses are in no label
// and no span, but that the buckets which Options.Buckets names have
// instruments of their own. Errors are counted by kind as well: by the answer's
// field, by what the handler says, or else by the status.
//
// Where traces are pushed each request also has a span, child of the caller's
// where it sent a traceparent. Histograms carry its trace id as exemplar. Spans
// makes those of its parts, for package node to wire up: what isn't sampled
// costs a look into the context.
//
// Calls shows requests as they end, Lines the last of the log and what comes,
// to those who watch. Each has a bounded queue and loses what is over it.
//
// Beside the instruments each API has counts of its own (callCounts), of which
// the samples below make requests a second and quantiles.
//
// # Resources
//
//	source ─ reading ─► Host ─ sample ─► Collector of node 1 ─► *Resources ─► WriteResources: /v2/metrics/resource
//	gopsutil, 1/s       rates       └──► Collector of node 2 ─► *Resources ─► msgpack: other nodes
//	                    node's own ───►  │  drives, mesh, APIs            └──► Register: /metrics, OTLP
//	                                     └─► Feed ─► Watchers: the samples as they are taken
//
// One Host a process reads the host's counters, once a second however many
// nodes share it. Counters become rates against the reading before: the first
// reading gives none, and neither does one whose counters went back, so that
// neither the total since boot nor a reset ever looks like load. A Collector
// a node gathers the samples, with what the node itself knows: its drives, what
// it exchanges with the others by the grid and by the bulk port, its peers, its
// APIs. Once a minute it folds them into average and maximum since its start,
// and of the last hour, which is a ring of sixty minutes; before the first
// minute is over these are of the samples so far. What it publishes is
// immutable and complete: a scrape formats and computes nothing. The table in
// families.go is the one list of names, for the text of all nodes and for this
// node's instruments alike; APIs and peers have instruments of their own there,
// and are in Resources alone.
//
// A part of the host that can't be read leaves its values as they were, and
// CollectorOptions.Failed is told; the rest goes on. A drive that hangs
// leaves its usage and device as they were; its state and its errors, which the
// node knows without asking it, go on like the other drives. A node that doesn't answer is Down(name, why). What
// goes away (an interface, a core) is gone from the next sample on; what was
// known of it is kept for when it comes back.
//
// A Watcher is somebody who wants each sample. It holds the newest of each node
// and no more: who is slow misses some, is told how many, and holds up nobody.
//
// # Pushing
//
//	node's logger ─► Logs ─┬─► standard error, with trace_id and span_id
//	                       └─► admit ─► batcher ─┐
//	spans ───────────────────► admit ─► batcher ─┼─► exporter ─► OTLP receiver, by gRPC or HTTP
//	instruments ─► reader, once a minute ────────┘      │
//	                                                    └─ failed, overflowed ─► gridloom.telemetry.dropped
//
// Each signal has a receiver and a protocol of its own (OTLP). Who logs or ends
// a span waits for nobody: admit lets in as many as the SDK's batcher has room
// for, and counts what it turns away. An export that fails is counted with all
// that was in it, and told once a minute. Logs exists before Telemetry does, as
// a logger can't be changed once it is handed around: New has it push, and
// Shutdown has it stop.
//
// # Scrapes
//
// The meter remembers every instrument that is declared on it: Instruments lists
// them, and docs/metrics.md is made of that. MetricsHandler serves all of them,
// GroupHandler those of a part of the node, by the table of prefixes in
// catalogue.go.
//
// Eight are made at once, in memory; up to 32 are on their way to their readers,
// whose pace holds up nobody else.
//
// # Goroutines
//
// Collector.Run samples in the caller's goroutine and watches the drives in
// one of its own, which it waits for. Each drive is asked in another, one a
// drive and none while one is out: Run waits for those for a second and leaves
// behind what hangs in the kernel, which ends with the drive's answer. Host has none: whoever comes first takes
// the reading, under a lock that yields to the context. New starts the SDK's
// reader and batchers of the signals that are pushed; Telemetry.Shutdown waits
// for them, for at most 3 s, and then cuts off what they are sending. What the
// instruments' callbacks look at may be closed after StopMetrics. Locks
// (Host.turn, Collector.mu, Requests.mu) are never held together, and no I/O
// happens under the latter two; Feed.mu may be held while a Watcher.mu is taken.
//
// # Costs
//
// A reading is some 0.15 ms on Linux (six files of /proc); on macOS and FreeBSD
// it runs netstat. What is made of it costs a node with 16 cores, 8 interfaces,
// 40 APIs under way and 10 peers some 0.07 ms a second and 29 KiB of garbage
// (BenchmarkSample). A value with average and maximum takes 1.5 KiB: 36 KiB a
// node, 9 more for each interface (64 are reported, 128 kept), 1.5 for each core
// (256 and 512); an API takes 4 KiB: 3 MiB where everything is at its bound. A
// Watcher holds pointers alone. A node has 121 series of resources, 30 more for
// each interface, 5 for each core and 16 for each drive; at /v2 alone also 5 for
// each API under way and 10 for each peer. An API called by one
// protocol has at most 5 classes of two histograms with 14 and 18 buckets, in 3 KiB,
// exported as they are seen; there are at most 130 pairs of API and protocol. A
// request costs 0.3 µs, most of it three readings of the clock (BenchmarkMeasured;
// docs/decisions/0011-bound-histograms.md), no system call and, over a connection
// of HTTP/1 that ConnContext knows, no allocation. An OTLP receiver that is down
// costs counted drops (gridloom.telemetry.dropped) and the memory of
// what waits, 2,048 spans and 2,048 log records unless Push.Queue says otherwise:
// nothing waits for it but Shutdown.
//
// # What it doesn't do
//
// Nothing is registered globally and no global is read but the standard
// OTEL_* variables, by the SDK: those that say what is pushed where (endpoints,
// protocols, certificates, exporters) and how much and when (timeouts, delays,
// queues, batches) are the caller's to read into Options.
package observability
