package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

// bulkSink is a payload file that is being written on a peer. A goroutine
// reads the answer, which may come before all was sent; Commit and Abort join
// it.
type bulkSink struct {
	b       *bulkClient
	c       *bulkConn
	ctx     context.Context
	stop    func() bool
	subject string
	chunked bool
	frame   net.Buffers // reused for chunks

	answered chan struct{} // closed when there is an answer, or none will come
	resp     *http.Response
	err      error
	over     bool // committed or aborted
}

// create opens a payload file on a node: after it, the node has made room.
func (b *bulkClient) create(ctx context.Context, node control.Node, drive string, id dataio.ID, sizeBytes int64) (*bulkSink, error) {
	subject := b.s.driveName(node.Name, drive)
	if _, err := b.s.await(ctx, node.Name, subject); err != nil {
		return nil, err
	}
	h := http.Header{"Expect": {"100-continue"}}
	if sizeBytes >= 0 {
		h.Set("Content-Length", strconv.FormatInt(sizeBytes, 10))
	} else {
		h.Set("Transfer-Encoding", "chunked")
	}
	c, resp, err := b.exchange(ctx, node, http.MethodPut, bulkPath(payloadRef{drive, id}), h, sizeBytes)
	if err != nil {
		return nil, bulkFault(err, subject)
	}
	if resp.StatusCode != http.StatusContinue {
		err := bulkError(resp, subject)
		b.release(c, false)
		return nil, err
	}
	// The answer may take as long as the body does; Commit sets a limit.
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		b.release(c, false)
		return nil, bulkFault(err, subject)
	}
	s := &bulkSink{b: b, c: c, ctx: ctx, subject: subject, chunked: sizeBytes < 0, answered: make(chan struct{})}
	s.stop = c.interrupt(ctx)
	go func() {
		defer close(s.answered)
		s.resp, _, s.err = readHead(c.head, http.MethodPut)
	}()
	return s, nil
}

func (s *bulkSink) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	select {
	case <-s.answered:
		return 0, s.failure(nil)
	default:
	}
	err := s.c.until(s.ctx, s.c.SetWriteDeadline, bulkStall)
	if err == nil {
		err = s.send(p)
	}
	if err != nil {
		return 0, s.failure(err)
	}
	s.b.s.traffic.sent.Add(int64(len(p)))
	return len(p), nil
}

func (s *bulkSink) send(p []byte) error {
	if !s.chunked {
		_, err := s.c.Write(p)
		return err
	}
	s.frame = append(s.frame[:0], fmt.Appendf(nil, "%x\r\n", len(p)), p, []byte("\r\n"))
	frame := s.frame // WriteTo consumes it
	_, err := frame.WriteTo(s.c.Conn)
	return err
}

// failure is why an upload ended early: the peer's answer, if it still comes,
// or what became of the connection.
func (s *bulkSink) failure(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	_ = s.c.SetReadDeadline(time.Now().Add(bulkErrorTimeout))
	<-s.answered
	switch {
	case s.err == nil && s.resp.StatusCode != http.StatusCreated:
		return bulkError(s.resp, s.subject)
	case err == nil:
		err = s.err
	}
	return bulkFault(errors.Join(err, errUploadEnded), s.subject)
}

var errUploadEnded = errors.New("object: the peer ended an upload early")

// Commit ends the body and waits for the peer's word that all is durable.
func (s *bulkSink) Commit(ctx context.Context) (dataio.Written, error) {
	stop := s.c.interrupt(ctx)
	defer stop()
	err := s.c.until(ctx, s.c.SetWriteDeadline, bulkStall)
	if err == nil && s.chunked {
		_, err = io.WriteString(s.c, "0\r\n\r\n")
	}
	if err == nil {
		err = s.c.until(ctx, s.c.SetReadDeadline, bulkCommitTimeout)
	}
	if err != nil {
		s.Abort()
		return dataio.Written{}, bulkFault(err, s.subject)
	}
	<-s.answered
	if s.err != nil {
		s.Abort()
		if err := ctx.Err(); err != nil {
			return dataio.Written{}, context.Cause(ctx)
		}
		return dataio.Written{}, bulkFault(s.err, s.subject)
	}
	if s.resp.StatusCode != http.StatusCreated {
		s.Abort()
		return dataio.Written{}, bulkError(s.resp, s.subject)
	}
	size, err1 := strconv.ParseInt(s.resp.Header.Get(headerSize), 10, 64)
	crc, err2 := strconv.ParseUint(s.resp.Header.Get(headerCRC32C), 16, 32)
	if err := errors.Join(err1, err2); err != nil {
		s.Abort()
		return dataio.Written{}, bulkFault(err, s.subject)
	}
	s.over = true
	s.b.release(s.c, stop() && s.stop() && !s.resp.Close && s.resp.ContentLength == 0)
	return dataio.Written{SizeBytes: size, CRC32C: uint32(crc)}, nil
}

// Abort closes the connection, which is how the peer learns that the body is
// not whole.
func (s *bulkSink) Abort() {
	if s.over {
		return
	}
	s.over = true
	s.stop()
	_ = s.c.SetDeadline(longAgo)
	<-s.answered
	s.b.release(s.c, false)
}
