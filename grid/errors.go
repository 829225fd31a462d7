package grid

import (
	"errors"
	"fmt"
	"time"
)

// The kinds of failure a call can have. They work with errors.Is through
// every wrapping of this package and, where the other end reports them, after
// crossing the wire.
var (
	// ErrDisconnected: there is no session with the host, or the session the
	// call was on has died. NotExecuted tells whether the call can be retried
	// without a second thought.
	ErrDisconnected = errors.New("grid: disconnected")
	// ErrUnknownHost: the manager has no such host.
	ErrUnknownHost = errors.New("grid: unknown host")
	// ErrUnknownHandler: nothing is registered under the handler id at the
	// end that was asked, or something of the other kind.
	ErrUnknownHandler = errors.New("grid: unknown handler")
	// ErrTooLarge: a message is over the limit of either end.
	ErrTooLarge = errors.New("grid: message too large")
	// ErrOverloaded: a limit on concurrency or on queued bytes was met.
	// RetryAfter gives the hint that came with it.
	ErrOverloaded = errors.New("grid: overloaded")
	// ErrClosed: the manager is closing or closed. It is an ErrDisconnected.
	ErrClosed = fmt.Errorf("grid: manager closed (%w)", ErrDisconnected)
	// ErrGoingAway: the peer is draining and takes no new calls. It is an
	// ErrDisconnected.
	ErrGoingAway = fmt.Errorf("grid: peer is going away (%w)", ErrDisconnected)
	// ErrStreamDone: a send on a stream whose other end has finished.
	ErrStreamDone = errors.New("grid: stream is done")
	// ErrNoInput: a send on a stream whose handler takes none.
	ErrNoInput = errors.New("grid: handler takes no input")
)

// RemoteError is what a handler at the other end answered: its own error, or
// a panic. A handler chooses the code by returning a *RemoteError, which is
// found with errors.As; any other error arrives with CodeUnspecified.
type RemoteError struct {
	Code    uint32 // of the application; CodeUnspecified and CodePanic are taken
	Message string
}

// The codes that the grid itself gives.
const (
	CodeUnspecified uint32 = 0         // the handler returned a plain error
	CodePanic       uint32 = 1<<32 - 1 // the handler panicked
	CodeCanceled    uint32 = 1<<32 - 2 // the handler returned context.Canceled
	CodeDeadline    uint32 = 1<<32 - 3 // the handler returned context.DeadlineExceeded
	CodeMalformed   uint32 = 1<<32 - 4 // the message could not be decoded
)

// Error implements error.
func (e *RemoteError) Error() string {
	if e.Code == CodeUnspecified {
		return e.Message
	}
	return fmt.Sprintf("%s (code %d)", e.Message, e.Code)
}

// Error is the wrapping that every failed call returns: what was tried, on
// whom, and why it failed.
type Error struct {
	Op      string    // "request", "open", "send", "recv"
	Host    string    // the peer's name
	Handler HandlerID // 0 where none was involved
	Remote  bool      // the failure was reported by the other end
	Err     error

	notExecuted bool
	retryAfter  time.Duration
}

// Error implements error.
func (e *Error) Error() string {
	where := ""
	if e.Remote {
		where = "remote: "
	}
	return fmt.Sprintf("grid: %s %d at %s: %s%v", e.Op, e.Handler, e.Host, where, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NotExecuted reports that the call behind err provably never reached its
// handler, so that trying again, there or elsewhere, cannot execute it twice.
// False means: unknown.
func NotExecuted(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.notExecuted
}

// IsRemote reports that the failure was found or made at the other end.
func IsRemote(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Remote
}

// RetryAfter gives the hint that travels with ErrOverloaded, and whether
// there is one.
func RetryAfter(err error) (time.Duration, bool) {
	var e *Error
	if errors.As(err, &e) && e.retryAfter > 0 {
		return e.retryAfter, true
	}
	return 0, false
}
