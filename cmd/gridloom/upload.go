package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// readAhead is how many pieces of a source are read and summed while others
// are sent.
const readAhead = 2

// wholeBytes is the largest object that is sent in one message.
const wholeBytes = 256 << 10

// piece is what one read of a source gave.
type piece struct {
	data []byte
	err  error // io.EOF after the last
}

// readPieces reads from in a goroutine of its own until it ends or ctx does,
// and sums what it reads. The bytes of a piece are good until give takes them
// back. The goroutine is the one thing here that nobody waits for: a read from
// a terminal can't be interrupted, and then ends with the process.
func readPieces(ctx context.Context, from io.Reader, sums *checksums, pieceBytes int64) (pieces <-chan piece, give chan<- []byte) {
	out, free := make(chan piece), make(chan []byte, readAhead)
	for range readAhead {
		free <- make([]byte, pieceBytes)
	}
	go func() {
		for {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return
			}
			n, err := from.Read(buf[:cap(buf)])
			_, _ = sums.Write(buf[:n])
			select {
			case out <- piece{buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out, free
}

// upload is one PutObject stream. A goroutine waits for the node's answer,
// which may be a refusal long before the last byte.
type upload struct {
	stream grpc.ClientStreamingClient[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]
	dog    *watchdog
	answer chan error // one, when reply is there
	reply  *gridloomv1.PutObjectResponse
}

// put streams an object to the node: header, chunks, and the checksums over
// what was sent, beside those that header has already; or a small one in the
// header. On any error the stream is cut off
// before its trailer, or its end, which leaves nothing behind on the node.
func (c *client) put(ctx context.Context, header *gridloomv1.PutObjectHeader, from io.Reader, m *meter) (*gridloomv1.Object, error) {
	ctx, dog, cancel := c.watch(ctx)
	defer cancel()
	dog.wake()
	stream, err := c.objects.PutObject(ctx)
	if err != nil {
		return nil, stalled(ctx, err)
	}
	u := &upload{stream: stream, dog: dog, answer: make(chan error, 1), reply: &gridloomv1.PutObjectResponse{}}
	go func() { u.answer <- u.stream.RecvMsg(u.reply) }()
	err = u.send(ctx, header, from, m)
	if err != nil && !errors.Is(err, errAnswered) {
		cancel() // which the goroutine hears
		<-u.answer
		return nil, stalled(ctx, err)
	}
	dog.wake()
	switch answer := <-u.answer; {
	case answer != nil:
		return nil, stalled(ctx, answer)
	case err != nil:
		return nil, errors.New("the node took the object for whole before its end")
	}
	return u.reply.GetObject(), nil
}

var (
	errGrew   = errors.New("grew while it was read")
	errShrank = errors.New("shrank while it was read")
)

// errAnswered ends a send that the node has answered already.
var errAnswered = errors.New("answered")

// sendWhole sends an object of the size that header has in one message.
func (u *upload) sendWhole(header *gridloomv1.PutObjectHeader, from io.Reader, m *meter) error {
	content, err := io.ReadAll(io.LimitReader(from, header.GetSize()+1)) // the byte more finds a file that grows
	if err != nil {
		return err
	}
	sums := newChecksums()
	_, _ = sums.Write(content)
	header = proto.CloneOf(header)
	header.Content, header.Checksums = content, append(header.Checksums, sums.values()...)
	switch size := int64(len(content)); {
	case size > header.GetSize():
		return errGrew
	case size < header.GetSize():
		return errShrank
	}
	if err := u.message(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Header{Header: header}}); err != nil {
		return err
	}
	m.add(len(content))
	return u.stream.CloseSend()
}

// send sends everything, unless the node answers first.
func (u *upload) send(ctx context.Context, header *gridloomv1.PutObjectHeader, from io.Reader, m *meter) (err error) {
	if header.Size != nil && header.GetSize() <= wholeBytes {
		return u.sendWhole(header, from, m)
	}
	given := header.GetChecksums() // they go behind the chunks
	header = proto.CloneOf(header)
	header.Checksums = nil
	for _, sum := range given {
		header.TrailerChecksums = append(header.TrailerChecksums, sum.GetAlgorithm())
	}
	err = u.message(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Header{Header: header}})
	if err != nil {
		return err
	}
	size, sums, sent := int64(chunkBytes), newChecksums(), int64(0)
	if header.Size != nil {
		size = min(size, header.GetSize()+1) // the byte more finds a file that grows
	}
	defer func() {
		if err != nil {
			m.add(-int(sent))
		}
	}()
	pieces, give := readPieces(ctx, from, sums, size)
	for {
		var p piece
		select {
		case p = <-pieces:
		case answer := <-u.answer:
			u.answer <- answer
			return errAnswered
		}
		if sent += int64(len(p.data)); header.Size != nil && sent > header.GetSize() {
			return errGrew
		}
		if len(p.data) > 0 {
			err := u.message(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Chunk{Chunk: p.data}})
			if err != nil {
				return err
			}
			m.add(len(p.data))
		}
		switch {
		case errors.Is(p.err, io.EOF) && header.Size != nil && sent < header.GetSize():
			return errShrank
		case errors.Is(p.err, io.EOF):
			trailer := &gridloomv1.PutObjectTrailer{Checksums: append(sums.values(), given...)}
			if err := u.message(&gridloomv1.PutObjectRequest{Part: &gridloomv1.PutObjectRequest_Trailer{Trailer: trailer}}); err != nil {
				return err
			}
			return u.stream.CloseSend()
		case p.err != nil:
			return p.err
		}
		// The buffer may be filled again: gRPC has encoded a message when Send
		// returns, and this connection has no tracer that would look at it later.
		give <- p.data
	}
}

// message sends one message, in which the node has to keep up.
func (u *upload) message(msg *gridloomv1.PutObjectRequest) error {
	u.dog.wake()
	defer u.dog.sleep()
	if err := u.stream.Send(msg); !errors.Is(err, io.EOF) {
		return err
	}
	return errAnswered // why is in the answer
}
