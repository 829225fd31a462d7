//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// setMaxBytes bounds the files of one size, but for the first of them.
const setMaxBytes = gib

// sizeName is how rows and keys name a size: "64KiB".
func sizeName(size int64) string {
	switch {
	case size >= gib && size%gib == 0:
		return fmt.Sprintf("%dGiB", size/gib)
	case size >= mib && size%mib == 0:
		return fmt.Sprintf("%dMiB", size/mib)
	case size >= kib && size%kib == 0:
		return fmt.Sprintf("%dKiB", size/kib)
	}
	return fmt.Sprintf("%dB", size)
}

// content is bytes that don't compress, others for each name.
type content struct {
	size   int64
	left   int64
	random *rand.ChaCha8
}

func newContent(name string, size int64) *content {
	return &content{size, size, rand.NewChaCha8(sha256.Sum256([]byte(name)))}
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.random.Read(p[:min(c.left, int64(len(p)))])
	c.left -= int64(n)
	return n, err
}

// set is the paths of the files of one size that reads go round, the same at
// every server.
func (p *plan) set(size int64) (paths []string) {
	for i := range min(int64(p.files), max(1, setMaxBytes/size)) {
		paths = append(paths, fmt.Sprintf("/data/%s/%s/%03d", bucket, sizeName(size), i))
	}
	return paths
}

// requests are those for a set: these bytes go to every server.
func (p *plan) requests(size int64, query, key string) (requests [][]byte) {
	for _, path := range p.set(size) {
		requests = append(requests, []byte("GET "+path+query+" HTTP/1.1\r\nHost: bench\r\nGridloom-Authorization: Bearer "+key+"\r\n\r\n"))
	}
	return requests
}

// fill stores files through a cluster's first node, and reads them back.
func (c *cluster) fill(ctx context.Context, paths []string, size int64) error {
	for _, path := range paths {
		if err := c.request(ctx, http.MethodPut, 0, path, newContent(path, size), nil); err != nil {
			return err
		}
		if err := c.check(ctx, 0, path, size); err != nil {
			return err
		}
	}
	return nil
}

// check reads an object through a node, byte for byte.
func (c *cluster) check(ctx context.Context, node int, path string, size int64) error {
	want := comparison{path, newContent(path, size), make([]byte, 64*kib)}
	return errors.Join(c.request(ctx, http.MethodGet, node, path, nil, &want), want.end())
}

// fill makes files, and has the server show them.
func (n *nginx) fill(ctx context.Context, paths []string, size int64) error {
	for _, path := range paths {
		if err := n.put(path, newContent(path, size)); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+path, nil)
		if err != nil {
			return err
		}
		want := comparison{path, newContent(path, size), make([]byte, 64*kib)}
		if err := errors.Join(do(http.DefaultClient, req, &want), want.end()); err != nil {
			return err
		}
	}
	return nil
}

// comparison is a writer that accepts only its content.
type comparison struct {
	name string
	want *content
	buf  []byte
}

// Write implements io.Writer.
func (c *comparison) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := min(len(p)-n, len(c.buf))
		got, err := io.ReadFull(c.want, c.buf[:part])
		if err != nil || !bytes.Equal(c.buf[:got], p[n:n+part]) {
			return n, fmt.Errorf("%s: other bytes than were put", c.name)
		}
		n += part
	}
	return n, nil
}

func (c *comparison) end() error {
	if c.want.left > 0 {
		return fmt.Errorf("%s: %d bytes are missing", c.name, c.want.left)
	}
	return nil
}
