// Package door serves the bytes of objects over HTTP:
//
//	PUT     /data/{bucket}/{key…}   201 made, 204 replaced
//	GET     /data/{bucket}/{key…}   200, 206 a range or several, 304
//	HEAD    /data/{bucket}/{key…}   200, 304
//	DELETE  /data/{bucket}/{key…}   204
//
// with the ranges, conditions and validators of RFC 9110, and digests by RFC
// 9530: Repr-Digest in answers, Repr-Digest, Content-Digest and the older
// Content-MD5 verified in uploads before anything is visible, from the header or
// the trailer (digest.go). What an answer says can be chosen by Want-Repr-Digest
// and Want-Content-Digest, and by a link (custom.go). docs/http.md has every row
// with the tests that show it. User metadata travels in fields
// Gridloom-Meta-<name>. GET and HEAD take ?stale=5s, which allows an answer
// that is so old. GET takes ?verify=always: no byte leaves that was not compared
// with its checksum on the drive that it comes from, at the price of reading it
// into memory. No other query has a meaning here, and each is refused. Errors
// are problem+json by the kinds of node/fault.
//
// # The life of a request
//
// The HTTP listener has authenticated it and put the principal into its
// context. The path is parsed once, from its escaped form (path.go); what comes
// out is what is authorised and what is touched. Then read.go or write.go.
//
// A download's header goes out with its first byte: up to there an error has
// its own status, after it the connection is broken, so that no client takes a
// part for the whole. Payload files and bulk connections are handed through to
// net/http as they are, with the header flushed before: that is what lets the
// kernel move the bytes. On a plaintext connection that can hold the header
// back (ConnContext) it leaves with the first of them. Where a copy fails in the middle of them, another goes
// on with the next byte, and the client notices nothing: it is only when all
// have failed that the connection is broken. Whatever wraps the ResponseWriter in front of the door
// must forward ReadFrom and Flush, or have an Unwrap.
//
// A GET of a whole object that asks for nothing else may come by a shorter way
// (whole.go), without a request and a header: it gives the same answer or none.
//
// An upload is refused before its body is read wherever that is possible.
//
// # Time and other bounds
//
// Each window of a download has a write deadline by Options.MinRate, each read
// of an upload one by Options.Stall. There are at most 32 ranges in a request;
// those that touch are sent as one. Nothing is buffered here. The package has
// no goroutines.
//
// # Browsers
//
// Objects share their origin with the API and the console, and anybody who may
// write could have put a page there: answers carry nosniff and a sandbox
// policy. They vary by the credential's field, for the sake of shared caches.
package door
