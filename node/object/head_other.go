//go:build !unix

package object

import "net"

// newTCPHead returns a headSource that reads byte by byte.
func newTCPHead(conn *net.TCPConn) headSource { return &byteHead{conn: conn} }
