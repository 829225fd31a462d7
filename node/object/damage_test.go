package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/fault"
)

// TestDamagedFiles: a payload that is gone, cut short or another one is an
// error before the first byte.
func TestDamagedFiles(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("damaged")
	for name, damage := range map[string]func(t *testing.T, path string){
		"gone":      func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"truncated": func(t *testing.T, path string) { must(t, os.Truncate(path, GridMaxBytes)) },
		"empty":     func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
	} {
		for _, size := range []int{GridMaxBytes, GridMaxBytes + 100} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				key := spell(t.Name())
				before := m.files()
				m.nodes[0].put(t, "damaged", key, randomBytes(size), true)
				for _, path := range m.files() {
					if !contains(before, path) {
						damage(t, path)
					}
				}
				for _, n := range m.nodes {
					got, err := n.read(testContext(t), "damaged", key, -1, 0)
					if fault.KindOf(err) != fault.Corrupted || len(got) != 0 || !strings.Contains(err.Error(), "n1") {
						t.Errorf("%s: %d bytes, %v", n.name, len(got), err)
					}
				}
			})
		}
	}
	// A record that is wrong about a size is found out as well.
	data := randomBytes(2 * GridMaxBytes)
	m.nodes[0].put(t, "damaged", "size", data, true)
	for _, n := range m.nodes {
		r, err := n.Open(testContext(t), "damaged", "size", Conditions{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.record.SizeBytes--
		r.record.Segments[0].SizeBytes--
		for _, length := range []int64{10, GridMaxBytes + 1} {
			var buf bytes.Buffer
			if _, err := r.Send(testContext(t), &buf, 0, length, dataio.Windows{}); fault.KindOf(err) != fault.Corrupted || buf.Len() != 0 {
				t.Errorf("%s: %d bytes, %v", n.name, buf.Len(), err)
			}
		}
	}
	// One flipped bit is found where the segment comes whole over the grid.
	key := "flipped"
	before := m.files()
	m.nodes[0].put(t, "damaged", key, data[:GridMaxBytes], true)
	for _, path := range m.files() {
		if !contains(before, path) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{data[1000] ^ 1}, 1000)
			must(t, err)
			must(t, f.Close())
		}
	}
	if _, err := m.nodes[2].read(testContext(t), "damaged", key, -1, 0); fault.KindOf(err) != fault.Corrupted {
		t.Errorf("flipped bit: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(all []string, s string) bool {
	for _, have := range all {
		if filepath.Clean(have) == filepath.Clean(s) {
			return true
		}
	}
	return false
}

// cutConn breaks off after so many bytes were read.
type cutConn struct {
	net.Conn
	left *int
}

func (c cutConn) Read(p []byte) (int, error) {
	if *c.left <= 0 {
		c.Close()
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:min(len(p), *c.left)])
	*c.left -= n
	return n, err
}

// TestBrokenSource: a peer that breaks off in the middle is asked once more for
// the rest; then it is an error, with the bytes so far, never a short success.
func TestBrokenSource(t *testing.T) {
	var left int
	m := onlyOn(t, 1, meshConfig{options: func(_ int, o *Options) {
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			mine := left
			return cutConn{c, &mine}, nil
		}
	}})
	m.bucket("broken")
	data := randomBytes(3 * testSegment)
	left = 1 << 40
	m.nodes[1].put(t, "broken", "k", data, true)
	for _, cut := range []int{0, 20, 1000, testSegment / 2, testSegment + 200, 3 * testSegment / 2} {
		left = cut
		for _, plain := range []bool{false, true} {
			r, err := m.nodes[0].Open(testContext(t), "broken", "k", Conditions{}, 0)
			must(t, err)
			var buf bytes.Buffer
			var w io.Writer = &buf
			if plain {
				w = plainWriter{&buf}
			}
			sent, err := r.Send(testContext(t), w, 0, -1, dataio.Windows{})
			whole := cut > testSegment && err == nil // a second connection may bring the rest
			if !whole && (fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "n1")) {
				t.Errorf("cut at %d: %v", cut, err)
			}
			if sent != int64(buf.Len()) || !bytes.Equal(buf.Bytes(), data[:sent]) || whole != (sent == int64(len(data))) {
				t.Errorf("cut at %d: %d bytes said, %d written", cut, sent, buf.Len())
			}
		}
	}
}

// TestSendCanceled: the end of the context ends a send that waits for a peer,
// and one whose reader has gone ends with what it was.
func TestSendCanceled(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("gone")
	m.nodes[0].put(t, "gone", "k", randomBytes(8*testSegment), true)
	for _, n := range m.nodes[:2] {
		ctx, cancel := context.WithCancel(testContext(t))
		r, err := n.Open(ctx, "gone", "k", Conditions{}, 0)
		must(t, err)
		var windows int
		sent, err := r.Send(ctx, io.Discard, 0, -1, dataio.Windows{NextBytes: 1 << 18, After: func(int64) {
			if windows++; windows == 3 {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || sent == 0 || sent >= 8*testSegment {
			t.Errorf("%s: %d bytes, %v", n.name, sent, err)
		}
		local, remote := pair(t)
		remote.Close()
		if _, err := r.Send(testContext(t), local, 0, -1, dataio.Windows{}); err == nil {
			t.Errorf("%s: sent to nobody", n.name)
		}
	}
}
