package lean

import (
	"io"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// joinBytes is up to where a body is copied behind its head, for one write.
const joinBytes = 16 << 10

// guessBytes is how much of a body whose length nobody has told is kept until the
// handler is done, and with it the length known, as in net/http.
const guessBytes = 2048

// outBuffers has what heads and small bodies are put together in.
var outBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 2<<10+joinBytes)
	return &b
}}

// writer is the http.ResponseWriter of a connection, begun anew for each
// request. What it writes is what net/http would write.
type writer struct {
	c      *conn
	header http.Header
	out    *[]byte // what has not been sent; of outBuffers

	head    bool // of a HEAD: there is no body
	status  int  // 0: none yet
	length  int64
	written int64 // of the body, as far as the handler knows
	typed   bool  // the header has a type, or a coding that forbids to guess one
	dated   bool
	begins  time.Time // a moment ago; zero: nobody has looked
	whole   bool      // the head is whole, in out or on its way
	hold    bool      // a flush waits for what comes next
	last    bool      // the connection ends with the answer
	body    []byte    // of one whose length isn't known, up to guessBytes
	failed  error
	waits   func()                   // to be told before something is waited for; nil: nobody is
	first   interface{ FirstSent() } // to be told of the first bytes, if others wait; nil: nobody is

	mu       sync.Mutex // guards what follows: whoever cuts an answer off is another goroutine
	deadline time.Time  // of writes, as the handler wants it
	armed    bool       // it is the connection's, too
}

// begin makes the writer ready for a request.
func (w *writer) begin(head bool) {
	clear(w.header)
	w.out = outBuffers.Get().(*[]byte)
	w.head, w.status, w.length, w.written = head, 0, -1, 0
	w.begins, w.typed, w.dated, w.whole, w.hold, w.last, w.body, w.failed, w.waits = time.Time{}, false, false, false, false, false, w.body[:0], nil, nil
	w.first = nil
}

