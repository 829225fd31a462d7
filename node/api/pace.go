package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// pacedStream bounds how long a stream waits for its client, in either
// direction. grpc sets no such bound: a Recv waits for a silent client, and a
// Send for the window of one that doesn't read, as long as the connection
// answers pings. Only the handler's return ends a stream, so a call that may
// wait is made by a goroutine of its own, which the handler can leave behind:
// grpc ends the stream's context when the handler returns, and with it that
// call. What was left behind touches nothing but its message; the handler must
// not touch that again.
//
// Two calls do without. The first message that is sent never waits: grpc lets a
// stream have 64 KiB and what goes over it by one message on the way, whatever
// the client takes (TestFirstAnswer). And behind a message that ought to be the
// last one, its goroutine receives on: the end is most often there already.
//
// It is for handlers that receive and send from one goroutine, as all of ours.
type pacedStream struct {
	grpc.ServerStream
	stall  time.Duration
	ending context.Context // its end ends the stream
	single bool            // one message makes a request, but for an upload in parts
	waited time.Duration   // for the client, since it last moved a byte
	timer  *time.Timer
	done   chan result   // of the op under way; has room for one that nobody waits for
	ahead  <-chan result // of what is received behind a last message; nil: nothing is
	sent   bool          // there was a first answer
	err    error         // why an op was left behind; there are none after it
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
	ahead    <-chan result
}

// pace begins. The caller must end it with release.
func pace(ss grpc.ServerStream, stall time.Duration, ending context.Context, single bool) *pacedStream {
	return &pacedStream{
		ServerStream: ss, stall: stall, ending: ending, single: single,
		timer: time.NewTimer(stall), done: make(chan result, 1),
	}
}

// work makes an op, and receives ahead.
func (s *pacedStream) work(o op) {
	r := s.call(o)
	if o.send || r.err != nil || r.panicked != nil || !s.whole(o.m) {
		s.done <- r
		return
	}
	ahead := make(chan result, 1)
	r.ahead = ahead
	s.done <- r // the message is the handler's now
	ahead <- s.call(op{m: new(emptypb.Empty)})
}

// whole says whether nothing should follow m.
func (s *pacedStream) whole(m any) bool {
	switch m := m.(type) {
	case *pb.PutObjectRequest: // an upload's first
		return m.GetHeader() != nil && m.GetHeader().Content != nil
	case *incoming: // its others
		return false
	}
	return s.single
}

// call makes the call. Its panic is the handler's: here it would end the node.
func (s *pacedStream) call(o op) (r result) {
	defer func() { r.panicked = recover() }()
	if o.send {
		return result{err: s.ServerStream.SendMsg(o.m)}
	}
	return result{err: s.ServerStream.RecvMsg(o.m)}
}

// release ends it. No goroutine is left but in a call that ends once the
// handler has returned.
func (s *pacedStream) release() { s.timer.Stop() }

// RecvMsg implements grpc.ServerStream. What comes behind a last message is not
// put into m: whatever it is, it is one too many.
func (s *pacedStream) RecvMsg(m any) error {
	if ahead := s.ahead; ahead != nil && s.err == nil {
		s.ahead = nil
		return s.wait(op{m: m}, ahead)
	}
	return s.begin(op{m: m})
}

// SendMsg implements grpc.ServerStream.
func (s *pacedStream) SendMsg(m any) error {
	if s.sent || s.err != nil {
		return s.begin(op{m: m, send: true})
	}
	s.sent = true
	if s.err = context.Cause(s.ending); s.err != nil {
		return s.err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *pacedStream) begin(o op) error {
	if s.err != nil {
		return s.err
	}
	go s.work(o)
	return s.wait(o, s.done)
}

// wait waits for what becomes of o. Only the time spent here counts, not what
// the handler does between two of them: a slow drive is not the client's fault.
func (s *pacedStream) wait(o op, done <-chan result) error {
	begin := time.Now()
	s.timer.Reset(max(0, s.stall-s.waited))
	select {
	case r := <-done:
		if r.panicked != nil {
			panic(r.panicked)
		}
		if r.ahead != nil {
			s.ahead = r.ahead
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
	in, ok := m.(*incoming)
	return ok && in.isChunk() && in.chunk.Len() == 0
}
