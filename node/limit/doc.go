// Package limit bounds what a node gives to its clients and to strangers:
// connections, failed authentications, requests, uploads, and what an HTTP/2
// connection may do without asking for anything.
//
// # What gives way
//
//   - Conns: connections of a listener, in all and from one address. When there
//     are too many, the one that has been without a request for longest is
//     closed for the new one; if all have one, the new one is closed. A client
//     that opens connections and says nothing, or says it slowly, so keeps
//     nobody out, and neither do idle ones. Loopback has no limit of its own,
//     since a proxy on this machine may speak for everyone, and some room beyond
//     the whole, so that its operator and its health checks get in.
//   - Failures: failed authentications from an address. Whoever has failed too
//     often is told to wait. A right credential always gets in: an address may be
//     that of many, and none of them can shut the others out.
//   - Identities: requests a second of one identity, by a token bucket. A key,
//     what its tokens do, what its links do and a certificate count apart.
//   - Uploads: those that are under way, of the node and of one identity, and the
//     bytes that they have brought and that nobody can see yet.
//   - Flood: frames of an HTTP/2 connection that carry nothing, and answers that
//     its client does not take.
//
// All of it is in memory and of this node alone. An address is an IPv4 address
// or an IPv6 network of 64 bits, which is what one subscriber has. Every table
// has a bound; where it is full, the entry that was used least recently goes.
//
// # How it is said
//
// What is refused is a fault.Overloaded, which says when to try again: 429 with
// Retry-After over HTTP, RESOURCE_EXHAUSTED with RetryInfo over gRPC. A closed
// connection is just closed. Each is counted by the Refused hook.
//
// A nil *Failures, *Identities or *Uploads limits nothing. All methods may be
// called from many goroutines at once; no lock is held during I/O, and there
// are no goroutines but timers that Flood stops when its connection is closed.
package limit
