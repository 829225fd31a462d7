//go:build !unix

package grid

import (
	"errors"
	"net"
)

// directWriter does not exist here: the writer goroutine writes everything.
type directWriter struct{}

func newDirectWriter(net.Conn) *directWriter { return nil }

func (*directWriter) write([]byte) (int, error) { return 0, errors.ErrUnsupported }
