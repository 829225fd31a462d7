//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gridloom/gridloom/internal/bench"
)

// transfers are many large ones at the same time, at a node that has done
// nothing else since it was started.
type transfers struct {
	lab  *lab
	row  *row
	tls  bool
	size int64 // of each
}

func openDownloads(withTLS bool) func(context.Context, *lab, *row) ([]contender, error) {
	return func(_ context.Context, l *lab, r *row) ([]contender, error) {
		t := &transfers{l, r, withTLS, int64(l.plan.download) * mib}
		return []contender{{"gridloom", t.downloads}}, nil
	}
}

func openUploads(withTLS bool) func(context.Context, *lab, *row) ([]contender, error) {
	return func(_ context.Context, l *lab, r *row) ([]contender, error) {
		t := &transfers{l, r, withTLS, int64(l.plan.upload) * mib}
		return []contender{{"gridloom", t.uploads}}, nil
	}
}

// node starts one with a directory of its own. What is returned ends it, and
// removes what it has stored.
func (t *transfers) node(ctx context.Context) (*cluster, func() error, error) {
	dir := filepath.Join(t.lab.dir, t.row.id)
	c, err := openCluster(ctx, clusterOptions{dir: dir, nodes: 1, tls: t.tls})
	if err != nil {
		return nil, nil, err
	}
	return c, func() error { return errors.Join(c.close(), os.RemoveAll(dir)) }, nil
}

// downloads has all clients GET one object, which the node had before it was
// started.
func (t *transfers) downloads(ctx context.Context) (s sample, err error) {
	node, end, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	path := "/data/" + bucket + "/large"
	if err := node.request(ctx, http.MethodPut, 0, path, newContent(path, t.size), nil); err != nil {
		return nil, err
	}
	if err := errors.Join(node.close(), node.start(ctx)); err != nil {
		return nil, err
	}
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\nGridloom-Authorization: Bearer " + node.key + "\r\n\r\n")
	return t.measure(ctx, node, func(conn net.Conn, _ int, moved *atomic.Int64) error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.ContentLength != t.size {
			return fmt.Errorf("GET %s: %s, %d bytes", path, resp.Status, resp.ContentLength)
		}
		_, err = io.CopyBuffer(counter{moved}, resp.Body, make([]byte, 256*kib))
		return errors.Join(err, resp.Body.Close())
	})
}

// counter is a writer that counts.
type counter struct{ n *atomic.Int64 }

// Write implements io.Writer.
func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// uploads has each client PUT an object of its own.
func (t *transfers) uploads(ctx context.Context) (s sample, err error) {
	need := t.size * int64(t.row.conns)
	var fs unix.Statfs_t
	if err := unix.Statfs(t.lab.dir, &fs); err != nil {
		return nil, err
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need+need/8 {
		return nil, fmt.Errorf("%d MiB are to be put, and only %d MiB are free", need/mib, free/mib)
	}
	node, end, err := t.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	body := make([]byte, t.size)
	if _, err := io.ReadFull(newContent("upload", t.size), body); err != nil {
		return nil, err
	}
	return t.measure(ctx, node, func(conn net.Conn, i int, moved *atomic.Int64) error {
		err := upload(conn, bufio.NewReader(conn), fmt.Sprintf("/data/%s/upload/%d", bucket, i), node.key, body)
		if err == nil {
			moved.Add(t.size)
		}
		return err
	})
}

// measure has each client do its transfer, all at once, and takes the node's
// peak of memory from its start to their end.
func (t *transfers) measure(ctx context.Context, node *cluster, transfer func(conn net.Conn, i int, moved *atomic.Int64) error) (sample, error) {
	conns := make([]net.Conn, t.row.conns)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = t.dial(ctx, node.configs[0].HTTP); err != nil {
			return nil, err
		}
	}
	m, err := t.lab.meter(node)
	if err != nil {
		return nil, err
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	var moved atomic.Int64
	g, groupCtx := errgroup.WithContext(ctx)
	defer context.AfterFunc(groupCtx, func() {
		for _, c := range conns {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})()
	from := time.Now()
	for i, c := range conns {
		g.Go(func() error { return transfer(c, i, &moved) })
	}
	stop := t.profileHeap(node)
	err = g.Wait()
	took := time.Since(from)
	if err := errors.Join(err, stop(), m.stop()); err != nil {
		return nil, err
	}
	return m.sample(moved.Load(), t.size, took)
}

func (t *transfers) dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if !t.tls {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: &d, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", addr)
}

// profileHeap writes the node's heap every second while the transfers go on, so
// that the last of them stays, if the plan asks for profiles. What it returns
// ends that.
func (t *transfers) profileHeap(node *cluster) (stop func() error) {
	dir := t.lab.plan.profiles
	if dir == "" {
		return func() error { return nil }
	}
	ending := make(chan struct{})
	var err error
	var wg sync.WaitGroup
	wg.Go(func() {
		name := profileName(dir, t.row.id, "gridloom", node.configs[0].Name, "heap")
		for err == nil {
			select {
			case <-ending:
				return
			case <-time.After(time.Second):
				_, err = node.nodes[0].Ask(bench.Request{Heap: name})
			}
		}
	})
	return func() error {
		close(ending)
		wg.Wait()
		return err
	}
}
