// Package node puts one Gridloom node together: it is the only place that
// knows every part.
//
// # What runs
//
// Open takes what the node needs for itself and what can be refused at once:
// the data directory's lock, its three listeners, telemetry, the grid, the
// index. Run serves, and ends when its context does or a part fails. Close
// gives everything back, in reverse.
//
//	gRPC listener ── grpc.Server ───────────────┐
//	HTTP listener ── http.Server ─ front ─┬ api.Gateway ┴─ interceptors ─ object.Service ─ control.Index
//	                                      ├ door (bytes) ─────────────────┘        │            │
//	                                      └ metrics, health                      drives       raft groups
//	peer listener ── http.Server ─┬ grid.Manager (/grid/v1)                       dataio       over the grid
//	                              └ object bulk  (/bulk/v1)
//
// # Starting
//
// The listeners answer from the first moment: /livez is well, /readyz and the
// gRPC health service say NOT_SERVING and why. Then, in form.go, the node waits
// for the index's system group, learns the deployment id, opens its drives with
// it, and tells the index which drives it has. From there on it is ready.
// Requests that come before wait for at most ten seconds, and are answered by
// fault.Waiting with the name of what is missing; nothing has to be restarted
// when that comes up.
//
// # Traces, and what is shown live
//
// tracing.go has the context of a request's trace cross the grid and the bulk
// port, and makes the spans of what the parts report through hooks. diagnose.go
// shows calls and logs of all nodes, each by a stream of the grid's, and
// profile.go the process.
//
// # Goroutines
//
// Run owns one errgroup: three servers, forming, the resource collector, the
// payload service's upkeep, and renew.go, which takes over secrets, root keys
// and certificates that have changed. Each ends with Run's context; the first error ends
// all. The grid, the index and the telemetry exporters have their own, which
// their Close joins.
//
// # Limits
//
// What a stranger or a client may cost is bounded by package limit, with the
// numbers of Config.Limits: connections around each listener, who may try how
// often where requests are authenticated, uploads in the doors. limits.go puts
// them in place, and makes the HTTP servers with their times and sizes.
//
// # One request, one principal
//
// A request is authenticated once, where it enters: by the gRPC interceptor or
// by the HTTP front (front.go), which strips the credential and every header
// that only a trusted hop could have set. Behind that it is an iam.Principal
// in the context, for gRPC, the gateway and bytes alike.
package node
