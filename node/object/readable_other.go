//go:build !linux

package object

import (
	"errors"
	"syscall"
)

// splices says that the kernel can move what a connection has received.
const splices = false

// received isn't called where nothing is spliced.
func received(syscall.RawConn, bool) (int, error) { return 0, errors.ErrUnsupported }
