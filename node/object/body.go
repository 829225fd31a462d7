package object

import (
	"context"
	"errors"
	"io"

	"github.com/gridloom/gridloom/node/fault"
)

// bodyReader reads a body in full chunks and holds it to its declared size.
type bodyReader struct {
	r        io.Reader
	declared int64 // -1: not known
	limit    int64
	read     int64
	ended    bool // with io.EOF, and the declared size
}

// fill reads until buf is full or the body has ended. It stops, with the cause,
// before the first Read after the end of ctx; a Read that blocks is for who
// handed in the body to end.
func (b *bodyReader) fill(ctx context.Context, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && !b.ended; {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		m, err := b.r.Read(buf[n:])
		n += m
		b.read += int64(m)
		switch {
		case b.declared >= 0 && b.read > b.declared:
			return n, fault.New(fault.IncompleteBody, "body", "is longer than the %d bytes declared", b.declared)
		case b.read > b.limit:
			return n, tooLarge(b.limit)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			b.ended = true
			if b.declared >= 0 && b.read < b.declared {
				return n, fault.New(fault.IncompleteBody, "body", "ended after %d of %d bytes", b.read, b.declared)
			}
		case errors.Is(err, context.DeadlineExceeded):
			return n, err
		case err != nil:
			var fe *fault.Error
			if errors.As(err, &fe) {
				return n, err
			}
			return n, &fault.Error{Kind: fault.IncompleteBody, Subject: "body", Err: err, Detail: "was cut off"}
		case m > 0:
			idle = 0
		default:
			if idle++; idle > 100 {
				return n, &fault.Error{Kind: fault.IncompleteBody, Subject: "body", Err: io.ErrNoProgress, Detail: "has stalled"}
			}
		}
	}
	return n, nil
}