// free gives back what a request took, and takes its deadline away.
func (w *writer) free() {
	if w.out != nil {
		*w.out = (*w.out)[:0]
		outBuffers.Put(w.out)
		w.out = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Time{}
	if w.armed {
		w.armed = false
		_ = w.c.conn.SetWriteDeadline(time.Time{})
	}
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// bodyAllowed is RFC 9110, 6.4.1.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// WriteHeader implements http.ResponseWriter. There are no answers of 1xx to
// plain requests.
func (w *writer) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	h := w.header
	if values := h["Content-Length"]; len(values) > 0 && values[0] != "" {
		if n, err := strconv.ParseInt(values[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		} else {
			delete(h, "Content-Length")
		}
	}
	_, w.typed = h["Content-Type"]
	w.typed = w.typed || h.Get("Content-Encoding") != ""
	_, w.dated = h["Date"]
	delete(h, "Transfer-Encoding") // no answer is in chunks here
	if !bodyAllowed(status) {
		delete(h, "Content-Length")
		if status == http.StatusNotModified {
			delete(h, "Content-Type")
		}
	}
	if h.Get("Connection") == "close" {
		w.last = true
	}
	if w.c.l.closing() {
		w.last = true
		delete(h, "Connection")
	}
	out := append(*w.out, "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(status), 10), ' ')
	out = append(append(out, http.StatusText(status)...), "\r\n"...)
	*w.out = appendHeader(out, h)
}

// appendHeader writes a header as http.Header.Write does: sorted, without names
// that are none, and with values on one line.
func appendHeader(out []byte, h http.Header) []byte {
	var room [32]string
	names := room[:0]
	for name := range h {
		i := len(names)
		names = append(names, name)
		for ; i > 0 && names[i-1] > name; i-- {
			names[i] = names[i-1]
		}
		names[i] = name
	}
	for _, name := range names {
		if !validName(name) {
			continue
		}
		for _, v := range h[name] {
			if strings.ContainsAny(v, "\r\n") {
				v = strings.NewReplacer("\n", " ", "\r", " ").Replace(v)
			}
			out = append(append(out, name...), ": "...)
			out = append(append(out, textproto.TrimString(v)...), "\r\n"...)
		}
	}
	return out
}

// validName is RFC 9110, 5.6.2.
func validName(s string) bool {
	for _, c := range []byte(s) {
		if classes[c]&inName == 0 && !('0' <= c && c <= '9') && strings.IndexByte("!#$%&'*+.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// complete ends the head, in front of p, of which guesses are made that the
// handler has left open. done: p is all there is.
func (w *writer) complete(p []byte, done bool) {
	if w.whole {
		return
	}
	w.whole = true
	out := *w.out
	if !w.dated {
		if w.begins.IsZero() {
			w.begins = time.Now()
		}
		out = append(append(append(out, "Date: "...), w.c.l.date(w.begins)...), "\r\n"...)
	}
	allowed := bodyAllowed(w.status)
	if w.length < 0 && done && allowed && (!w.head || len(p) > 0) {
		w.length = int64(len(p))
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, w.length, 10), "\r\n"...)
	}
	if allowed && !w.typed && len(p) > 0 {
		out = append(out, "Content-Type: "...)
		out = append(append(out, http.DetectContentType(p)...), "\r\n"...)
	}
	if w.length < 0 && allowed && !w.head {
		w.last = true // its end is the connection's
	}
	if w.last && !w.saysClose() {
		out = append(out, "Connection: close\r\n"...)
	}
	*w.out = append(out, "\r\n"...)
}

func (w *writer) saysClose() bool { return w.header.Get("Connection") == "close" }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(w.status):
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(len(p)) > w.length:
		w.written += int64(len(p))
		return 0, http.ErrContentLength
	case w.failed != nil:
		return 0, w.failed
	}
	w.written += int64(len(p))
	switch {
	case w.length < 0 && !w.whole:
		return w.guess(p)
	case w.head:
		w.complete(p, false)
		return len(p), nil
	}
	w.complete(p, false)
	return w.send(p)
}

// guess keeps the beginning of a body of unknown length.
func (w *writer) guess(p []byte) (int, error) {
	if len(w.body)+len(p) <= guessBytes {
		w.body = append(w.body, p...)
		return len(p), nil
	}
	if err := w.flushGuess(false); err != nil || w.head {
		return len(p), err
	}
	return w.send(p)
}

// flushGuess ends the head, and sends it with what was kept. done: that is all.
func (w *writer) flushGuess(done bool) error {
	if w.whole {
		return w.failed
	}
	w.complete(w.body, done)
	if w.head || w.failed != nil {
		return w.failed
	}
	_, err := w.send(w.body)
	w.body = w.body[:0]
	return err
}

// send sends what waits and p, in one write if p is small.
func (w *writer) send(p []byte) (n int, err error) {
	w.hold = false
	waiting := len(*w.out)
	if waiting == 0 {
		n, err = w.push(p)
	} else if len(p) <= joinBytes {
		*w.out = append(*w.out, p...)
		n, err = w.push(*w.out)
		n, *w.out = max(0, n-waiting), (*w.out)[:0]
	} else {
		w.arm()
		w.c.conn.Hold()
		_, _ = w.c.conn.Write(*w.out) // an error comes again
		*w.out = (*w.out)[:0]
		n, err = w.c.conn.Write(p)
	}
	w.failed = err
	return n, err
}

// push writes. What the kernel takes at once needs no deadline.
func (w *writer) push(p []byte) (int, error) {
	n, err := w.c.conn.WriteNow(p)
	if n == len(p) || err != nil {
		return n, err
	}
	w.arm()
	m, err := w.c.conn.Write(p[n:])
	return n + m, err
}

// ReadFrom implements io.ReaderFrom: what the kernel can move is moved by it,
// and the head leaves in front of it.
func (w *writer) ReadFrom(src io.Reader) (n int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.head || w.length < 0 || !bodyAllowed(w.status) || !dataio.InKernel(src) {
		return dataio.CopyThrough(w, src)
	}
	if w.failed != nil {
		return 0, w.failed
	}
	w.complete(nil, false)
	w.hold = false
	if w.written > 0 && w.length-w.written > left(src) {
		w.c.conn.Cork(true) // finish ends it; the first window doesn't wait for others
	}
	n, err = w.move(src)
	w.written += n
	w.failed = err
	return n, err
}

// move has the kernel move src, behind what waits. What it takes at once needs no
// deadline.
func (w *writer) move(src io.Reader) (int64, error) {
	wrote, sent, err := w.c.conn.SendNow(*w.out, src)
	*w.out = append((*w.out)[:0], (*w.out)[wrote:]...)
	if err != nil || len(*w.out) == 0 && left(src) == 0 {
		return sent, err
	}
	if tell := w.first; tell != nil && sent > 0 {
		w.first = nil
		tell.FirstSent()
	}
	w.arm()
	if len(*w.out) > 0 {
		w.c.conn.Hold()
		if _, err := w.c.conn.Write(*w.out); err != nil {
			return sent, err
		}
		*w.out = (*w.out)[:0]
	}
	n, err := w.c.conn.ReadFrom(src)
	return sent + n, err
}

// left is how much is left of src; of what doesn't say, as much as there may be.
func left(src io.Reader) int64 {
	switch src := src.(type) {
	case *io.LimitedReader:
		return src.N
	case *dataio.Range:
		return src.Left()
	}
	return math.MaxInt64
}

// OnFirst has f told when the first bytes of the body have left, if ReadFrom then has
// to wait for the client to take more: it returns only after that.
func (w *writer) OnFirst(f interface{ FirstSent() }) { w.first = f }

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.hold && !w.whole { // it goes with what comes next, or with Release
		w.complete(nil, false)
		return w.failed
	}
	if err := w.flushGuess(false); err != nil {
		return err
	}
	return w.flush()
}

// flush sends what waits.
func (w *writer) flush() error {
	if w.failed == nil && len(*w.out) > 0 && !w.hold {
		_, _ = w.send(nil)
	}
	return w.failed
}

// finish ends the answer, and says whether the connection may go on.
func (w *writer) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.hold = false
	if w.flushGuess(true) != nil || w.flush() != nil {
		return false
	}
	w.c.conn.Cork(false)
	short := !w.head && w.length >= 0 && bodyAllowed(w.status) && w.length != w.written
	return !w.last && !short
}

// SetWriteDeadline is what http.ResponseController calls.
func (w *writer) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	if w.armed || !t.IsZero() && t.Before(past) { // somebody writes, or is not to begin
		w.armed = true
		return w.c.conn.SetWriteDeadline(t)
	}
	return nil
}

// past is before any deadline but those that are to end what is under way.
var past = time.Unix(1<<20, 0)

// SetReadDeadline is what http.ResponseController calls. Nothing is read while a
// handler runs, and what is read after it has deadlines of its own.
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// arm makes the handler's deadline the connection's: what is written next may have
// to wait.
func (w *writer) arm() {
	if tell := w.waits; tell != nil {
		w.waits = nil
		tell()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed && !w.deadline.IsZero() {
		w.armed = true
		_ = w.c.conn.SetWriteDeadline(w.deadline)
	}
}

// answering is the connection as handlers know it: Hold and Release are about
// answers.
type answering struct {
	*dataio.Conn
	w *writer
}

// Hold has a flush of the head wait for what comes next.
func (a *answering) Hold() { a.w.hold = true }

// Release sends what waits.
func (a *answering) Release() error {
	a.w.hold = false
	return a.w.flush()
}
