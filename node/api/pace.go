package api

import (
	"context"
	"time"

	"google.golang.org/grpc"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// pacedStream bounds how long a stream waits for its client, in either
// direction. grpc sets no such bound: a Recv waits for a silent client, and a
// Send for the window of one that doesn't read, as long as the connection
// answers pings. Only the handler's return ends a stream, so the call that
// waits is made by another goroutine, which the handler can leave behind: grpc
// ends the stream's context when the handler returns, and with it that call.
// What was left behind touches nothing but its message; the handler must not
// touch that again.
//
// It is for handlers that receive and send from one goroutine, as all of ours.
type pacedStream struct {
	grpc.ServerStream
	stall  time.Duration
	ending context.Context // its end ends the stream
	waited time.Duration   // for the client, since it last moved a byte
	timer  *time.Timer
	ops    chan op
	done   chan result // of the op; has room for one that nobody waits for
	ended  chan struct{}
	err    error // why an op was left behind; there are none after it
}

// op is a message to send, or to receive into.
type op struct {
	m    any
	send bool
}

// result is what became of an op.
type result struct {
	err      error
	panicked any
}

// pace begins. The caller must end it with release.
func pace(ss grpc.ServerStream, stall time.Duration, ending context.Context) *pacedStream {
	s := &pacedStream{
		ServerStream: ss, stall: stall, ending: ending, timer: time.NewTimer(stall),
		ops: make(chan op), done: make(chan result, 1), ended: make(chan struct{}),
	}
	go s.work()
	return s
}

func (s *pacedStream) work() {
	defer close(s.ended)
	for o := range s.ops {
		s.done <- s.call(o)
	}
}

// call makes the call. Its panic is the handler's: here it would end the node.
func (s *pacedStream) call(o op) (r result) {
	defer func() { r.panicked = recover() }()
	if o.send {
		return result{err: s.ServerStream.SendMsg(o.m)}
	}
	return result{err: s.ServerStream.RecvMsg(o.m)}
}

// release ends the goroutine. It is waited for, unless it was left behind in a
// call that ends only once the handler has returned.
func (s *pacedStream) release() {
	s.timer.Stop()
	close(s.ops)
	if s.err == nil {
		<-s.ended
	}
}

func (s *pacedStream) RecvMsg(m any) error { return s.wait(op{m: m}) }

func (s *pacedStream) SendMsg(m any) error { return s.wait(op{m: m, send: true}) }

// wait makes the call. Only the time spent in it counts, not what the handler
// does between two of them: a slow drive is not the client's fault.
func (s *pacedStream) wait(o op) error {
	if s.err != nil {
		return s.err
	}
	begin := time.Now()
	s.timer.Reset(max(0, s.stall-s.waited))
	s.ops <- o
	select {
	case r := <-s.done:
		if r.panicked != nil {
			panic(r.panicked)
		}
		s.waited += time.Since(begin)
		if r.err == nil && !hollow(o.m) {
			s.waited = 0
		}
		return r.err
	case <-s.timer.C:
		s.err = fault.New(fault.Deadline, "stream", "stalled: the client %s nothing for %v", verb(o.send), s.stall)
	case <-s.ending.Done():
		s.err = context.Cause(s.ending)
	}
	return s.err
}

func verb(send bool) string {
	if send {
		return "took"
	}
	return "sent"
}

// hollow says whether m moves nothing: a client can't keep an upload open with
// empty chunks.
func hollow(m any) bool {
	r, ok := m.(*pb.PutObjectRequest)
	if !ok {
		return false
	}
	part, ok := r.GetPart().(*pb.PutObjectRequest_Chunk)
	return ok && len(part.Chunk) == 0
}
