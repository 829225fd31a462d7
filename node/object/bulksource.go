package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// bulkSource is a part of a payload that comes from a peer.
type bulkSource struct {
	b       *bulkClient
	c       *bulkConn
	ctx     context.Context
	stop    func() bool
	keep    bool // the peer keeps the connection
	left    int64
	subject string
	silence time.Duration // how long the peer may send nothing
	end     func(error)   // of the span

	raw      syscall.RawConn // nil unless payload can be spliced from the connection
	deadline time.Time       // of its reads, which then don't wait
	reads    *deadlineReader // where raw is nil
}

// open asks a node for a part of a payload, which must be as its segment says.
func (b *bulkClient) open(ctx context.Context, node control.Node, ref payloadRef, p part, how manner) (*bulkSource, error) {
	ctx, end := b.s.span(ctx, "object.read", node.Name)
	s, err := b.openPart(ctx, node, ref, p, how)
	if err != nil {
		end(err)
		return nil, err
	}
	s.end = end
	return s, nil
}

func (b *bulkClient) openPart(ctx context.Context, node control.Node, ref payloadRef, p part, how manner) (*bulkSource, error) {
	subject := b.s.driveName(node.Name, ref.drive)
	quiet := silence
	if !how.hedge {
		if _, err := b.s.await(ctx, node.Name, subject); err != nil {
			return nil, err
		}
		quiet += how.patience // the peer may have to wait for its drive
	} else if !connected(b.s.o.Conn(node.Name)) {
		return nil, fault.New(fault.Waiting, subject, "node %s is not connected", node.Name)
	}
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", p.off, p.off+p.n-1)}}
	c, resp, err := b.exchange(ctx, node, http.MethodGet, bulkPath(ref)+bulkQuery(how), h, 0)
	if err != nil {
		return nil, bulkFault(err, subject)
	}
	if err := b.fits(resp, ref, p, subject); err != nil {
		b.release(c, false)
		return nil, err
	}
	s := &bulkSource{b: b, c: c, ctx: ctx, keep: !resp.Close, left: p.n, subject: subject, silence: quiet}
	if tcp, ok := c.reader.(*net.TCPConn); ok && splices {
		if s.raw, err = tcp.SyscallConn(); err != nil {
			b.release(c, false)
			return nil, bulkFault(err, subject)
		}
	} else {
		s.reads = &deadlineReader{s: s}
	}
	s.stop = c.interrupt(ctx)
	return s, nil
}

// fits says whether a response is the part that was asked for, of the payload
// that the record knows.
func (b *bulkClient) fits(resp *http.Response, ref payloadRef, p part, subject string) error {
	switch kind, _ := fault.Parse(resp.Header.Get(headerError)); {
	case resp.StatusCode == http.StatusPartialContent:
	case kind == fault.RangeInvalid: // it is within what the record says
		b.s.badCopy(ref, badSize)
		return fault.New(fault.Corrupted, subject, "has less of payload %s than the %d bytes of its record", ref.id, p.segment.SizeBytes)
	default:
		return bulkError(resp, subject)
	}
	total, err := strconv.ParseInt(resp.Header.Get(headerSize), 10, 64)
	crc, cerr := strconv.ParseUint(resp.Header.Get(headerCRC32C), 16, 32)
	switch {
	case err != nil, cerr != nil, resp.ContentLength != p.n:
		return fault.New(fault.Unavailable, subject, "gave an answer that does not fit the question")
	case total != p.segment.SizeBytes:
		b.s.badCopy(ref, badSize)
		return fault.New(fault.Corrupted, subject, "has %d bytes of payload %s, whose record says %d", total, ref.id, p.segment.SizeBytes)
	case uint32(crc) != p.segment.CRC32C:
		b.s.badCopy(ref, badCorrupted)
		return fault.New(fault.Corrupted, subject, "has payload %s with another checksum than its record", ref.id)
	}
	return nil
}

// ready waits until something has come. Only that wait has the short deadline:
// the destination may take its time with what is there.
func (s *bulkSource) ready(_ context.Context, want, _ int64) (int64, error) {
	if s.raw == nil {
		return want, s.ctx.Err()
	}
	if err := s.renew(); err != nil {
		return 0, s.fault(err)
	}
	n, err := received(s.raw, false)
	if n == 0 && err == nil {
		n, err = s.wait()
	}
	if err != nil {
		return 0, s.fault(err)
	}
	return min(int64(n), want), nil
}

// renew gives reads that don't wait a deadline that they don't meet.
func (s *bulkSource) renew() error {
	if time.Until(s.deadline) > bulkStall/2 {
		return nil
	}
	s.deadline = time.Now().Add(bulkStall)
	return s.c.until(s.ctx, s.c.SetReadDeadline, bulkStall)
}

// wait waits for the peer to send something.
func (s *bulkSource) wait() (int, error) {
	if err := s.c.until(s.ctx, s.c.SetReadDeadline, s.silence); err != nil {
		return 0, err
	}
	n, err := received(s.raw, true)
	s.deadline = time.Time{}
	if err == nil {
		err = s.renew()
	}
	return n, err
}

func (s *bulkSource) reader() io.Reader {
	if s.raw == nil {
		return s.reads
	}
	return s.c.reader
}

func (s *bulkSource) took(n int64) {
	s.left -= n
	s.b.s.traffic.received.Add(n)
}

func (s *bulkSource) blame(_ context.Context, err error) error {
	switch {
	case s.reads != nil && s.reads.err != nil:
		return s.fault(s.reads.err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return s.fault(err)
	}
	return nil
}

// fault gives the failure of a read a kind.
func (s *bulkSource) fault(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.New(fault.Deadline, s.subject, "its node has sent nothing for %v", s.silence)
	}
	return &fault.Error{Kind: fault.Unavailable, Subject: s.subject, Detail: "broke off in the middle of a payload", Err: err}
}

// close gives the connection back if the answer was read to its end.
func (s *bulkSource) close() {
	s.b.release(s.c, s.stop() && s.keep && s.left == 0)
	s.end(nil)
}

// deadlineReader reads a bulk source whose bytes pass through memory. Each of
// its reads may take as long as the peer may be silent; it remembers how one
// failed, which tells a broken source from a broken destination.
type deadlineReader struct {
	s   *bulkSource
	err error
}

func (r *deadlineReader) Read(p []byte) (int, error) {
	err := r.s.c.until(r.s.ctx, r.s.c.SetReadDeadline, r.s.silence)
	var n int
	if err == nil {
		n, err = r.s.c.reader.Read(p)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // it is read only where more is to come
	}
	if err != nil {
		r.err = err
	}
	return n, err
}
