//go:build !linux

package dataio

// writeMore writes p. The systems that have no flag for more to come send it in
// a packet of its own.
func (c *Conn) writeMore(p []byte) error {
	_, err := c.TCPConn.Write(p)
	return err
}
