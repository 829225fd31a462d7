package dataio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

// pair gives the two ends of a TCP connection.
func pair(t *testing.T) (*dataio.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return dataio.NewConn(near.(*net.TCPConn)), far
}

// TestConnKeepsOrder: whatever is held, in front of whatever follows, the other
// end gets all bytes once and in order, and the sizes that are told are those of
// what follows.
func TestConnKeepsOrder(t *testing.T) {
	head, content := []byte("HTTP/1.1 200 OK\r\n\r\n"), bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	long := []byte(strings.Repeat("h", 20<<10))
	for _, c := range []struct {
		name string
		send func(t *testing.T, c *dataio.Conn) (int64, error)
		want []byte
		n    int64
	}{
		{"small body", func(t *testing.T, c *dataio.Conn) (int64, error) { return written(c.Write(content[:100])) }, content[:100], 100},
		{"large body", func(t *testing.T, c *dataio.Conn) (int64, error) { return written(c.Write(content)) }, content, int64(len(content))},
		{"no body", func(t *testing.T, c *dataio.Conn) (int64, error) { return 0, c.Release() }, nil, 0},
		{"two writes", func(t *testing.T, c *dataio.Conn) (int64, error) {
			_, _ = c.Write(content[:1])
			return written(c.Write(content[1:3]))
		}, content[:3], 2},
		{"file", func(t *testing.T, c *dataio.Conn) (int64, error) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			return c.ReadFrom(&io.LimitedReader{R: f, N: 100_000})
		}, content[:100_000], 100_000},
		{"reader", func(t *testing.T, c *dataio.Conn) (int64, error) {
			return c.ReadFrom(bytes.NewReader(content))
		}, content, int64(len(content))},
	} {
		for _, held := range [][]byte{nil, head, long} {
			t.Run(c.name, func(t *testing.T) {
				near, far := pair(t)
				got := make(chan []byte, 1)
				go func() {
					b, _ := io.ReadAll(far)
					got <- b
				}()
				for range 2 { // of two responses
					if held != nil {
						near.Hold()
						if n, err := near.Write(held); n != len(held) || err != nil {
							t.Fatal(n, err)
						}
					}
					if n, err := c.send(t, near); n != c.n || err != nil {
						t.Fatalf("%d of %d bytes, %v", n, c.n, err)
					}
					if err := near.Release(); err != nil {
						t.Fatal(err)
					}
				}
				near.Close()
				want := append(append([]byte(nil), held...), c.want...)
				if b := <-got; !bytes.Equal(b, append(want, want...)) {
					t.Errorf("%d bytes came, not the %d that were sent", len(b), 2*len(want))
				}
			})
		}
	}
}

func written(n int, err error) (int64, error) { return int64(n), err }

// TestConnThatIsClosed: nothing that was held is told to have been sent.
func TestConnThatIsClosed(t *testing.T) {
	near, _ := pair(t)
	near.Hold()
	if _, err := near.Write([]byte("head")); err != nil {
		t.Fatal(err)
	}
	near.Close()
	if n, err := near.Write(make([]byte, 100)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a body behind a head that is lost: %d, %v", n, err)
	}
	if err := near.Release(); err != nil {
		t.Errorf("nothing is held: %v", err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	near.Hold()
	if _, err := near.Write([]byte("head")); err != nil {
		t.Fatal(err)
	}
	if n, err := near.ReadFrom(&io.LimitedReader{R: f, N: 1}); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a file behind a head that is lost: %d, %v", n, err)
	}
}
