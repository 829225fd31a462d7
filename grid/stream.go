package grid

import (
	"context"
	"errors"
	"io"
)

// The channel form of streams, a layer over Pipe: a channel's delivery can't
// be observed, so each direction costs a goroutine that moves messages.

// Stream is the channel form of a stream at the end that opened it.
type Stream struct {
	Responses <-chan Response // closed after an error or when the remote closes; must be drained
	Requests  chan<- []byte   // close it to end the input; nil where the handler takes none

	pipe *Pipe
}

// Response is one message of a stream, or its error, which is the last.
type Response struct {
	Msg []byte
	Err error
}

// Done is closed when the stream has ended, cleanly or not. A sender on
// Requests selects on it too, to learn that nobody will read what it sends.
func (s *Stream) Done() <-chan struct{} { return s.pipe.done }

// maxChannel bounds the buffer of a stream's channels, in messages. What is
// in the buffer counts as delivered, beyond the stream's window.
const maxChannel = 64

// NewStream opens a stream with the handler h of the peer. It returns after
// the peer's reply to the opening, a refusal being its error, unless h is
// registered or declared here. The stream ends with ctx; cancel it to leave a
// stream early. Slices sent on Requests must not be changed afterwards.
func (c *Connection) NewStream(ctx context.Context, h HandlerID, payload []byte) (*Stream, error) {
	p, err := c.OpenPipe(ctx, h, payload)
	if err != nil {
		return nil, err
	}
	responses := make(chan Response, 1+c.channelCapacity(p))
	st := &Stream{Responses: responses, pipe: p}
	if !c.m.spawn(func() { p.pumpResponses(responses) }) {
		p.abort(ErrClosed)
		return nil, p.endError()
	}
	if p.takesInput() {
		requests := make(chan []byte, min(c.channelCapacity(p), 8))
		st.Requests = requests
		c.m.spawn(func() { p.pumpRequests(requests) })
	}
	return st, nil
}

func (p *Pipe) takesInput() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.input
}

func (c *Connection) channelCapacity(p *Pipe) int {
	p.mu.Lock()
	n := p.messages
	p.mu.Unlock()
	if reg := c.m.handlers.get(p.handler); n == 0 && reg != nil && reg.Stream != nil {
		n = reg.Stream.OutCapacity
	}
	return min(max(n, 1), maxChannel)
}

// pumpResponses moves what arrives into the channel until the stream's end.
// Only a clean end that nobody reads holds it longer, until ctx ends or Close.
func (p *Pipe) pumpResponses(out chan Response) {
	defer close(out)
	for {
		msg, err := p.Recv(p.s.m.life)
		if err == io.EOF {
			return
		}
		if err != nil {
			if p.s.m.life.Err() != nil {
				err = p.failed("recv", ErrClosed)
			}
			p.lastResponse(out, err)
			return
		}
		select {
		case out <- Response{Msg: msg}:
			continue
		default:
		}
		select {
		case out <- Response{Msg: msg}:
		case <-p.cut:
			p.lastResponse(out, p.endError())
			return
		case <-p.ctx.Done():
			p.lastResponse(out, p.failed("recv", p.ctx.Err()))
			return
		case <-p.s.m.life.Done():
			p.lastResponse(out, p.failed("recv", ErrClosed))
			return
		}
	}
}

// lastResponse leaves the error in the channel without waiting for a reader.
// A stream that the other end ended keeps its messages in front of it; one
// that was cut has lost its tail anyway and gives way.
func (p *Pipe) lastResponse(out chan Response, err error) {
	var e *Error
	if errors.As(err, &e) && e.Remote {
		select {
		case out <- Response{Err: err}:
			return
		case <-p.ctx.Done():
		case <-p.s.m.life.Done():
		}
	}
	for {
		select {
		case out <- Response{Err: err}:
			return
		default:
		}
		select {
		case <-out:
		default:
		}
	}
}

// pumpRequests moves the caller's messages into the stream. After the
// stream's end it goes on taking them, so that no sender hangs, until the
// channel is closed or the caller's context ends.
func (p *Pipe) pumpRequests(in <-chan []byte) {
	for {
		select {
		case msg, ok := <-in:
			if !ok {
				p.CloseSend()
				return
			}
			if err := p.SendOwned(p.ctx, msg); err != nil && errors.Is(err, ErrTooLarge) {
				p.abort(err)
			}
		case <-p.ctx.Done():
			return
		case <-p.s.m.life.Done():
			return
		}
	}
}

// serveStream runs a stream's handler and ends the stream by what it returns.
func (c *servedCall) serveStream() {
	p := c.ctx.pipe
	c.begin()
	err := c.invokeStream(p)
	c.end(0, err)
	switch {
	case err == nil:
		p.sendEnd(&pipeEnd{typ: frameEnd})
	default:
		w := wireErrorOf(err)
		p.sendEnd(&pipeEnd{typ: frameError, body: w.encode()})
	}
	c.s.served()
	c.recycle()
}

func (c *servedCall) invokeStream(p *Pipe) (err error) {
	st := c.reg.Stream
	if st.Pull != nil {
		defer func() {
			if v := recover(); v != nil {
				err = c.panicked(v)
			}
		}()
		return st.Pull(c.user, c.payload, p)
	}
	return c.invokeChannels(p, st)
}

// invokeChannels runs the channel form: one goroutine beside the handler's
// for each direction, both gone when it returns.
func (c *servedCall) invokeChannels(p *Pipe, st *StreamHandler) error {
	out := make(chan []byte, min(st.OutCapacity, maxChannel))
	outDone := make(chan struct{})
	var unsent error
	go func() {
		defer close(outDone)
		for msg := range out {
			if unsent = p.SendOwned(c.ctx, msg); unsent != nil {
				for range out { // the handler must not hang
				}
			}
		}
	}()
	var in chan []byte
	inDone := make(chan struct{})
	recv, stop := context.WithCancel(c.ctx)
	if st.InCapacity > 0 {
		in = make(chan []byte, min(st.InCapacity, maxChannel))
		go func() {
			defer close(inDone)
			p.pumpInput(recv, in)
		}()
	} else {
		close(inDone)
	}
	err := c.invokeHandle(st, in, out)
	close(out)
	stop()
	<-outDone
	<-inDone
	if err == nil {
		err = unsent // what lacks a message has no clean end
	}
	return err
}

func (c *servedCall) invokeHandle(st *StreamHandler, in <-chan []byte, out chan<- []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = c.panicked(v)
		}
	}()
	return st.Handle(c.user, c.payload, in, out)
}

// pumpInput moves the caller's messages to the handler. in closes on a clean
// end; on loss or cancellation not before ctx is done. ctx ends, too, when the
// handler has returned.
func (p *Pipe) pumpInput(ctx context.Context, in chan<- []byte) {
	defer close(in)
	for {
		msg, err := p.Recv(ctx)
		if err == io.EOF {
			return
		}
		if err != nil {
			<-ctx.Done()
			return
		}
		select {
		case in <- msg:
		case <-ctx.Done():
			return
		}
	}
}
