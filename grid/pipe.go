package grid

import "context"

// Pipe is one end of a stream in pull form, at the caller as at the handler.
// One goroutine may send while another receives; Send, SendOwned and
// CloseSend must not overlap each other, nor may Recv and RecvAppend.
type Pipe struct{}

// Send sends one message. msg is borrowed until Send returns. It waits for
// the receiver's window, for ctx and for the stream's end. io.EOF... is never
// returned; a finished other end gives ErrStreamDone.
func (p *Pipe) Send(ctx context.Context, msg []byte) error { return errTODO }

// SendOwned is Send for a buffer handed over for good: it may be written by
// reference, and must not be changed by anybody any more.
func (p *Pipe) SendOwned(ctx context.Context, msg []byte) error { return errTODO }

// CloseSend ends this direction. Only the opening end has a use for it: the
// handler's direction ends when the handler returns.
func (p *Pipe) CloseSend() error { return errTODO }

// Recv returns the next message, which belongs to the caller; io.EOF after a
// clean end of the other side's direction, and the cause otherwise.
func (p *Pipe) Recv(ctx context.Context) ([]byte, error) { return nil, errTODO }

// RecvAppend is Recv that appends the message to dst.
func (p *Pipe) RecvAppend(ctx context.Context, dst []byte) ([]byte, error) { return dst, errTODO }

// Cancel ends the stream; the other end sees a cancelled context.
func (p *Pipe) Cancel() {}

// Done is closed when the stream has ended, cleanly or not.
func (p *Pipe) Done() <-chan struct{} { return nil }
