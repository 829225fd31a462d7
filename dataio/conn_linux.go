package dataio

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeMore writes p, and has the kernel keep what doesn't fill a packet for
// what comes next. That comes at once: else it leaves after 200 ms.
func (c *Conn) writeMore(p []byte) error {
	if c.raw == nil {
		_, err := c.TCPConn.Write(p)
		return err
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			n, err := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch err {
			case nil:
				p = p[n:]
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				failed = os.NewSyscallError("sendmsg", err)
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}
