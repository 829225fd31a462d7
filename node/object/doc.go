// Package object is a node's objects: it puts payload on drives anywhere in
// the mesh, makes it visible through the index, and sends it from wherever it
// is to whoever asks this node.
//
// # A put
//
//	body ─ fill ─┬─ hasher goroutine (SHA-256, CRC32C, CRC64NVME)
//	     256 KiB └─ segment ─┬─ localSink: a file on a drive here
//	                         └─ bulkSink:  PUT /bulk/v1/… to the drive's node
//	verify the client's checksums ─ PutRecord ─ visible
//
// A put begins with a linearizable read that gives its birth, and ends with
// one PutRecord. Payload of at most InlineMaxBytes is in the record. Up to
// GridMaxBytes it is one chunk in memory and goes to its drive in one call,
// over the grid if that is elsewhere. Larger payload is cut into segments of
// at most SegmentMaxBytes, each a file under a random id on the first drive
// that takes it, in the order of rendezvous hashing over all drives that can
// be reached at that moment. A drive says no before it is sent a byte, since
// the room is allocated first where the size is known; then the next is asked.
// Up to two full segments are being synced while the next is written.
//
// An object has at most control.MaxSegments segments, which is 62.5 GiB; more
// is refused as too large until long lists have rows of their own. A put must
// be done within the hour that the index allows it from its birth.
//
// Every failure before the commit (a body cut off, a wrong sum, a full drive,
// a lost node, the caller's end) removes every file, here and elsewhere, in
// at most five seconds; what can't be removed is reported by Hooks.LeftBehind.
// The commit itself is repeated under one request id until its outcome is
// known; if it stays unknown the files stay too, since a record may name them.
// Collecting such orphans (files that are neither in a record nor garbage two
// hours after their birth) is not part of this package yet.
//
// # A get
//
// Open reads the record and checks the conditions. Send opens a source for
// each segment that the range touches, on this node's drive if there is one:
//
//	here                 *os.File            sendfile by the destination's ReadFrom
//	elsewhere, ≤ 256 KiB one grid request    from memory
//	elsewhere, larger    bare *net.TCPConn   splice by the destination's ReadFrom
//
// The first source is open before the first byte is written, so that an error
// can still be a status; each further one is opened while the last 8 MiB of
// the one before are on their way. A payload whose size is not the record's,
// or an answer that ends early, is an error, never a short success. Payload is
// not compared with its checksums while it is sent, except where it came whole
// through the grid.
//
// # Between nodes
//
// Grid handlers 200–299 (peer.go) carry small payload, removals and the
// question for free space. The bulk port (bulk.go has its description) carries
// the rest over connections of our own, at most BulkConns to each peer, since
// net/http's client reads ahead of a response's head, and bytes in a buffer
// can't be spliced. Each bulk request is proven by an HMAC under the mesh
// secret or by a client certificate (bulkproof.go); the clocks of two nodes may
// be a minute apart for that.
//
// What a request needs and isn't there (a node not connected, a drive not yet
// open) is waited for at most WaitTimeout, and then fault.Waiting names it.
// New payload doesn't wait while any drive can be reached.
//
// # Goroutines and locks
//
// Run has two: reclaimLoop removes the files of deleted and replaced objects
// from this node's drives, ReclaimGrace after the index said so; reapLoop
// closes idle bulk connections. A put has a hasher, the commits of its
// segments and the answer reader of each bulkSink; a send has one prefetch; a
// copy has its reader. Each is joined by the call that started it, before it
// returns. Service.mu and bulkClient.mu are never held together, nor across
// I/O.
//
// A put takes up to three chunks of 256 KiB, from a pool; a send takes none of
// its own; an upload that is served, one. The number of puts and sends is
// bounded by the doors; what peers ask for, by BulkUploads, BulkReads and the
// handlers' limits, beyond which they are told Overloaded.
package object
