//go:build !linux

package dataio

import "io"

// writeMore writes p. The systems that have no flag for more to come send it in
// a packet of its own.
func (c *Conn) writeMore(p []byte) error {
	_, err := c.TCPConn.Write(p)
	return err
}

func (c *Conn) cork(bool) {}

type writeNow struct{}

// WriteNow writes nothing: only where the kernel says how much it takes without a
// wait is that known.
func (c *Conn) WriteNow([]byte) (int, error) { return 0, nil }

// Gone isn't known here: whoever writes will see it.
func (c *Conn) Gone() bool { return false }

// sendNow has nothing to remember.
type sendNow struct{}

// SendNow moves nothing: whoever calls it goes on with ReadFrom.
func (c *Conn) SendNow([]byte, io.Reader) (wrote int, sent int64, err error) { return 0, 0, nil }

// sendRange copies the bytes.
func (c *Conn) sendRange(r *Range) (int64, error) { return c.TCPConn.ReadFrom(r) }

type receive struct{}

// Receive is Read. Whether it had to wait isn't known here: it says so.
func (c *Conn) Receive(p []byte) (n int, waited bool, err error) {
	n, err = c.TCPConn.Read(p)
	return n, true, err
}
