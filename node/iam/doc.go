// Package iam decides who a caller is and what they may do. It holds no
// connection, file or clock: the doors ask it, and act on its answer.
//
// # The life of a request's identity
//
// A door takes what it knows of a caller, before a byte of the body is read, and
// asks the Gate, once per request:
//
//	Request → Gate.Verify → Principal → WithPrincipal → … → Authorize → the deed
//
// The Principal travels in the context. Whatever carries out the request asks
// Authorize with the Action and with the bucket and key it has parsed itself,
// so that permission and storage mean the same name. Everything is refused
// that is not explicitly allowed, an unknown action included; the zero
// Principal may do nothing. What stays open is followed: Gate.Follow asks again
// when something changes, and ends what may not go on.
//
// # Ways in
//
//   - A root key as bearer. It needs nothing but itself, and may do everything.
//     There may be several, so that it can be replaced while it is in use.
//   - An access key as bearer.
//   - A token: a JWT by HMAC-SHA256 that an access key was exchanged for, with
//     the deployment as its audience, for 15 minutes at most, perhaps narrowed to
//     some grants. It is good for as long as its key is.
//   - A link: a request for bytes with an end, signed in its query with an access
//     key. It allows one method on one key of one bucket, if its signer may. Anyone
//     with a key makes one without asking (SignLink); Link.canonical has the form.
//   - A client certificate, of which a name stands for a user.
//
// # Rights
//
// A user has grants: a role over every bucket, a bucket, or the keys of a bucket
// that begin with a prefix. A key may do what its user may; a service key what its
// own grants allow besides; a narrowed token what its grants allow besides that.
// So nothing that is made of something else can do more, whatever changes later.
// The grants' file tells what each role is good for.
//
// # Snapshots and waiting
//
// Users, keys and the master are rows of the index; NewSnapshot makes of them what
// is asked in memory alone. Before the first one Verify gives ErrNotReady, which is
// a wait and says nothing about the caller. Once nobody has confirmed the rows for
// MaxAge, it gives ErrStale: who was revoked since can't be known. The root key
// works all the while.
//
// # Secrets
//
// An access key is one string, gl_<id>_<secret>_<check>. The check is a
// checksum over the rest: it tells a typo from a wrong key, and gives scanners
// for leaked keys something to recognise; it protects nothing. The secret is
// 256 random bits, so a fast keyed hash is all that its storage needs. The
// root key has the id "root".
//
// What is kept of a key is an HMAC of its secret, encrypted with AES-GCM under the
// mesh's master and bound to the key's id and user; what is kept of the master are
// boxes, one for each mesh secret. So whoever reads the rows has nothing that
// opens a door, or signs. A Snapshot leaves the keys sealed, and opens one for the
// time of a request; the Gate keeps HMACs of the root keys. All comparisons are
// in constant time, and an unknown id costs the same as a wrong secret and gets the
// same answer.
//
// A Credential shows its secret to String alone: every fmt verb, slog and
// encoding/json give the id and dots. Nothing else here shows one at all.
//
// # Errors
//
// What comes of bad input says which part is wrong, and never repeats a
// secret, not even a malformed one. Errors wrap ErrCredential, ErrMaster,
// ErrUnauthenticated, ErrPermissionDenied, ErrNotReady or ErrStale, or are a
// *FieldError; the doors give them their status.
//
// Everything here may be used from many goroutines at once, and nothing
// starts one. No lock is taken while another is held; a follower's is while it is
// looked at and ended, and the Gate's isn't.
package iam
