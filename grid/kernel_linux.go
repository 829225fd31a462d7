package grid

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsentLimit bounds what lies in the kernel and was not sent yet, in bytes:
// whatever is there goes before the most urgent request. The data in flight
// is not limited by it, so neither is the throughput.
const unsentLimit = 128 << 10

func boundKernelQueue(conn net.Conn) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = over.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // an old kernel does without
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
	})
}
