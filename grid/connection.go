package grid

import "context"

// Connection is this node's side of the one link with a host. It outlives
// sessions: the link may go and come. All methods may be called from many
// goroutines at once.
type Connection struct{}

// State says how a connection stands.
type State uint8

// The states of a connection.
const (
	StateUnknown      State = iota // the host is not known, or was removed
	StateConnecting                // never connected yet
	StateConnected                 // a session is up
	StateDisconnected              // the session was lost; the dialling end is at it
	StateDraining                  // a session is up whose peer is going away
	StateClosed                    // the manager is closed
)

// Host gives the peer's normalised name.
func (c *Connection) Host() string { return "" }

// State gives the present state.
func (c *Connection) State() State { return StateUnknown }

// Stats gives a snapshot of counters and gauges.
func (c *Connection) Stats() ConnectionStats { return ConnectionStats{} }

// WaitConnected returns when a session is up, when ctx ends, when the host
// is removed or when the manager closes.
func (c *Connection) WaitConnected(ctx context.Context) error { return errTODO }

// Request sends req to the handler h of the peer and returns its answer,
// which belongs to the caller. req is borrowed until Request returns. The
// deadline of ctx travels along; when ctx ends Request returns its error at
// once and the handler's context is cancelled. While disconnected it fails
// with ErrDisconnected at once.
func (c *Connection) Request(ctx context.Context, h HandlerID, req []byte) ([]byte, error) {
	return nil, errTODO
}

// AppendRequest is Request for a caller that reuses its memory: the answer
// is appended to dst, and the extended slice returned.
func (c *Connection) AppendRequest(ctx context.Context, h HandlerID, dst, req []byte) ([]byte, error) {
	return dst, errTODO
}

// NewStream opens a stream with the handler h of the peer. It returns after
// the peer's reply to the opening, a refusal being its error, unless h is
// registered or declared here. The stream ends with ctx.
func (c *Connection) NewStream(ctx context.Context, h HandlerID, payload []byte) (*Stream, error) {
	return nil, errTODO
}

// OpenPipe is NewStream without channels: the caller sends and receives
// itself.
func (c *Connection) OpenPipe(ctx context.Context, h HandlerID, payload []byte) (*Pipe, error) {
	return nil, errTODO
}
