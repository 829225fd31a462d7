package lean

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
)

// Framing is what is known of how the requests of HTTP/1.0 are framed that come by
// a connection. In HTTP/1.0 there is no Transfer-Encoding: net/http takes the field
// away and goes by the rest, so that no handler sees it, while somebody in front of
// it may have gone by the field (RFC 9112, 6.1).
type Framing int32

// Framings.
const (
	Unknown  Framing = iota // nobody looks, or no further
	Bodyless                // each of them has ended with its head
	Faulty                  // one had Transfer-Encoding
)

type oldKey struct{}

// ConnContext is an http.Server's, for a Listener's connections. OldFraming needs it.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if h, ok := conn.(*handed); ok {
		return context.WithValue(ctx, oldKey{}, &h.old)
	}
	return ctx
}

// OldFraming gives the framing of a request of HTTP/1.0 and of those before it on
// its connection, whose context it has.
func OldFraming(ctx context.Context) Framing {
	if o, ok := ctx.Value(oldKey{}).(*old); ok {
		return Framing(o.framing.Load())
	}
	return Unknown
}

// old looks at what net/http reads of a connection, as long as that is one head of
// HTTP/1.0 behind the other. A body, another version or a line that is long ends
// that: what is a head can't be told from there on without reading as net/http does.
// It reads lines as net/textproto does: LF ends them, with or without CR, and no
// field begins on a line that begins with a space.
type old struct {
	framing atomic.Int32 // a Framing; requests read it, what follows is the reader's
	line    []byte       // the beginning of one
	fields  bool         // the request line is past
	length  bool         // there was a Content-Length
}

// see looks at what was read.
func (o *old) see(p []byte) {
	for len(p) > 0 && Framing(o.framing.Load()) == Bodyless {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		if len(o.line)+n > bufferBytes {
			o.end(Unknown)
			return
		}
		o.line = append(o.line, p[:n]...)
		p = p[n:]
		if line, whole := bytes.CutSuffix(o.line, []byte("\n")); whole {
			o.line = o.line[:0]
			o.take(bytes.TrimSuffix(line, []byte("\r")))
		}
	}
}

// take takes a line.
func (o *old) take(line []byte) {
	switch {
	case !o.fields:
		o.fields = true
		if !bytes.HasSuffix(line, []byte(" HTTP/1.0")) {
			o.end(Unknown)
		}
	case len(line) > 0:
		switch name, _, _ := bytes.Cut(line, []byte(":")); {
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			o.end(Faulty)
		case bytes.EqualFold(name, []byte("Content-Length")):
			o.length = true
		}
	case o.length:
		o.end(Unknown)
	default:
		o.fields = false
	}
}

// end ends the looking.
func (o *old) end(f Framing) {
	o.framing.Store(int32(f))
	o.line = nil
}
