package lean

import (
	"bufio"
	"bytes"
	"net"
	"net/textproto"
	"strings"
	"testing"
)

// oldHead is a head of HTTP/1.0.
func oldHead(method string, lines ...string) string {
	return method + " /data/b/k HTTP/1.0\r\nConnection: keep-alive\r\n" + strings.Join(lines, "") + "\r\n"
}

// looked is what is known of data that comes in pieces of n bytes.
func looked(data string, n int) Framing {
	var o old
	o.framing.Store(int32(Bodyless))
	for p := []byte(data); len(p) > 0; p = p[min(n, len(p)):] {
		o.see(p[:min(n, len(p))])
	}
	return Framing(o.framing.Load())
}

func TestOldFramings(t *testing.T) {
	clear, coded := oldHead("GET"), "Transfer-Encoding: chunked\r\n"
	for _, c := range []struct {
		data string
		want Framing
	}{
		{clear, Bodyless},
		{clear + clear + oldHead("DELETE"), Bodyless},
		{clear[:len(clear)-2], Bodyless},
		{oldHead("GET", coded), Faulty},
		{strings.ReplaceAll(oldHead("GET", coded), "\r", ""), Faulty},
		{oldHead("PUT", "Content-Length: 5\r\n", coded), Faulty},
		{oldHead("PUT", coded, "Content-Length: 5\r\n"), Faulty},
		{clear + oldHead("HEAD", strings.ToLower(coded)), Faulty},
		{oldHead("GET", "X-Transfer-Encoding: chunked\r\n"), Bodyless},
		{oldHead("GET", "A: b\r\n Transfer-Encoding: chunked\r\n"), Bodyless},
		{oldHead("GET", "A: Transfer-Encoding: chunked\r\n"), Bodyless},
		{oldHead("PUT", "Content-Length: 5\r\n"), Unknown},
		{oldHead("PUT", "Content-Length: 5\r\n") + oldHead("GET", coded), Unknown},
		{get("GET", "/data/b/k"), Unknown},
		{clear + get("GET", "/data/b/k", "Cookie: x"), Unknown},
		{"\r\n" + clear, Unknown},
		{oldHead("GET", "A: "+strings.Repeat("a", bufferBytes)+"\r\n", coded), Unknown},
	} {
		for _, n := range []int{1, 7, len(c.data)} {
			if got := looked(c.data, n); got != c.want {
				t.Errorf("%.200q by %d bytes: %d, want %d", c.data, n, got, c.want)
			}
		}
	}
	if got := OldFraming(t.Context()); got != Unknown {
		t.Errorf("of no connection: %d", got)
	}
	var none net.Conn
	if ctx := ConnContext(t.Context(), none); ctx != t.Context() {
		t.Error("a connection that isn't from here has a context of its own")
	}
}

// FuzzOld holds what is known of requests of HTTP/1.0 to what net/http's own reader
// finds in their heads.
func FuzzOld(f *testing.F) {
	for _, list := range [][]string{plainHeads, doubtfulHeads} {
		for _, text := range list {
			f.Add([]byte(strings.ReplaceAll(text, "HTTP/1.1", "HTTP/1.0")+oldHead("GET")), uint16(11))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		source := bytes.NewReader(data)
		from := bufio.NewReader(source)
		lines := textproto.NewReader(from)
		var o old
		o.framing.Store(int32(Bodyless))
		for seen := 0; ; {
			line, err := lines.ReadLine()
			if err != nil {
				return
			}
			h, err := lines.ReadMIMEHeader()
			if err != nil {
				return
			}
			end := len(data) - source.Len() - from.Buffered()
			at := min(seen+int(cut), end)
			o.see(data[seen:at])
			o.see(data[at:end])
			head := data[seen:end]
			seen = end
			want := Bodyless
			switch _, coded := h["Transfer-Encoding"]; {
			case !strings.HasSuffix(line, " HTTP/1.0"):
				want = Unknown
			case coded:
				want = Faulty
			case h["Content-Length"] != nil:
				want = Unknown
			}
			got := Framing(o.framing.Load())
			if got != want && (got != Unknown || len(head) < bufferBytes) {
				t.Fatalf("%q: %d, want %d", head, got, want)
			}
			if got != Bodyless {
				return
			}
		}
	})
}
