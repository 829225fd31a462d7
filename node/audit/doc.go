// Package audit keeps the record of who did what to which resource, from where
// and with what outcome: a line of JSON for each request, in files that are
// rotated by size.
//
// A request has one Record, made by the listener that took it in and put into
// the context. Whoever learns something of the request on its way fills it in:
// authentication who it is, authorisation what it is about. The listener ends
// it, and the line is written, whatever became of the request: refused for want
// of a credential, cut off, failed.
//
// A record has names, and never a credential, a signature, a header or a body.
// Names come from outside; JSON's escaping keeps a name with a line break from
// making a line of its own, and of one that is longer than any may be the
// beginning is kept.
//
// The files are bounded, so who makes enough lines pushes the others' out. Nobody
// does so without a credential: of the requests that were refused to nobody known
// a few a second have a line, and the next line counts the rest. What others do is
// written line by line: whoever wants that kept ships the files away.
//
// A line is in the kernel's hands within a second (Run flushes), and before
// Close returns; it isn't synced, so that a power cut may take the last ones. A
// file that can't be written costs its lines, which are counted, and no request:
// whoever would rather have no service than no record watches the counter.
//
// # Goroutines
//
// Run, which its caller joins, flushes. A Log's turn is had while a line is
// copied into the buffer, and now and then while that is written or rotated. A
// disk that hangs then costs lines as one that fails does: a request, a flush and
// Close wait for the turn until somebody has had it for five seconds, and no
// longer. Close leaves behind only who hangs in the kernel.
package audit
