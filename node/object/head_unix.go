//go:build unix

package object

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// newTCPHead returns a headSource that looks at what the kernel has received
// before it takes any: two system calls a head.
func newTCPHead(conn *net.TCPConn) headSource { return &peekHead{conn: conn} }

type peekHead struct {
	conn *net.TCPConn
	buf  [2 << 10]byte
}

func (p *peekHead) peek() ([]byte, error) {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, rerr = unix.Recvfrom(int(fd), p.buf[:], unix.MSG_PEEK)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case rerr != nil:
		return nil, os.NewSyscallError("recvfrom", rerr)
	case n == 0:
		return nil, io.EOF
	}
	return p.buf[:n], nil
}

func (p *peekHead) take(n int) error {
	_, err := io.ReadFull(p.conn, p.buf[:n])
	return err
}
