// Package object is a node's objects: it puts payload on drives anywhere in
// the mesh, makes it visible through the index, and sends it from wherever it
// is to whoever asks this node.
//
// # A put
//
//	body ─ fill ─┬─ hasher goroutine (SHA-256, CRC64NVME)
//	     256 KiB └─ segment (CRC32C) ─┬─ replica goroutine ─ localSink: a file on a drive here
//	       chunks                     ├─ replica goroutine ─ bulkSink: PUT /bulk/v1/… to the drive's node
//	                                  └─ …
//	verify the client's checksums ─ PutRecord ─ visible
//
// A put begins with a linearizable read that gives its birth, and ends with
// one PutRecord. Payload of at most InlineMaxBytes is in the record. Up to
// GridMaxBytes it is one chunk in memory and goes to each of its drives in one
// call, over the grid if that is elsewhere (gather.go). Larger payload is cut
// into segments of at most SegmentMaxBytes, each a file under a random id on
// several drives. A drive says no before it is sent a byte, since the room is
// allocated first where the size is known; then the next is asked. Up to two
// full segments are being synced while the next is written.
//
// # Where copies go
//
// A segment's copies are in one pool (place.go): the one with most room, of
// those where enough drives are well. There are R = min(Replicas, drives of the
// pool that aren't draining) of them, and W = R/2 + 1 must be synced before the
// put is acknowledged. They are spread over zones, then nodes, then drives, in
// the order of rendezvous hashing. A drive that is slow, full or broken by what
// was last heard of it (health.go: every node looks at all drives every two
// seconds) is asked only if there would be less than W without it; if that can't
// be had, the put waits for what is away, at most WaitTimeout.
//
// Once W drives have synced a file, the others get CopyGrace more, or half the
// time that it took until then; four times CopyGrace where it is only opened, as
// a copy that isn't begun can't take the place of one that fails. A drive whose queue of four chunks
// is full holds the put up; one that has done so alone for a second and for half
// of the segment's time is given up, and avoided for a while, as is one that
// fails, as long as W are left. Where too few have answered for half a second
// further drives are asked beside them. The record lists the drives that have
// synced the segment, and those only; PutRecord.Copies says how many there were
// to be, which is how the index comes to know of what is to be healed.
//
// An object has at most control.MaxSegments segments, which is 62.5 GiB; more
// is refused as too large until long lists have rows of their own. A put must
// be done within the hour that the index allows it from its birth.
//
// Every failure before the commit (a body cut off, a wrong sum, too few drives,
// the caller's end) removes every file, here and elsewhere, in at most five
// seconds and five more for the ends of what is being written; what can't be
// removed is reported by Hooks.LeftBehind. The commit itself is repeated under
// one request id until its outcome is known; if it stays unknown the files stay
// too, since a record may name them.
//
// A copy that was given up is removed by who writes it, under the registration
// of what is being received (sink.go), and by nobody afterwards: the payload may
// be copied there again, as it is missing. Where it was synced just then, it
// stays, whole. Such files, and others that neither a record nor the garbage
// tells of, are the collector's.
//
// # A get
//
// Open reads the record and checks the conditions. Send takes the segments that
// the range touches one after the other, each from the best of its copies: one
// here before others, a drive that is well before one that is slow or was in
// trouble lately, and these before one that is away (failover.go):
//
//	here                 *os.File            sendfile by the destination's ReadFrom
//	elsewhere, ≤ 256 KiB one grid request    from memory
//	elsewhere, larger    bare *net.TCPConn   splice by the destination's ReadFrom
//
// Bytes go in windows, and only such as are at hand: of a file those that are in
// memory, which are read ahead while the window before is sent; of a connection
// those that have come. So nobody waits in the middle of handing bytes to the
// kernel, and an error there is the destination's. Any other is the copy's, and
// another copy goes on with the next byte. That is:
//
//	the drive gives an error     at once
//	it stalls                    after 100 ms, or three times what its reads take, 20 to 250 ms
//	the node breaks off          at once
//	the node sends nothing       after 1 s
//	the copy is missing or bad   at once; it is not tried again, and reported
//
// The owner of a drive does its waiting itself, on the bulk port and on the grid,
// and says that it has given up; hedge is how it knows that there is another copy.
// If there is none, or all have failed, each is tried once more, and waited for
// as long as a request may. So each is tried twice at most. Before the end the
// index is asked whether the segment has been moved meanwhile.
//
// The first source is open and its first bytes are at hand before one is
// written, so that an error can still be a status; each further one is opened
// while the last 8 MiB of the one before are on their way. An answer that ends
// early is an error, never a short success; Corrupted says that every copy is.
//
// A copy whose size or checksum, in its footer, isn't the record's is never sent.
// Its bytes are compared with their checksums only with Reader.Verify, each MiB
// where it is read and before one of its bytes leaves, which keeps the kernel
// from moving them; and where a segment came whole through the grid.
//
// # Copies
//
// CopyTo and Check (copies.go) serve healing: the first has a drive's node fetch
// payload, as a verified read would, and answers when it is durable there; the
// second has it compare its files with what their records say.
//
// # Between nodes
//
// Grid handlers 200–299 (peer.go) carry small payload, removals and what is
// known of drives and copies. The bulk port (bulk.go has its description) carries
// the rest over connections of our own, at most BulkConns to each peer, since
// net/http's client reads ahead of a response's head, and bytes in a buffer
// can't be spliced. Each bulk request is proven by an HMAC under the mesh
// secret or by a client certificate (bulkproof.go); the clocks of two nodes may
// be a minute apart for that.
//
// What a request needs and isn't there (a node not connected, a drive not yet
// open) is waited for at most WaitTimeout, and then fault.Waiting names it.
// New payload doesn't wait while a pool has a majority of its copies' drives.
//
// # Goroutines and locks
//
// Run has four: reclaimLoop removes the files of deleted and replaced objects,
// and of copies that were taken away, from this node's drives, ReclaimGrace
// after the index said so; orphanLoop removes those that no commit can name any
// more (orphans.go); healthLoop looks at all drives; reapLoop closes idle bulk
// connections. A put has a hasher, one goroutine for each copy under way, the
// waits for its full segments and the answer reader of each bulkSink; a send has
// one prefetch, and reads one window of a file ahead; a copy has its reader;
// serving CopyTo has up to eight copies. Each is joined by the call that started
// it, before it returns, but those of copies that were given up, which may hang
// in a system call for as long as their drive does: Close joins them. A drive
// where one is, is avoided. What else hangs in a drive's system call is dataio's,
// and bounded there.
//
// Lock order: segment.mu or gatherer.mu, then health.mu, then Service.mu, then
// those of the grid and the drives. No two of Service.mu, bulkClient.mu, strays.mu
// and readings.mu are held together. None is held across I/O.
//
// A put takes six chunks of 256 KiB, from a pool: what waits for its slowest
// drive, what is written there and what is being filled. The ends of the two
// segments that are being synced may be five each besides, and each copy that
// was given up keeps one until its write returns. A send takes none of its own;
// an upload that is served, one. The number of puts and sends is
// bounded by the doors; what peers ask for, by BulkUploads, BulkReads and the
// handlers' limits, beyond which they are told Overloaded.
package object
