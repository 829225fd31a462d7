//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
)

// headMaxBytes bounds the head of an answer, and so what a client takes at once
// before it knows how long the body is.
const headMaxBytes = 16 << 10

var errLongHead = errors.New("the head of the answer has no end")

// parseHead finds the end of an answer's head and the length of its body. n is 0
// as long as the head isn't whole. It knows what the servers measured here say,
// and no more: HTTP/1.1, 200, a Content-Length.
func parseHead(b []byte) (n int, length int64, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= headMaxBytes {
			err = errLongHead
		}
		return 0, 0, err
	}
	status, fields, _ := bytes.Cut(b[:end+2], []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return 0, 0, fmt.Errorf("answered %q", b[:min(len(b), 400)])
	}
	for len(fields) > 0 {
		i := bytes.IndexByte(fields, '\n')
		if length, ok := contentLength(fields[:i-1]); ok {
			return end + 4, length, nil
		}
		fields = fields[i+1:]
	}
	return 0, 0, fmt.Errorf("an answer without a length: %q", b[:end])
}

// contentLength reads a field's line.
func contentLength(line []byte) (n int64, ok bool) {
	const name = "content-length:"
	if len(line) <= len(name) || line[0]|0x20 != 'c' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return 0, false
	}
	for _, c := range bytes.TrimSpace(line[len(name):]) {
		if c < '0' || c > '9' || n > 1<<50 {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}
