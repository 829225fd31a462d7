// Package api is the outside of a node: its gRPC services, and the same as JSON
// below /v1. The bytes of objects over HTTP are package door's.
//
//	gRPC ── guard.unary, guard.stream ─────────────┬─ bucketService ─┐
//	        authenticate, wait, authorise, status  ├─ objectService ─┴─ object.Service
//	HTTP ── gateway ── grpc-gateway ── inProcess ──┼─ clusterService ── Cluster
//	        route, refuse    JSON      guard.local ├─ metricsService ── Resources
//	                                               └─ iamService ───── Identities
//
// # The life of a call
//
// A gRPC call is authenticated by its metadata, waits for the node to be ready,
// and is authorised on its first message, as it was parsed; permit.go has a row
// for every method, and a method without one is refused. A call over HTTP was
// authenticated by the HTTP listener, which has put the principal into its
// context: it goes through grpc-gateway and an in-process connection to the
// same services and the same table, without metadata in either direction, and
// is counted once, as the HTTP request it is.
//
// Two things a message alone doesn't decide. Whose an access key is, only its
// row says: iamService reads that first, and refuses in the same words whether
// there is such a key or not. And a list of buckets, which everybody may ask for
// who has a role over one, looks at those alone that its caller's grants name.
//
// # Errors
//
// Services return errors of node/fault. status.go turns them into gRPC
// statuses with ErrorInfo and RetryInfo, the gateway into problem+json; both by
// the kind's row in fault's table. What has no kind is logged here and told as
// "internal error". A panic is such an error.
//
// # JSON
//
// The gateway is stricter than grpc-gateway: it refuses unknown fields in the
// body, unknown query parameters, query parameters beside a body, a body where
// none is taken, anything behind the message, more than 1 MiB, and paths with
// escapes. Every success is 200, also where something was made: a call is a
// call. A stream that answers one message (WatchMetrics) is a line of JSON for
// each of its messages; its handler is never ahead of what the client takes.
// Bytes have no JSON form.
//
// # Costs and bounds
//
// A call that waits for the client is made by a goroutine of its own, so that the
// handler doesn't have to: one that moves no byte for Options.Stall is told so
// and left, and the handler's end ends that goroutine; pace.go has the details,
// and what needs none. The gRPC server's goroutines, 64 of which wait for calls,
// end with its Stop or
// GracefulStop, which are the caller's, after EndWatches. A message is at most
// 4 MiB. An upload holds one received message, which may be all of it, a download
// one chunk (chunkBytes) or the content of its header (contentBytes), beside what
// grpc's flow control has on its way. Options says what a connection may cost.
package api
