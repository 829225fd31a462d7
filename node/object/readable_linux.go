package object

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// splices says that what a connection has received can be counted, so that it
// can be moved on by the kernel without waiting for the peer in the middle.
const splices = true

// received returns how many bytes can be read from a connection at once; with
// wait it waits until there are some, to the connection's read deadline. The
// end of what the peer sends is io.EOF.
func received(raw syscall.RawConn, wait bool) (n int, err error) {
	var failed error
	look := func(fd uintptr) bool {
		if n, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ); n > 0 || failed != nil {
			return true
		}
		// Nothing, the end, or an error: reading tells which.
		var one [1]byte
		for {
			var m int
			m, _, failed = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			switch failed {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				failed = nil
				return !wait
			case nil:
				n = m // which came meanwhile
				if m == 0 {
					failed = io.EOF
				}
			}
			return true
		}
	}
	if err := raw.Read(look); err != nil {
		return 0, err
	}
	if failed != nil && failed != io.EOF {
		failed = os.NewSyscallError("recvfrom", failed)
	}
	return n, failed
}
