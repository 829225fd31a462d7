package object

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

const testHead = "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nGridloom-Bulk-Size: 7\r\n\r\n"

// TestReadHead: whatever the pieces in which an answer arrives, exactly its
// head is consumed.
func TestReadHead(t *testing.T) {
	sources := map[string]func(*net.TCPConn) (headSource, io.Reader){
		"tcp":  func(c *net.TCPConn) (headSource, io.Reader) { return newTCPHead(c), c },
		"byte": func(c *net.TCPConn) (headSource, io.Reader) { return &byteHead{conn: c}, c },
		"buffer": func(c *net.TCPConn) (headSource, io.Reader) {
			r := bufio.NewReaderSize(c, 64)
			return bufferedHead{r}, r
		},
	}
	all := testHead + "hello" + strings.Replace(testHead, "206", "200", 1) + "world"
	for name, source := range sources {
		for _, piece := range []int{1, 2, 3, 7, len(testHead) - 1, len(testHead), len(testHead) + 1, len(all)} {
			t.Run(fmt.Sprint(name, " in pieces of ", piece), func(t *testing.T) {
				local, remote := pair(t)
				go func() {
					remote.SetNoDelay(true)
					for rest := all; rest != ""; {
						n := min(piece, len(rest))
						io.WriteString(remote, rest[:n])
						rest = rest[n:]
					}
				}()
				head, body := source(local)
				for i, want := range []string{"hello", "world"} {
					resp, begun, err := readHead(head, "GET")
					if err != nil || !begun || resp.ContentLength != 5 || resp.Header.Get(headerSize) != "7" {
						t.Fatalf("answer %d: %+v, begun %v, %v", i, resp, begun, err)
					}
					got := make([]byte, 5)
					if _, err := io.ReadFull(body, got); err != nil || string(got) != want {
						t.Fatalf("body %d: %q, %v", i, got, err)
					}
				}
			})
		}
	}
}

func TestReadHeadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "cut off": "HTTP/1.1 200 OK\r\nConte", "no HTTP": "hello\r\n\r\n",
		"endless": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", headMaxBytes), "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			src := bufferedHead{bufio.NewReader(strings.NewReader(text))}
			_, begun, err := readHead(src, "GET")
			if err == nil {
				t.Fatal("no error")
			}
			if begun != (text != "") {
				t.Errorf("begun is %v", begun)
			}
		})
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte(testHead+"hello"), true)
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\n"), false)
	f.Add([]byte("\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, byteWise bool) {
		var r io.Reader = bytes.NewReader(data)
		if byteWise {
			r = iotest.OneByteReader(r)
		}
		buf := bufio.NewReader(r)
		_, _, err := readHead(bufferedHead{buf}, "GET")
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(buf)
		head := data[:len(data)-len(rest)]
		if !bytes.HasSuffix(head, []byte("\r\n\r\n")) || bytes.Index(head, []byte("\r\n\r\n")) != len(head)-4 {
			t.Fatalf("consumed %q of %q", head, data)
		}
	})
}
