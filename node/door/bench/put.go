//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/crc64nvme"
	"golang.org/x/sys/unix"
)

// putter stores objects of one size, one after the other.
type putter struct {
	lab     *lab
	row     *row
	node    *cluster
	content []byte
	done    int // objects and files so far: each has a name of its own
}

// openPut has one node, so that there is one replica, and a bare file.
func openPut(ctx context.Context, l *lab, r *row) ([]contender, error) {
	node, err := l.single(ctx)
	if err != nil {
		return nil, err
	}
	p := &putter{lab: l, row: r, node: node, content: make([]byte, r.size)}
	if _, err := io.ReadFull(newContent("put", r.size), p.content); err != nil {
		return nil, err
	}
	return []contender{{"gridloom", p.gridloom}, {"bare file", p.bare}}, nil
}

// gridloom puts over one connection, and reads the last object back.
func (p *putter) gridloom(ctx context.Context) (s sample, err error) {
	stop, err := p.node.profile(p.lab.plan.profiles, p.row.id, "gridloom")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.node.configs[0].HTTP)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	answers := bufio.NewReader(conn)
	var last string
	s, err = p.measure(p.node, func() error {
		last = fmt.Sprintf("/data/%s/put/%d", bucket, p.done)
		return upload(conn, answers, last, p.node.key, p.content)
	})
	if err != nil {
		return nil, err
	}
	want := comparison{last, newContent("put", p.row.size), make([]byte, 64*kib)}
	return s, errors.Join(p.node.request(ctx, http.MethodGet, 0, last, nil, &want), want.end(), letGo(p.node.configs[0]))
}

// upload puts an object, and reads the answer.
func upload(conn net.Conn, answers *bufio.Reader, path, key string, body []byte) error {
	_, err := fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: bench\r\nGridloom-Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, key, len(body))
	if err != nil {
		return err
	}
	if _, err = conn.Write(body); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("PUT %s: %s: %s", path, resp.Status, text)
	}
	return errors.Join(err, resp.Body.Close())
}

// bare writes files: what `dd bs=1M conv=fsync` does, with the sums that a node
// makes of the same bytes beside it in another goroutine.
func (p *putter) bare(context.Context) (sample, error) {
	dir := filepath.Join(p.lab.dir, "bare")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := p.measure(self{}, func() error {
		return writeSummed(filepath.Join(dir, fmt.Sprint(p.done)), p.content)
	})
	return s, errors.Join(err, os.RemoveAll(dir))
}

// self is this process.
type self struct{}

func (self) processes() ([]process, error) { return []process{process(os.Getpid())}, nil }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func writeSummed(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	summed := make(chan []byte, 1)
	go func() {
		whole, crc32c, crc64 := sha256.New(), uint32(0), uint64(0)
		for rest := content; len(rest) > 0; {
			block := rest[:min(mib, len(rest))]
			rest = rest[len(block):]
			whole.Write(block)
			crc32c = crc32.Update(crc32c, castagnoli, block)
			crc64 = crc64nvme.Update(crc64, block)
		}
		summed <- fmt.Appendf(whole.Sum(nil), "%x %x", crc32c, crc64)
	}()
	for rest := content; len(rest) > 0 && err == nil; {
		block := rest[:min(mib, len(rest))]
		rest = rest[len(block):]
		_, err = f.Write(block)
	}
	if err == nil {
		err = f.Sync()
	}
	<-summed
	return errors.Join(err, f.Close())
}

// letGo has the kernel drop from memory what a node has stored, as removing the
// bare files does with theirs. Each run then writes into memory that the one
// before it has just given back. Else only the node would take memory that nobody
// has used for long, and a hypervisor that has taken that back gives it out again
// at 2 to 4 ms for each MiB, ten times what the copying takes.
func letGo(c serverConfig) error {
	return filepath.WalkDir(c.Dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !strings.Contains(name, "/payload/") {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// measure does it once, and then as often as the plan says, for the sample.
func (p *putter) measure(servers measured, put func() error) (sample, error) {
	m, err := p.lab.meter(servers)
	if err != nil {
		return nil, err
	}
	if err := put(); err != nil {
		return nil, err
	}
	p.done++
	all := int64(p.lab.plan.puts) * p.row.size
	if err := m.start(); err != nil {
		return nil, err
	}
	start := time.Now()
	for range p.lab.plan.puts {
		if err := put(); err != nil {
			return nil, err
		}
		p.done++
	}
	took := time.Since(start)
	if err := m.stop(); err != nil {
		return nil, err
	}
	return m.sample(all, p.row.size, took)
}
