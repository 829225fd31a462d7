// Package lean serves plain requests for bytes in front of net/http, on a
// plaintext HTTP/1.1 listener: GET and HEAD below /data/ whose head it
// understands to the last byte. It is a faster way to the same handler, and
// decides nothing about a request but whether it is plain: who is asking, what
// may be read, how much at once, what is counted and written down, conditions,
// ranges and errors are all the handler's, as through net/http.
//
// # What is plain
//
// One parser decides (parse.go), by what is allowed and not by what is known to
// be bad: the method, a target of printable ASCII below /data/, HTTP/1.1, lines
// that end with CR LF, a Host, and fields of a fixed list, each at most once,
// with a value of printable ASCII. None of them gives a request a body, changes
// the protocol, or ends the connection. Whatever else comes, and a head that is
// larger than a buffer, goes to net/http, with the bytes that have been read
// and the whole connection behind them. Such a connection never comes back. So
// there are never two parsers that have to agree on where a request ends: what
// this one takes has no body, and ends with its empty line.
//
// # What an answer looks like
//
// The bytes are those of net/http: the same status line, fields in the same
// order, the same treatment of HEAD, 304, an answer that is too short, and a
// handler that panics (FuzzBothDoors). The head leaves with the first bytes of
// the body, in one write; files and connections are moved by the kernel.
//
// # The shortest way
//
// GETs that ask for nothing but an object are offered to a Direct first, if there
// is one, which needs no http.Request and no header (direct.go). What it doesn't
// want goes to the handler.
//
// # Times, bounds and the end
//
// Each connection has one goroutine and one buffer of 4 KiB. All of them share
// one goroutine that accepts, and one that looks after requests that take long:
// it ends the context of those whose client has gone. Times are those of the
// http.Server: ReadHeaderTimeout for a head, of which a head that is handed over
// in the middle has only what is left; IdleTimeout between requests; a write has
// the deadline that the handler sets, and has to be noticed only where the kernel
// doesn't take all of it at once. When the listener is closed, what is idle is
// closed, and what is under way ends with its answer (Listener.Wait).
package lean
