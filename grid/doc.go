// Package grid is a peer-to-peer RPC backplane: exactly one WebSocket between
// every two nodes, over which both ends issue calls and both ends handle them.
// There is no client and no server. It depends on nothing but a WebSocket
// codec and a msgpack codec, and imports nothing of the program around it.
//
//	m, err := grid.NewManager(ctx, grid.ManagerOptions{
//		Local:   "http://10.0.0.1:7402",
//		Hosts:   []string{"http://10.0.0.1:7402", "http://10.0.0.2:7402"},
//		Secrets: func() [][]byte { return [][]byte{secret} },
//	})
//	m.Register(grid.Handler{ID: 1000, Name: "echo", Single: echo})
//	http.Handle(grid.RoutePath, m.Handler())
//	…
//	answer, err := m.Connection("http://10.0.0.2:7402").Request(ctx, 1000, []byte("hello"))
//
// # What a caller may rely on
//
// A call is on one session, and dies with it. Input is borrowed until the
// call returns, also when it is cancelled; what is received belongs to the
// receiver for good, unless it gives it to Recycle. Errors keep their kind across the wire and work with
// errors.Is and errors.As; NotExecuted tells what can be retried blindly. A
// stream ends cleanly only by an explicit end. Everything is bounded: queues
// and windows in bytes, calls in number.
//
// # Where things are
//
//	manager.go, connection.go   hosts, their connections, the states of one
//	dial.go, accept.go          how a session comes to be at either end
//	handshake.go, wire.go       who is it, and what was agreed
//	session.go                  one socket and everything that dies with it
//	call.go, slot.go            our calls: slots, waiting, cancelling
//	read.go, dispatch.go        the reader
//	serve.go, context.go        the peer's calls, and what handlers see
//	work.go                     the goroutines that handlers run in
//	queue.go, write.go          the writer role, lanes and their shares
//	room.go                     the bound of what waits to be written
//	batch.go, segment.go        how bytes are laid out for one write
//	recycle.go                  the memory of what is received
//	pipe.go, send.go, open.go   streams: life and receiving, sending, opening
//	stream.go                   the channel form over them
//	keepalive.go, close.go      the end: of silent peers, and of everything
//	frame.go, control.go        the frames; SPEC.md describes them
//
// # Goroutines
//
// A connection has two: one that dials, shakes hands and then reads (at the
// accepting end: shakes hands and reads), and the writer. Handlers run in the
// manager's workers, which are parked between calls and shared by all
// connections. The channel form of a stream adds one for each direction at
// each end; the pull form none. Timers watch for silence. Close joins them
// all.
//
//	caller ──slot──▶ pushed stacks ──▶ lanes ──▶ batch ──▶ socket
//	                      ▲     (holder of the writer role)   │
//	          worker ─────┘                                   ▼
//	            ▲                                          reader ──▶ slot ──▶ caller
//	            └────────────── queue of calls ◀──────────────┘
//
// The writer is a role and not a goroutine. Whoever pushes something to write
// and finds the role free takes it, collects what others have pushed
// meanwhile, and writes it in one system call that does not block. What the
// socket does not take, and all bulk, goes with the role to the writer
// goroutine. The reader never blocks but in its read: it takes no lock that
// is held across a wait, and runs no user code but handlers declared Inline.
//
// # Locks
//
// Few and short; none is held across a wait, a write or user code.
//
//	Manager.connMu       which hosts there are; spawning against closing
//	Connection.mu        state and the current session
//	Pipe.mu              one end of one stream
//	workPool.mu          the queue of calls
//	callContext.mu       one handler's context
//	queueRoom.mu, slotTable.growMu, keepalive.mu
//
// Manager.connMu may be held while Connection.mu is taken, keepalive.mu while
// Connection.mu is. No other two are nested.
//
// # The life of a request
//
// The caller takes a slot: an index into the session's table, with a
// generation that makes the id unique for 2^31 uses. The slot is the queued
// item, the frame to be and the place of the answer in one, so that a call
// allocates nothing. The caller pushes it, kicks the writer, and waits. The
// holder of the writer role encodes it straight into the batch: the payload
// is copied once, from the caller's memory. The reader at the other end makes
// context and payload in one allocation and queues the call; a worker runs
// the handler and pushes the answer, which travels back the same way. The
// reader here swaps the slot's word from waiting to delivering, puts the
// answer in, and signals.
//
// Cancelling swaps the same word, so that exactly one of the two wins. The
// item's own state tells who owns the payload: while it is queued the caller
// takes it back at once, and it is never sent; while it is being copied he
// waits for that copy; and if any of it was sent a CANCEL follows it.
//
// # The life of a stream
//
// The opener takes a slot and sends OPEN; the serving end answers ACCEPT with
// its windows. Each direction has a window in bytes and one in messages, both
// granted by the receiver as its user takes messages, half a window at a time;
// the reader writes what is granted, once, when it is about to wait for the
// peer, or the user does where it waits already. A message may overdraw
// the bytes, so that one larger than the window passes. END ends a direction;
// END or ERROR from the serving end finishes the stream; CANCEL from the
// opener aborts it. Beside the streams' windows a session-wide window bounds
// the bulk on its way, granted as the reader reads: a request is never behind
// more than that.
//
// # The life of a session
//
// A hash of the two names decides who dials. The upgrade request names both
// ends, so that strangers are refused before they get a socket; the handshake
// proves the names, by certificate or by HMAC over both ends' nonces. A newer
// session replaces an older one of the same peer; attempts are numbered, so
// that a late one can't. It ends by its socket, by silence, by a breach of
// the protocol, by a difference in realm, by RemoveHost or Close; then every
// slot, context and stream on it ends with the cause, and the dialling end
// tries again with full jitter.
package grid
