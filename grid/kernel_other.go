//go:build !linux

package grid

import "net"

// sendBuffer bounds the kernel's queue where TCP_NOTSENT_LOWAT is not to be
// had, in bytes.
const sendBuffer = 512 << 10

func boundKernelQueue(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // the system's own size does, too
	}
}
