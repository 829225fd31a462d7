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
// and no span.
//
// With an OTLP endpoint each request also has a span, child of the caller's
// where it sent a traceparent. Histograms carry its trace id as exemplar.
//
// # Resources
//
//	source ─ reading ─► Host ─ sample ─► Collector of node 1 ─► *Resources ─► WriteResources: /v2/metrics/resource
//	gopsutil, 1/s       rates       └──► Collector of node 2 ─► *Resources ─► msgpack: other nodes
//	                                                                     └──► Register: /metrics, OTLP
//
// One Host a process reads the host's counters, once a second however many
// nodes share it. Counters become rates against the reading before: the first
// reading gives none, and neither does one whose counters went back, so that
// neither the total since boot nor a reset ever looks like load. A Collector
// a node gathers the samples and once a minute folds them into average and
// maximum since its start; before the first minute is over these are of the
// samples so far. What it publishes is immutable and complete: a scrape
// formats and computes nothing. The table in families.go is the one list of
// names, for the text of all nodes and for this node's instruments alike.
//
// A part of the host that can't be read leaves its values as they were, and
// CollectorOptions.Failed is told; the rest goes on. A drive that hangs leaves
// the drives as they were. A node that doesn't answer is Down(name, why).
//
// # Scrapes
//
// The meter remembers every instrument that is declared on it: Instruments lists
// them, and docs/metrics.md is made of that. MetricsHandler serves all of them,
// GroupHandler those of a part of the node, by the table of prefixes in
// catalogue.go.
//
// # Goroutines
//
// Collector.Run samples in the caller's goroutine and watches the drives in
// one of its own, which it waits for. Host has none: whoever comes first takes
// the reading, under a lock that yields to the context. New starts the SDK's
// reader and batcher when there is an endpoint; Telemetry.Shutdown waits for
// both, for at most 3 s, and then cuts off what they are sending. Locks
// (Host.turn, Collector.mu, Requests.mu) are never held together, and no I/O
// happens under the latter two.
//
// # Costs
//
// A reading is some 0.15 ms on Linux (six files of /proc); on macOS and FreeBSD
// it runs netstat. A node has 61 series of resources, 18 more for each
// interface (64 at most) and 14 for each drive. An API called by one protocol
// has at most 5 classes of two histograms with 14 and 18 buckets, created as
// they are seen; there are at most 130 pairs of API and protocol. A request
// costs some microseconds, most of it in the SDK, no system call and, over a
// connection of HTTP/1 that ConnContext knows, no allocation. An OTLP receiver that is
// down costs a counted drop a minute (gridloom.telemetry.dropped), nothing
// else: queues are bounded and nothing waits for it but Shutdown.
//
// # What it doesn't do
//
// Nothing is registered globally and no global is read but the standard
// OTEL_* variables, by the SDK. Average and maximum of the last hour, a stream
// of samples, and logs by OTLP are not there yet.
package observability
