// Package certs is where a node's TLS certificates come from, and how they
// change while it runs.
//
// # The mesh's own authority
//
// With Mesh nobody has to make certificates. The key of the mesh's certificate
// authority is derived from the mesh secret (authority.go), so that all nodes
// have the same authority without a word between them: who knows the secret may
// join the mesh anyway. Its certificate is the same on all nodes to the last
// byte, and has no end of its own; a new secret is a new authority. While a
// secret is being rotated there are several: the first signs, all are trusted.
//
// A node's certificate (mesh.go) is made in memory and never written down. It
// is for the node's name and the addresses it can be reached by, lives thirty
// days and is renewed after twenty, give or take one. It is also made anew as
// soon as another secret comes first.
//
// # Files
//
// Files (files.go) are certificates from elsewhere. They are read again when
// they change: a pair that is whole and fits takes the place of the one in use,
// for new handshakes; anything else leaves it, and is logged once. Connections
// that are open stay.
//
// # TLS
//
// Server and Client (tls.go) make configurations of either that ask, for each
// handshake, for what is in use by then. It is TLS 1.3. Peers' certificates are
// verified against the authorities of that moment, for the server name that is
// meant: so nothing about a certificate is remembered in a session ticket.
//
// # Goroutines
//
// None of its own: Watch runs in its caller's goroutine until its context ends.
// Mesh and Files may be used from many goroutines at once.
package certs
