package node

import (
	"io"
	"net/http"
	"strings"

	"github.com/gridloom/gridloom/node/door/lean"
	"github.com/gridloom/gridloom/node/fault"
)

// strict refuses what a server need not understand and another one, in front of
// it, may understand in another way; and it ends connections behind requests whose
// end the two may see in different places (last).
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if last(r) {
			w.Header().Set("Connection", "close")
		}
		if err := misframed(r); err != nil {
			bound(w, r)
			unread(w)
			fault.WriteProblem(w, err)
			return
		}
		if r.Method == http.MethodOptions && r.RequestURI == "*" {
			bound(w, r)
			w.Header().Set("Content-Length", "0")
			return
		}
		if r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Opaque != "" {
			bound(w, r)
			w.Header().Set("Connection", "close")
			fault.WriteProblem(w, fault.New(fault.InvalidArgument, "target", "is for a proxy, which this is not; give the path alone"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// last says that no connection outlives a request: what somebody smuggled in
// behind it is never read as a request then.
//
// One with both Content-Length and Transfer-Encoding can't be told from one with
// the latter alone: net/http drops the former, and keeps the connection. So one
// that is chunked is the last, which is what RFC 9112, 6.3, demands for the former.
//
// Of HTTP/1.0, Transfer-Encoding is what net/http drops, and goes by the rest. So
// what is of HTTP/1.0 is the last, too (RFC 9112, 6.1), unless the lean listener has
// seen that there is nothing of the kind: TLS has no such listener.
func last(r *http.Request) bool {
	if r.ProtoMajor != 1 {
		return false
	}
	return len(r.TransferEncoding) > 0 || isOld(r) && lean.OldFraming(r.Context()) != lean.Bodyless
}

// isOld says that a request is of HTTP/1.0, which net/http reads in its own way.
func isOld(r *http.Request) bool { return r.ProtoMajor == 1 && r.ProtoMinor == 0 }

// misframed says why a request of HTTP/1.0 has no body that two servers would agree
// about. What has come in chunks must not be taken for an empty body.
func misframed(r *http.Request) error {
	if !isOld(r) {
		return nil
	}
	if lean.OldFraming(r.Context()) == lean.Faulty {
		return fault.New(fault.InvalidArgument, "Transfer-Encoding", "is not known to HTTP/1.0; send Content-Length, or use HTTP/1.1")
	}
	switch r.Method {
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		if _, ok := r.Header["Content-Length"]; !ok {
			return fault.New(fault.LengthRequired, "Content-Length", "is missing; a body of HTTP/1.0 has no other length, use HTTP/1.1 to send one in chunks")
		}
	}
	return nil
}

// unread makes the answer the last of its connection, and has it reach a client that
// is still sending what nobody reads (see lingering). net/http does that for bodies
// it knows of, and for those that were too large, which is how it's told here of one
// it doesn't know of.
func unread(w http.ResponseWriter) {
	over := http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0)
	_, _ = over.Read(make([]byte, 1))
}
