package grid

import (
	"context"
	"log/slog"
	"time"
)

// Hooks is how the grid reports. Every function may be nil. They run on the
// paths they observe: they must be quick and must not block.
type Hooks struct {
	// Logger gets what an operator should know: refusals, losses, stuck
	// handlers. Why a peer can't be reached, or isn't let in, is said once, until
	// the reason changes or the connection is made. nil is silent.
	Logger *slog.Logger

	// SessionUp and SessionDown frame the life of a session.
	SessionUp   func(SessionInfo)
	SessionDown func(SessionInfo, error)
	// DialFailed reports an attempt that came to nothing.
	DialFailed func(host string, attempt uint64, err error)
	// Refused reports a peer that was turned away at the accepting end.
	Refused func(remoteAddr, claimedName string, err error)

	// CallStart runs in the caller before a call is queued. The context it
	// returns is used for the call: add metadata there to propagate a trace.
	CallStart func(ctx context.Context, call CallInfo) context.Context
	CallEnd   func(ctx context.Context, call CallInfo, result CallResult)
	// ServeStart runs before a handler; what it returns is the handler's context.
	ServeStart func(ctx context.Context, call CallInfo) context.Context
	ServeEnd   func(ctx context.Context, call CallInfo, result CallResult)
	// HandlerPanic reports a recovered panic with its stack.
	HandlerPanic func(call CallInfo, value any, stack []byte)
}

// SessionInfo describes a session.
type SessionInfo struct {
	Host       string
	RemoteAddr string
	Dialled    bool   // this end dialled
	Attempt    uint64 // number of the dial attempt
	Secure     bool   // over TLS
}

// CallInfo describes a call for hooks.
type CallInfo struct {
	Host    string
	Handler HandlerID
	Name    string // of the handler, where it is registered or declared here
	Class   Class
	Stream  bool
	Size    int // bytes of the request or of the opening payload
}

// CallResult is how a call ended.
type CallResult struct {
	Duration time.Duration
	Size     int // bytes of the answer; 0 for streams
	Err      error
}

// ConnectionStats is a snapshot of one connection. Counters run since the
// manager was made, over all sessions.
type ConnectionStats struct {
	Host         string
	State        State
	Dialler      bool // this end dials
	ConnectedAt  time.Time
	Sessions     uint64 // sessions that came up; reconnects are one less
	DialAttempts uint64
	LastError    error // why the last session or attempt ended
	RTT          time.Duration
	ClockOffset  time.Duration // the peer's clock minus ours at the handshake; only reported
	BytesIn      uint64
	BytesOut     uint64
	MessagesIn   uint64 // requests, replies and stream messages
	MessagesOut  uint64
	BatchesIn    uint64 // WebSocket messages
	BatchesOut   uint64
	QueuedBytes  int64 // waiting to be written
	CallsOut     int   // our calls and streams in flight
	CallsIn      int   // the peer's calls and streams being served

	// How often a bound was met: a message found its stream's credit used up,
	// the writer that of the whole session, a call no room in the queue.
	StreamWaits, WindowWaits, QueueWaits uint64
	QueuedCallers                        int // calls that wait for room in the queue
}
