// Package iam decides who a caller is and what they may do. It holds no
// connection, file or clock: the doors ask it, and act on its answer.
//
// # The life of a request's identity
//
// A door (gRPC, HTTP) takes the value of the authorization header and asks
// the Authenticator, once per request, before a byte of the body is read:
//
//	header → Authenticate → Principal → WithPrincipal → … → Authorize → the deed
//
// The Principal travels in the context. Whatever carries out the request asks
// Authorize with the Action and with the bucket and key it has parsed itself,
// so that permission and storage mean the same name. Everything is refused
// that is not explicitly allowed, an unknown action included; the zero
// Principal may do nothing.
//
// # Credentials
//
// An access key is one string, gl_<id>_<secret>_<check>. The check is a
// checksum over the rest: it tells a typo from a wrong key, and gives scanners
// for leaked keys something to recognise; it protects nothing. The secret is
// 256 random bits, so a fast keyed hash is all that its storage needs. The
// root key has the id "root".
//
// A Credential shows its secret to String alone: every fmt verb, slog and
// encoding/json give the id and dots. The Authenticator keeps no secret at
// all, only an HMAC under a key that it makes for itself, and compares in
// constant time; an unknown id takes as long as a wrong secret and gets the
// same answer.
//
// # Errors
//
// What comes of bad input says which part is wrong, and never repeats a
// secret, not even a malformed one. Errors wrap ErrCredential,
// ErrUnauthenticated or ErrPermissionDenied; the doors give them their status.
//
// Everything here may be used from many goroutines at once, and nothing
// starts one.
package iam
