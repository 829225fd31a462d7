package object

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// headMaxBytes bounds a response's head; ours have some 300 bytes.
const headMaxBytes = 16 << 10

// headSource is a connection of which a response's head can be read without a
// byte of what follows it, so that the kernel can move that.
type headSource interface {
	// peek returns at least one byte of what comes next, valid until take.
	peek() ([]byte, error)
	// take consumes the first n of the bytes that peek has returned.
	take(n int) error
}

var errHeadTooLarge = fmt.Errorf("the head of the answer is over %d bytes long", headMaxBytes)

// readHead reads the head of a response. begun says whether any of it came.
func readHead(src headSource, method string) (resp *http.Response, begun bool, err error) {
	var head []byte
	for {
		next, err := src.peek()
		if err != nil {
			return nil, len(head) > 0, err
		}
		// The end may straddle what came before.
		from := max(0, len(head)-3)
		n := len(next)
		head = append(head, next...)
		end := bytes.Index(head[from:], []byte("\r\n\r\n"))
		if end >= 0 {
			n -= len(head) - (from + end + 4)
			head = head[:from+end+4]
		}
		if err := src.take(n); err != nil {
			return nil, true, err
		}
		if len(head) > headMaxBytes {
			return nil, true, errHeadTooLarge
		}
		if end >= 0 {
			break
		}
	}
	resp, err = http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: method})
	if err == nil && len(resp.TransferEncoding) > 0 {
		err = errors.New("the answer is chunked")
	}
	return resp, true, err
}

// bufferedHead is a headSource over a buffer, for TLS.
type bufferedHead struct{ r *bufio.Reader }

func (b bufferedHead) peek() ([]byte, error) {
	if _, err := b.r.Peek(1); err != nil {
		return nil, err
	}
	return b.r.Peek(b.r.Buffered())
}

func (b bufferedHead) take(n int) error {
	_, err := b.r.Discard(n)
	return err
}

// byteHead is a headSource for any connection, one read a byte.
type byteHead struct {
	conn net.Conn
	buf  [1]byte
}

func (b *byteHead) peek() ([]byte, error) {
	_, err := b.conn.Read(b.buf[:])
	return b.buf[:], err
}

func (b *byteHead) take(int) error { return nil }
