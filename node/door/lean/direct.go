package lean

import (
	"context"
	"net/http"
	"time"
)

// Direct serves GETs that ask for nothing but an object, without what an
// http.Handler needs: a request, a header, contexts. Each connection has one.
type Direct interface {
	// ServeGet answers g, and says whether it did. If not, nothing was written or
	// counted, and the handler serves the request. ctx is the connection's: whoever
	// begins something with it has ended that when it returns. again: the
	// connection may go on, as far as the answer is concerned.
	ServeGet(ctx context.Context, g *Get) (served, again bool)
}

// Get is a GET without a query, whose target has nothing to be unescaped, and
// whose fields say who asks and nothing about what is wanted.
type Get struct {
	Path       string // as it was sent
	Credential string // Gridloom-Authorization, else Authorization; "": neither was given
	Addr       string // of the client
	Answer     Answer
}

// Answer is the answer to a Get.
type Answer struct{ *writer }

// Begin begins an answer 200 with a body of length bytes. fields are its header's,
// by AppendHeader, and now is the present.
func (a Answer) Begin(now time.Time, length int64, fields []byte) {
	w := a.writer
	w.begins = now
	w.status, w.length, w.typed = http.StatusOK, length, true
	w.last = w.c.l.closing()
	*w.out = append(append(*w.out, "HTTP/1.1 200 OK\r\n"...), fields...)
}

// OnWait has f called once, before the answer waits for the client to take it. It
// comes before Begin.
func (a Answer) OnWait(f func()) { a.waits = f }

// AppendHeader appends the fields of a header as they are sent: those of an answer
// with a body and a type.
func AppendHeader(to []byte, h http.Header) []byte { return appendHeader(to, h) }

// whole says that the fields of a head ask for nothing but an object, and gives
// the credential.
func (h *head) whole() (credential string, ok bool) {
	own := false
	for i := range h.fields {
		switch f := &h.fields[i]; f.name {
		case "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Referer", "Tracestate", "User-Agent":
		case "Gridloom-Authorization":
			credential, own = f.value[0], true
		case "Authorization":
			if !own {
				credential = f.value[0]
			}
		default:
			return "", false
		}
	}
	return credential, true
}

// serveDirect has the request served directly, if it can be.
func (c *conn) serveDirect() (served, again bool) {
	h := &c.head
	if c.direct == nil || !h.direct || h.method != http.MethodGet || h.url.Path != h.target {
		return false, false
	}
	g := &c.get
	g.Path, g.Credential, g.Addr, g.Answer = h.target, h.credential, c.remote, Answer{&c.writer}
	c.writer.begin(false)
	if served, again = c.direct.ServeGet(c.ctx, g); !served {
		c.writer.free()
		return false, false
	}
	return true, again && c.writer.finish()
}
